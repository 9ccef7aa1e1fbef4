# %% [markdown]
# # 02 · Where the backup copy lies
#
# On Sunday the database server was backed up in full; on the seven days after it, only what had changed. On the next Sunday evening its disk dies, and the copies
# lie on **tape**. A colleague says: *“Eight small copies or one large one, the bytes are the same.”*
#
# **Are they? What does it cost that the blocks of one disk lie in eight copies, and how would you store them instead?**
#
# The eight copies are real: a virtual machine with PostgreSQL was booted eight times, and before each boot its disk was backed up by
# `vmrestorekit backup`. What is in the copies stayed in the lab; *where each block lies* is part of the recorded data.

# %%
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from checks import layout as exercise

import vmrestorekit as vr
from vmrestorekit.backup import (
    BackupLayout,
    BackupStore,
    CopySettings,
    create_copy,
    expire_copies,
    recorded_layouts,
    verify_store,
)
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.guess_form import GuessForm
from vmrestorekit.show.layout_charts import amplification_by_frame, boot_in_containers, time_by_chain_length
from vmrestorekit.show.summary_chart import compare_summaries

warmup()  # compile the engine now, so that nobody waits for it later
_ = pl.Config.set_fmt_str_lengths(60)

# %% [markdown]
# ## Eight copies, one disk
#
# A backup copy is a series of **chunks**; in each chunk there are **container files** of up to 100 blocks. A full copy lists every block that is not zeros, an
# incremental one only those that changed. *breaks*: how often the next block of the disk does not lie right behind the one before.

# %%
# NBVAL_CHECK_OUTPUT
machine = vr.load_corpus()["bookworm-db"]
boot = machine.boots[-1]
layouts = recorded_layouts(machine)


def described(name):
    layout = layouts[name]
    stored = np.flatnonzero(~layout.hole)
    return {
        "copy": name,
        "disk in it (MB)": round(layout.stored_bytes / 1e6),
        "chunks": len(np.unique(layout.chunk[stored])),
        "containers": len(np.unique(layout.container[stored])),
        "breaks": int(np.count_nonzero(np.diff(layout.address[stored]) != layout.block_bytes)),
    }


pl.DataFrame([described(f"boot-{number}") for number in range(1, 9)])


# %% [markdown]
# ## Your guess
#
# The machine is restored instantly: it boots from the copies while it is moved to primary storage. What to stage first is known well, from the boot before.

# %%
media = ["disk_library", "object_storage", "tape"]
how_much = ["up to a tenth longer", "half as long again", "more than twice as long"]
guesses = GuessForm(
    where=("On which medium do the seven incremental copies cost the most?", [*media, "about the same"]),
    how_much=("And how much longer does the server wait there for the backup?", how_much),
)
guesses

# %% [markdown]
# ## Where the blocks of a boot lie
#
# Each cell is a container file, in the order of writing; the darker, the more of its blocks the boot reads. A number stands where a chunk begins (the
# synthetic copy was written behind the others, so its chunks are 9 and 10). Hover over a cell to see
# what is in it.

# %%
boot_in_containers(
    boot,
    {
        "one full copy": layouts["length 0"],
        "one full and seven incremental copies": layouts["length 7"],
        "synthetic full copy, made of these": layouts["synthetic full"],
    },
)

# %% [markdown]
# The boot reads from every one of the incremental copies: what changed on a server is what it has just used, and what it uses next.
#
# ## What the chain costs
#
# The same boot, restored from the same disk, backed up as chains of different length:

# %%
predictor = vr.LastBootReplay().fit(machine.boots[-2])
plan = vr.make_plan(predictor, boot)


def restored(copy, medium):
    return vr.simulate(boot, plan, medium, layout=layouts[copy], detail="summary")


chains = {medium: {length: restored(f"length {length}", medium) for length in range(8)} for medium in media}
time_by_chain_length(chains)


# %%
# NBVAL_CHECK_OUTPUT
def results(runs):
    rows = []
    for name, run in runs.items():
        figures = run.summary()
        rows.append(
            {
                "copy": name,
                "waited for the backup (s)": float(f"{figures['stall_ns'] / 1e9:.2g}"),
                "relocation (s)": float(f"{figures['relocation_ns'] / 1e9:.2g}"),
                "fetches": round(figures["media_fetches"], -2),
                "read from the medium (MB)": round(figures["media_bytes"] / 1e6, -1),
            }
        )
    return pl.DataFrame(rows)


results({f"{medium}, {length}": chains[medium][length] for medium in media for length in (0, 7)})

# %% [markdown]
# Disks and object storage hardly notice: several fetches are under way at a time, and pre-staging hides the rest. A tape has one head. Each block that was
# changed on another day is a trip along the tape and back.
#
# ## The way out: a synthetic full copy
#
# The store can write the last disk anew, in its order, from the copies that it has, without asking the server for anything (`vmrestorekit backup synthesise --rewrite`):

# %%
# NBVAL_CHECK_OUTPUT
named = {"full and seven incremental": "length 7", "synthetic full": "synthetic full", "full": "length 0"}
on_tape = {name: vr.simulate(boot, plan, "tape", layout=layouts[copy]) for name, copy in named.items()}
results(on_tape)

# %%
compare_summaries(on_tape)


# %%
waited = {length: chains["tape"][length].summary()["stall_ns"] for length in (0, 7)}
times = waited[7] / waited[0]
guesses.tell(where="tape", how_much=how_much[2] if times > 2 else how_much[1])

# %%
print(f"On tape the server waits {times:.1f} times as long.")

# %% [markdown]
# ## Compressed together, read together
#
# Neighbours that are compressed together get smaller than each by itself. But who wants one of them has to read them all. How many bytes come from the medium for each
# byte that the boot reads?

# %%
sizes = [64 << 10, 256 << 10, 1 << 20, 4 << 20]
frames = {
    size: BackupLayout.full(boot.manifests, settings=CopySettings(zstd_level=3, frame_bytes=size))
    for size in sizes
}
amplification_by_frame(boot, frames)

# %%
# NBVAL_CHECK_OUTPUT
results(
    {
        f"{medium}, {name}": vr.simulate(boot, plan, medium, layout=layouts[copy], detail="summary")
        for medium in ("object_storage", "tape")
        for name, copy in (("single blocks", "length 7"), ("frames of 1 MiB", "in frames"))
    }
)

# %% [markdown]
# Random reads pay for the neighbours that nobody asked for; the tape is glad of them: it passes over them anyway. (Compression makes the bytes fewer, too. The simulation leaves that out:
# it counts them as before compression.)
#
# ## A store of your own
#
# A store is a folder. This one holds a small disk that is MADE UP, no recorded one: ten blocks of 64 KiB.

# %%
# NBVAL_CHECK_OUTPUT
folder = tempfile.TemporaryDirectory()
disk = Path(folder.name, "made-up.img")
contents = [np.random.default_rng(number).bytes(65536) for number in range(10)]
disk.write_bytes(b"".join(contents))
store = BackupStore.create(Path(folder.name, "store"))
create_copy(store, "monday", [disk])
create_copy(store, "a clone", [disk])  # another machine with the same contents
disk.write_bytes(b"".join([*contents[:9], contents[0]]))  # the last block becomes equal to the first
create_copy(store, "monday", [disk], kind="incremental")
pl.DataFrame(
    [{"copy": copy.number, "vm": copy.vm, "kind": copy.kind, **copy.counts} for copy in store.copies()]
).drop("stored_bytes")

# %% [markdown]
# The clone stores nothing: all its blocks are *links*. Nor does the changed block: its new content is there already. So what happens if one bit of the first container flips?

# %%
# NBVAL_CHECK_OUTPUT
container = store.path / "chunks" / "000001-000000" / "container-000000"
data = bytearray(container.read_bytes())
data[4096] ^= 1  # behind the container's own header: the first content
container.write_bytes(data)
pl.DataFrame(
    [{"copy": found.copy, "vm": found.vm, "affects": ", ".join(found.files)} for found in verify_store(store)]
)

# %% [markdown]
# One bit, three copies of two machines: that is the price of sharing. Which is why every content is checked against its signature whenever it is read, and why `verify`
# names what is affected.
#
# ## Try it yourself
#
# Expire the first machine's copies. How much space comes back, and why so little? (Hint: who links to it?)

# %%
# NBVAL_CHECK_OUTPUT
data[4096] ^= 1
container.write_bytes(data)
given_back = expire_copies(store, [1, 3])
left = store.copies()
print(f"{given_back / 65536:g} blocks given back; copies left: {[copy.vm for copy in left]}")
store.close()
folder.cleanup()

# %% [markdown]
# ## Exercise: how much of the boot lies in the increments?
#
# A boot that is restored from a chain reads some of its blocks from the full copy and the others from the incremental copies on top of it. Your seed says how long the
# chain is. `blocks` are the numbers of the blocks that the boot reads; `layout.chunk[block]` says in which chunk a block lies, and `full_chunks` is the number of
# chunks of the full copy: those come first.
#
# **How many MB (of 10⁶ bytes, `layout.block_bytes` a block) of what the boot reads lie in the incremental copies?**

# %%
SEED = 1  # with another one the chain has another length
length, layout, blocks, full_chunks = exercise.chain(SEED)
print(
    f"a full copy of {full_chunks} chunks and {length} incremental ones; the boot reads {len(blocks):,} blocks"
)

# %%
# BEGIN SOLUTION megabytes = ...
in_increments = layout.chunk[blocks] >= full_chunks
megabytes = in_increments.sum() * layout.block_bytes / 1e6
# END SOLUTION
exercise.check_increments(megabytes, seed=SEED)

# %% [markdown]
# **What is real and what is not.** Real: the machine, its boots, the eight copies of its disk, each exported again and compared with the disk by QEMU, and where their blocks lie.
# Simulated: the medium on which the copies lie one behind the other, and everything that takes time. Between two boots of this server little changes (8 to 10 MB of blocks of 64 KiB: logs,
# the journal, a few pages of the database); on a busy one it is far more, and the chain is worse. The store's format is in `docs/backup-format.md`.
