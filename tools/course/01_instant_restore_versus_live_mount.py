# %% [markdown]
# # 01 · Instant restore versus live mount
#
# *Run the cells one by one with <kbd>Shift</kbd>+<kbd>Enter</kbd>; widgets appear only then.*
#
# The disk under a PostgreSQL server is gone. What is left is last night's backup copy, on object storage. Users are waiting.
#
# You have three ways to bring the server back:
#
# | | what happens | steps |
# |---|---|---|
# | **full restore** | copy everything to primary storage (the fast disks where it is to live), then boot | as it was always done |
# | **instant restore** | boot straight from the backup copy; while the server runs, *relocate* its disk to primary storage; then let the backup go | O1–O21 |
# | **live mount** | boot straight from the backup copy and stay there, until the mount *expires*: its time is over | O22–O26 |
#
# **How long until the database serves again — and what is left hanging on the backup afterwards?**
#
# The server and its reads are real: every read of its boot was recorded. The machinery around it is simulated: the media agent with its read cache, the backup device, the
# network, the relocation.

# %%
import polars as pl
from checks import first_steps

import vmrestorekit as vr
from vmrestorekit.plan import LaunchRule, RelocationStart
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.charts import cache_over_time, reads_by_source
from vmrestorekit.show.guessing.guess_form import GuessForm

warmup()  # compile the engine now, so that nobody waits for it later

# %% [markdown]
# ## What was recorded
#
# Twenty-two servers and their boots, with every request that reached their disks; below, the second boot of each. Of its disk of 3 to 5 GB a machine reads only `read_mb`
# until it has booted and a first client was served.
#
# The same boot has several sizes in this course. Counted in *requests*, the database server's boot reads 104 MB (of 10⁶ bytes), as here. Each piece of 4 KiB counted once, it is 97 MB or 93 MiB (of 2²⁰), as in notebook 00.
# In the blocks of 64 KiB that a restore fetches, it is 116 MB: who needs a part gets the whole block.

# %%
# NBVAL_CHECK_OUTPUT
corpus = vr.load_corpus()
_ = pl.Config.set_tbl_rows(30)
corpus.catalog().filter(pl.col("boot") == "boot-2").select(
    "vm",
    pl.col("roles").list.join(", "),
    "requests",
    read_mb=(pl.col("read_bytes") / 1e6).round(1),
    boot_done_s=(pl.col("boot_done_ns") / 1e9).round(1),
)

# %% [markdown]
# ## Your guess
#
# Before you look: commit yourself. The boot needs about 100 MB of the disk; the backup copy holds about 770 MB; fetching from object storage takes some 30 ms
# before the first byte comes, sixteen fetches can be under way at a time, and the network brings 125 MB a second at most; with all that comes on top, copying goes at some 94 MB a second. The machine is launched 4 s after the request. On a local disk this boot takes 32 s.

# %%
ways = ["full restore", "instant restore and live mount", "all three, about the same"]
guesses = GuessForm(
    small=("Which serves users first?", ways),
    large=("And if the server also had a data disk of 16 GiB that the boot does not touch?", ways),
    hits=(
        "In the live mount: of 100 blocks that the server asks for, how many are in the read cache already?",
        range(101),
        "of 100",
    ),
)
guesses

# %% [markdown]
# ## The plan
#
# *What to pre-stage* (O3–O5). The media agent is told which machine is to be restored, and predicts the **first set**: the blocks that
# it will most likely ask for first. Our predictor has never seen this server: it learned from two boots each of two *other* machines, a web
# server and a database server of another release. (From all the others it learns more, and takes a minute or two.)
#
# *When to launch* (O6): after a head start of 4 s. *When to relocate* (O10): 10 s after the launch, in the middle of the boot. The live mount expires after 2 minutes.

# %%
database = corpus["bookworm-db"]
boot = database.boot("boot-2")
others = [each for vm in ("bookworm-web", "trixie-db") for each in corpus[vm].boots[:2]]
predictor = vr.LearnedPredictor(max_examples=20_000, max_iter=40).fit(others)
plan = vr.make_plan(
    predictor,
    boot,  # only the disk before the boot is looked at, never the reads that are to be predicted
    launch=LaunchRule("head_start", head_start_ns=4_000_000_000),
    relocation_start=RelocationStart("delay", delay_ns=10_000_000_000),
)
print(f"first set: {len(plan.first_set):,} of {plan.blocks:,} blocks of {plan.block_bytes // 1024} KiB")

# %%
restore = vr.simulate(boot, plan, "object_storage")
mount = vr.simulate(boot, plan.with_mode("live_mount", expiry_ns=120_000_000_000), "object_storage")
full = vr.simulate(boot, plan.with_mode("full_restore"), "object_storage")
restore, mount

# %% [markdown]
# ## Step through both, on one clock
#
# Words in the picture that you have not met:
#
# | word | means |
# |---|---|
# | **data agent** | the coordinator: tells the others what comes next |
# | **storage manager** | the backup system's office: who may restore, and until when |
# | **VM host** | runs the machine, and routes each of its reads to where the block is |
# | **shared file system**, **logical source** | through it the host reads the backup copy as if it were a disk |
# | **VM profile** | what the media agent is told about the machine |
# | **hole** | a block that holds nothing, so nothing is stored |
# | **pre-relocation mode** | the media agent also stages for the relocation, at low priority |
# | **sequence** | the order in which the relocation reads the disk |
# | **purged** | dropped from the read cache because nobody will ask for it again |
# | **evicted** | dropped from it because room was needed |
#
# All words: [glossary](glossary.md). Left is the instant restore, right the live mount; each step is told in a sentence. There are nearly 80,000 steps, so choose which ones:
#
# 1. Set **Step to** to *coordination messages* and press **Step** (or <kbd>Enter</kbd> on it) until the launch. What does only the restore do?
# 2. **Jump** to *relocation starts*. Then set **Step to** to *relocation*, and go on. In the left map block after block turns **P**: it is on the destination, and the read cache has
#    dropped it. Why may the media agent throw it away?
# 3. **Jump** to *read cache miss*. It is the live mount's. Where does the block come from, and what does the server do meanwhile? Why does the restore not miss it?
# 4. **Jump** to *live mount expires*. What becomes of the blocks that the server has written?

# %%
stepper = vr.Stepper(restore, mount)
stepper

# %% [markdown]
# ## Did you follow?
#
# Three questions about moments of the instant restore.

# %%
vr.Guess(restore, questions=3, seed=1, kinds=["hit_or_miss", "what_next"])

# %% [markdown]
# ## The answer
#
# Seconds after the restore was asked for; *waited*: seconds in all.


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def seconds(value):
    return None if value is None else round(value / 1e9)


def results(runs):
    rows = []
    for way, run in runs.items():
        figures = run.summary()
        rows.append(
            {
                "way": way,
                "launch": seconds(figures["launch_ns"]),
                "serves users": seconds(figures["time_to_ready_ns"]),
                "waited for the backup": seconds(figures["stall_ns"]),
                "backup copy free": seconds(figures["released_ns"]),
            }
        )
    return pl.DataFrame(rows)


runs = {"full restore": full, "instant restore": restore, "live mount": mount}
results(runs)

# %% [markdown]
# All about the same? So why the fuss? Because this server is tiny: 770 MB are copied in eight seconds. Give it a data disk.
# (Only the content of that disk is made up; the boot is the recorded one.)

# %%
# NBVAL_CHECK_OUTPUT
larger = boot.with_data_disk(16 * 2**30)
larger_plan = plan.replace(disk_bytes=larger.disk_bytes)
larger_runs = {
    "full restore": larger_plan.with_mode("full_restore"),
    "instant restore": larger_plan,
    "live mount": larger_plan.with_mode("live_mount", expiry_ns=120_000_000_000),
}
results({way: vr.simulate(larger, its_plan, "object_storage") for way, its_plan in larger_runs.items()})


# %%
guesses.tell(
    small="all three, about the same",
    large="instant restore and live mount",
    hits=round(100 * mount.summary()["hit_rate"]),
)

# %% [markdown]
# In the instant restore the server misses nothing: what was not staged, the relocation had brought to the destination before the server asked. The second that it waits all the same is no miss: reads go over the network, some of them behind the relocation's.
#
# **Where were the reads served?** At first from the read cache; the further the relocation gets, the more from the destination, and from there alone when it is done.

# %%
reads_by_source(restore)

# %% [markdown]
# **Why does the read cache not fill up?** Blocks for the relocation may take a quarter of it at most, and before the relocation starts they come at low
# priority: a read of the server always goes first. Once the relocation runs, the media agent sees runs of reads that follow the relocation's
# order, concludes that nobody will ask for these blocks again, and purges them as soon as they are sent (O15, O16).

# %%
cache_over_time(restore)

# %% [markdown]
# The live mount never purges: it has no other copy to fall back on.
#
# ## So which one?
#
# - The **full restore** never waits for the backup, but it only begins when everything is copied: 8 s here, more than three minutes with 16 GiB more, hours for a real file server.
# - With **instant restore** and **live mount** the waiting does not grow with the disk. What counts is the prediction, not the copying.
# - **Afterwards** they differ. The restored server runs on primary storage, its writes are kept, and the backup copy is free again. The mounted server still reads
#   from the backup, and at the expiry it is gone with all that it wrote. For an hour's test, for looking up a lost file, that is just what you want.
#
# ## Exercise: from which size on?
#
# Another seed, another machine, medium and head start (how long the media agent stages before the launch). Here the head start is longer, so the full restore
# serves users first. Give the machine a data disk, `larger = your_boot.with_data_disk(gib * 2**30)`: the copying grows, the staging does not.
#
# **From which size of the data disk on, in whole GiB, does the instant restore serve users before the full restore does?** Work it out from the speed of the copying, which follows from what is printed
# below. Or try sizes: `your_plan.replace(disk_bytes=larger.disk_bytes)` is the plan for the larger machine, as in the cell with 16 GiB.

# %%
SEED = 1  # with another one it is another machine
your_boot, your_plan, your_medium = first_steps.scenario(SEED)
print(first_steps.told(SEED))


# %%
# BEGIN SOLUTION gib = ...
def ready(gib, mode):
    disks = your_boot.with_data_disk(gib * 2**30)
    plan = your_plan.replace(disk_bytes=disks.disk_bytes).with_mode(mode)
    return vr.simulate(disks, plan, your_medium, detail="summary").summary()["time_to_ready_ns"]


gib = next(size for size in range(1, 17) if ready(size, "instant_restore") < ready(size, "full_restore"))
# END SOLUTION
first_steps.check_size(gib, seed=SEED)

# %% [markdown]
# **What is real and what is not.** Real: the requests, their order and the pauses between them, what the disk held. The recording computer emulated its processor in software, so the pauses are
# longer than on yours. Simulated: everything that takes time after a read has left the machine; the numbers of the devices and where they come from are in `vmrestorekit.restore.hardware`. The rules of the
# simulation are in `docs/clockwork.md`.
