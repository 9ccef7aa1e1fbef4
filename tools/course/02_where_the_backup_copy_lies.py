# %% [markdown]
# # 02 · Where the backup copy lies
#
# On Sunday the database server was backed up in full; on the seven days after it, only what had changed. On the next Sunday evening its disk dies, and the copies
# lie on **tape**. A colleague says: *“Eight small copies or one large one, the bytes are the same.”*
#
# **Are they the same? What does it cost that the blocks of one disk lie in eight copies, and how would you store them instead?**
#
# *Run the cells one by one with <kbd>Shift</kbd>+<kbd>Enter</kbd>; widgets appear only then.*
#
# The eight copies are real: a virtual machine with PostgreSQL was booted eight times, and before each boot its disk was backed up by
# `vmrestorekit backup`. What is in the copies stayed in the lab; *where each block lies* is part of the recorded data.

# %%
import numpy as np
import polars as pl
from checks import layout as exercise

import vmrestorekit as vr
from vmrestorekit.backup import BackupLayout, CopySettings, recorded_layouts
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.guessing.guess_form import GuessForm
from vmrestorekit.show.layout_charts import amplification_by_frame, boot_in_containers, time_by_chain_length

warmup()  # compile the engine now, so that nobody waits for it later
_ = pl.Config(fmt_str_lengths=60, tbl_cols=-1, tbl_width_chars=120)
machine = vr.load_corpus()["bookworm-db"]
boot = machine.boots[-1]  # the last one: of the disk that is restored
layouts = recorded_layouts(machine)

# %% [markdown]
# ## Eight copies, one disk
#
# The **full copy** holds every block that is not zeros, an **incremental copy** only the blocks that changed since the copy before. Whoever wants the disk of a day needs
# the full copy and all incremental ones up to that day: the **chain**.
#
# A copy is stored as **chunks** (here two for the full copy, one for each incremental one), and a chunk as **container files** of up to 100 blocks.
# Chunks are numbered from 0: those of the full copy are 0 and 1. *jumps*: how often the next block of the disk does not lie right behind the one before.


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def described(number, seen):
    layout = layouts[f"boot-{number}"]
    stored = ~layout.hole
    new = stored & ~np.isin(layout.chunk, list(seen))
    seen.update(layout.chunk[stored].tolist())
    return {
        "copy": "full" if number == 1 else f"incremental {number - 1}",
        "new in this copy (MB)": round(new.sum() * layout.block_bytes / 1e6, 1),
        "chain so far: disk (MB)": round(layout.stored_bytes / 1e6),
        "chunks": len(np.unique(layout.chunk[stored])),
        "containers": len(np.unique(layout.container[stored])),
        "jumps": int(np.count_nonzero(np.diff(layout.address[stored]) != layout.block_bytes)),
    }


seen = set()
pl.DataFrame([described(number, seen) for number in range(1, 9)])


# %% [markdown]
# The columns at the right are those of the whole chain up to this copy. The seven incremental copies are small, but the disk's order is gone: 264 jumps instead of 8.
# (Why 8 at first? At four places the disk holds what it held before. That is not stored again, so the order goes back to it, and returns.)

# %% [markdown]
# ## Your guess
#
# The **stall** is how much longer the boot takes than from a local disk; the tables call it *waited for the backup*. A **fetch** is one request to the medium, of one block or several neighbours.
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
# Each cell is a container file, in the order of writing; the darker, the more of its blocks the last boot reads. A number stands where a chunk begins.
# All three pictures hold the *last* disk. So the full copy has a few containers more here than in the table, where it holds Sunday's disk.
# The third is a **synthetic full copy**: the same disk, written anew in one piece from the other copies. (It was written behind them, so its chunks are 9 and
# 10; more of it below.) Hover over a cell to see what is in it.

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
# The same boot, restored instantly from the same disk, backed up as a full copy with 0, 1, … 7 incremental copies:

# %%
predictor = vr.LastBootReplay().fit(machine.boots[-2])
plan = vr.make_plan(predictor, boot)


def restored(copy, medium, plan=plan):
    return vr.simulate(boot, plan, medium, layout=layouts[copy])


chains = {medium: {length: restored(f"length {length}", medium) for length in range(8)} for medium in media}
time_by_chain_length(chains)


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def duration(ns):
    return f"{ns / 60e9:.2g} min" if ns >= 60e9 else f"{ns / 1e9:.2g} s"


def jumps(run, layout):
    """Count the fetches that do not begin where the one before ended."""
    fetches = run.events.filter(pl.col("kind") == "fetch")
    first = fetches["block"].to_numpy()
    last = first + fetches["count"].to_numpy() - 1
    return 1 + int(
        np.count_nonzero(layout.address[first[1:]] != layout.address[last[:-1]] + layout.block_bytes)
    )


def results(restores):
    rows = []
    for name, (copy, run) in restores.items():
        figures = run.summary()
        rows.append(
            {
                "restore": name,
                "ready after": duration(figures["time_to_ready_ns"]),
                "waited for the backup": duration(figures["stall_ns"]),
                "all moved after": duration(figures["relocation_ns"]),
                "fetches": round(figures["media_fetches"], -2),
                "jumps": jumps(run, layouts[copy]),
                "read (MB)": round(figures["media_bytes"] / 1e6),
            }
        )
    return pl.DataFrame(rows)


copies = {"full": "length 0", "full + 7": "length 7"}
results(
    {
        f"{medium}, {name}": (copy, chains[medium][int(copy[-1])])
        for medium in media
        for name, copy in copies.items()
    }
)

# %% [markdown]
# *full + 7*: the full copy and the seven incremental ones. *ready after*: from the beginning until the server has booted. *jumps*: now those of the head in the course of the restore.
#
# Disks and object storage hardly notice: several fetches are under way at a time, and pre-staging hides the rest. A tape has one head, and each jump takes it two seconds:
# 755 jumps are 25 minutes, 1,447 are 48. So it is not the bytes that cost, it is the jumps.
#
# Why does the curve of the tape rise in steps, at 1 and at 6? The one head serves two by turns: the server's own reads, and the staging. *turns*: how often it goes from one to the other.


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def on_tape(length):
    run = chains["tape"][length]
    of_server = run.events.filter(pl.col("kind") == "fetch")["request"] >= 0  # else for the staging
    return {
        "incremental copies": length,
        "waited (min)": round(run.summary()["stall_ns"] / 60e9),
        "jumps": jumps(run, layouts[f"length {length}"]),
        "turns": int((of_server != of_server.shift()).sum()),
    }


pl.DataFrame([on_tape(length) for length in (0, 1, 5, 6, 7)])

# %% [markdown]
# At both steps there are hundreds of turns more, and each is a trip there and back. From 1 to 5 there are hardly any more: the server waits no longer.
# A few dozen misplaced blocks make a step, if they come where the server and the staging then get in each other's way.
#
# ## Why not read the tape straight through?
#
# Even with the full copy alone the server waits 17 minutes for 770 MB, which a running tape reads in seconds (loading it takes a minute). The jumps come from starting the server at once. A **full restore** does not:
# it copies the whole disk first, in its order, and starts the server then.

# %%
# NBVAL_CHECK_OUTPUT
straight = plan.with_mode("full_restore", first_set=[])
results(
    {
        f"{way}, {name}": (copy, restored(copy, "tape", of_way))
        for way, of_way in (("instant restore", plan), ("full restore", straight))
        for name, copy in copies.items()
    }
)

# %% [markdown]
# From tape the full restore has the server ready sooner, by far. **An instant restore needs a medium that can jump.** But the chain hurts the full restore, too: the server
# is ready after 11 minutes instead of 2, for the disk's order is not the tape's any more.
# (More jumps, and yet fewer fetches: while the head travels, requests pile up, and then neighbours are fetched together.)
#
# ## The way out: a synthetic full copy
#
# The store can write the last disk anew, in its order, from the copies that it has, without asking the server for anything (`vmrestorekit backup synthesise --rewrite`):

# %%
# NBVAL_CHECK_OUTPUT
named = copies | {"synthetic full": "synthetic full"}
results({f"full restore, {name}": (copy, restored(copy, "tape", straight)) for name, copy in named.items()})

# %%
waited = {length: chains["tape"][length].summary()["stall_ns"] for length in (0, 7)}
times = waited[7] / waited[0]
guesses.tell(where="tape", how_much=how_much[2] if times > 2 else how_much[1])

# %%
print(f"In the instant restore from tape the server waits {times:.1f} times as long.")

# %% [markdown]
# ## Compressed together, read together
#
# Neighbours that are compressed together get smaller than each by itself. Such a group is a **frame**. But who wants one block of it has to read the whole frame. How many bytes
# come from the medium for each byte that the boot reads, if each frame is read only once? (`zstd_level` says how hard the compressor tries.)

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
        f"{medium}, {name}": (copy, restored(copy, medium))
        for medium in ("object_storage", "tape")
        for name, copy in (("chain in single blocks", "length 7"), ("chain in frames of 1 MiB", "in frames"))
    }
).drop("jumps")

# %% [markdown]
# From object storage 2,900 MB are read for a disk of 770 MB: 3.8 times as much. Why not 2.4 times, as in the chart? The chart is about what the boot reads, and counts each frame
# once. The restore moves the whole disk, in requests of half a MiB, many at a time; and a frame is read *again* when another request wants a part of it that was not kept.
#
# Random reads pay for the neighbours that nobody asked for. The tape is glad of them: it passes over them anyway, and jumps so much less that even the instant restore is ready sooner than the full restore of the chain in single blocks. (Compression makes the bytes fewer, too. The simulation
# leaves that out: it counts them as before compression.)

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
# Simulated: the medium on which the copies lie one behind the other, and everything that takes time. Between two boots of this server little changes (5 to 10 MB of blocks of 64 KiB: logs,
# the journal, a few pages of the database); on a busy one it is far more, and the chain is worse. The store's format is in `docs/backup-format.md`.

# %% [markdown]
# ## If you like: a store of your own
#
# A store is a folder. This one holds a small disk that is MADE UP, no recorded one: ten blocks of 64 KiB. Its machine is backed up twice, and so is a clone of it, another
# machine with the same contents.

# %%
# NBVAL_CHECK_OUTPUT
import tempfile
from pathlib import Path

from vmrestorekit.backup import BackupStore, create_copy, verify_store

folder = tempfile.TemporaryDirectory()
disk = Path(folder.name, "disk.img")
contents = [np.random.default_rng(number).bytes(65536) for number in range(10)]
disk.write_bytes(b"".join(contents))
store = BackupStore.create(Path(folder.name, "store"))
create_copy(store, "mail-server", [disk])
create_copy(store, "its clone", [disk])
disk.write_bytes(b"".join([*contents[:9], contents[0]]))  # the last block becomes equal to the first
create_copy(store, "mail-server", [disk], kind="incremental")
pl.DataFrame(
    [{"copy": copy.number, "vm": copy.vm, "kind": copy.kind, **copy.counts} for copy in store.copies()]
)[["copy", "vm", "kind", "new_blocks", "linked_blocks"]]

# %% [markdown]
# The clone stores nothing: all its blocks are *links* to contents that are there already. Nor does the changed block. So what happens if one bit of the first container flips?

# %%
# NBVAL_CHECK_OUTPUT
container = store.path / "chunks" / "000001-000000" / "container-000000"
data = bytearray(container.read_bytes())
data[4096] ^= 1  # behind the container's own header: the first content
container.write_bytes(data)
print(
    *(f"copy {found.copy}, {found.vm}: {', '.join(found.files)}" for found in verify_store(store)), sep="\n"
)
store.close()
folder.cleanup()

# %% [markdown]
# One bit, three copies of two machines: that is the price of sharing. Which is why every content has a **signature**, a number worked out from all its bytes, which is checked
# whenever it is read; and why `verify` names what is affected.
