# %% [markdown]
# # 01 · Instant restore versus live mount
#
# The disk under a PostgreSQL server is gone. What is left is last night's backup copy, on object storage. Users are waiting.
#
# You have three ways to bring the server back:
#
# | | what happens | patent US 9,417,968 |
# |---|---|---|
# | **full restore** | copy everything to primary storage, then boot | what everybody did before |
# | **instant restore** | boot straight from the backup copy; while the server runs, *relocate* its disk to primary storage; then let the backup go | operations O1–O21 |
# | **live mount** | boot straight from the backup copy and stay there, until the mount expires | operations O22–O26 |
#
# **How long until the database serves again — and what is left hanging on the backup afterwards?**
#
# Nothing here is made up: the server is a real virtual machine, and every read of its boot was recorded. What is simulated is the
# machinery around it: the media agent with its read cache, the backup device, the network, the relocation.

# %%
import polars as pl
import traitlets
from checks import first_steps
from ipywidgets import VBox

import vmrestorekit as vr
from vmrestorekit.plan import LaunchRule, RelocationStart
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.charts import cache_over_time, reads_by_source
from vmrestorekit.show.guess_form import GuessForm
from vmrestorekit.show.summary_chart import compare_summaries

warmup()  # compile the engine now, so that nobody waits for it later

# %% [markdown]
# ## What was recorded
#
# Twenty-two servers and their boots, with every request that reached their disks; here the second boot of each. Of disks of 3 to 5 GB, a machine reads
# only `read_mb` until it has booted and a first client has been served, or has been busy with it for up to a minute.

# %%
# NBVAL_CHECK_OUTPUT
corpus = vr.load_corpus()
_ = pl.Config.set_tbl_rows(30)
corpus.catalog().filter(pl.col("boot") == "boot-2").select(
    "vm",
    "release",
    pl.col("roles").list.join(", "),
    "requests",
    read_mb=(pl.col("read_bytes") / 1e6).round(1),
    boot_done_s=(pl.col("boot_done_ns") / 1e9).round(1),
)

# %%
database = corpus["bookworm-db"]
boot = database.boot("boot-2")
boot.trace.frame.head(4)


# %% [markdown]
# ## Your guess
#
# Before you look: commit yourself. The boot needs about 100 MB; the backup copy holds about 770 MB; fetching from object storage takes some 30 ms
# before the first byte comes, sixteen fetches can be under way at a time, and the network brings 125 MB a second. On a local disk this boot takes 32 s.

# %%
ways = ["full restore", "instant restore and live mount", "all three, about the same"]
guesses = GuessForm(
    small=("Which serves users first?", ways),
    large=("And if the server also had a data disk of 16 GiB that the boot does not touch?", ways),
    hits=("Of 100 blocks asked of the media agent, how many are in its read cache?", range(101)),
)
guesses

# %% [markdown]
# ## The plan
#
# *What to pre-stage* (O3–O5). The media agent is told which machine is to be restored, and predicts the **first set**: the blocks that
# it will most likely ask for first. Our predictor has never seen this server: it learned from boots of two *other* machines, a web
# server and a database server of another release, and from fewer examples than it could draw, so that you need not wait long. (Learning from all
# machines takes a minute or two, and finds more.)
#
# *When to launch* (O6): after a head start of 4 s. *When to relocate* (O10): 10 s after the launch, in the middle of the boot. The live mount expires after 2 minutes.

# %%
others = corpus.only("bookworm-web", "trixie-db")
predictor = vr.LearnedPredictor(max_examples=60_000).fit(others)
plan = vr.make_plan(
    predictor,
    boot,  # only the disk before the boot is looked at, never the reads that are to be predicted
    launch=LaunchRule("head_start", head_start_ns=4_000_000_000),
    relocation_start=RelocationStart("delay", delay_ns=10_000_000_000),
)
print(f"first set: {len(plan.first_set):,} of {plan.blocks:,} blocks of {plan.block_bytes // 1024} KiB")
print(f"the first ten: {plan.first_set[:10].tolist()}")

# %%
restore = vr.simulate(boot, plan, "object_storage")
mount = vr.simulate(boot, plan.with_mode("live_mount", expiry_ns=120_000_000_000), "object_storage")
full = vr.simulate(boot, plan.with_mode("full_restore"), "object_storage")
restore, mount

# %% [markdown]
# ## Step through both, on one clock
#
# Press **Step** (or focus it and press <kbd>Enter</kbd>); each step is told in a sentence. Left the instant restore, right the live mount.
# Some things to look for:
#
# 1. Until the launch both do nearly the same. In whose order do they stage, and what does only the restore do?
# 2. Jump to the first **read cache miss** (the live mount's). Where does the block come from, and what does the server do meanwhile?
# 3. Jump to **relocation starts**, and go on. In the left map block after block turns **P**: it is on the destination, and the read cache has dropped it.
#    Why may the media agent throw it away?
# 4. Jump to **live mount expires**. What becomes of the blocks that the server has written?

# %%
stepper = vr.Stepper(restore, mount)
stepper

# %% [markdown]
# ## Did you follow?
#
# Four questions about moments of the instant restore. Guess, then look: the stepper below goes to the moment that was asked about.

# %%
guess = vr.Guess(restore, questions=4, seed=1, kinds=["hit_or_miss", "what_next"])
moments = vr.Stepper(restore)
traitlets.dlink((guess, "moment"), (moments, "index"))
VBox([guess, moments])

# %% [markdown]
# ## The answer


# %%
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
results(runs)  # seconds after the restore was asked for; waited: seconds in all

# %% [markdown]
# All about the same? So why the fuss? Because this server is tiny: 770 MB are copied in eight seconds. Give it a data disk
# (its content is made up; the boot is the recorded one):

# %%
# NBVAL_CHECK_OUTPUT
larger = boot.with_data_disk(16 * 2**30)
larger_plan = plan.replace(disk_bytes=larger.disk_bytes)
modes = {"full restore": "full_restore", "instant restore": "instant_restore", "live mount": "live_mount"}
results(
    {way: vr.simulate(larger, larger_plan.with_mode(mode), "object_storage") for way, mode in modes.items()}
)


# %%
guesses.tell(
    small="all three, about the same",
    large="instant restore and live mount",
    hits=round(100 * mount.summary()["hit_rate"]),
)

# %%
compare_summaries(runs)

# %% [markdown]
# **Where were the reads served?** At first from the read cache, with hardly a miss; the further the relocation gets, the more from the destination, and from
# there alone when it is done. What the server itself has written would come from the write cache, but it keeps that in its own memory and does not ask for it.

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

# %%
cache_over_time(mount)


# %% [markdown]
# ## So which one?
#
# - The **full restore** has no stall at all, but it only begins when everything is copied: 8 s here, more than three minutes with 16 GiB more, hours for a real file server.
# - With **instant restore** and **live mount** the waiting does not grow with the disk. What counts is the prediction, not the copying.
# - **Afterwards** they differ. The restored server runs on primary storage, its writes are kept, and the backup copy is free again. The mounted server still reads
#   from the backup, and at the expiry it is gone with all that it wrote. For an hour's test, for looking up a lost file, that is just what you want.
#
# ## Try it yourself
#
# Staging *more* for the relocation before it starts sounds harmless: it has the lowest priority, and a read of the server always goes first. Let it use the whole
# read cache, or nothing of it, and start the relocation only after a minute. What happens to the stall, and why? (Hint: who was evicted?)


# %%
# NBVAL_CHECK_OUTPUT
def staging_ahead(share):
    ahead = plan.replace(
        stage_ahead_bytes=int(share * plan.cache_bytes),
        relocation_start=RelocationStart("delay", delay_ns=60_000_000_000),
    )
    figures = vr.simulate(boot, ahead, "object_storage").summary()
    return {
        "share of the cache": share,
        "stall (s)": seconds(figures["stall_ns"]),
        "hits of 100": round(100 * figures["hit_rate"]),
        "evicted (MB, to the hundred)": round(figures["evicted_bytes"] / 1e6, -2),
        "relocation takes (s)": seconds(figures["relocation_ns"]),
    }


pl.DataFrame([staging_ahead(share) for share in (0.0, 0.25, 1.0)])

# %% [markdown]
# What you saw is *cache pollution*: priority protects the device, not the cache. With the cache full of blocks that only the relocation wants, each miss drives out
# the oldest block, and the oldest are those of the first set, which the server has not read yet or will read again. And nothing at all ahead is no good either: then the relocation
# itself has to wait for every fetch.
#
# ## Exercise: from which size on?
#
# Another seed, another machine, medium and head start (how long the media agent stages before the launch). This machine, too, is so small that the full restore
# serves users first. Give it a data disk (`boot.with_data_disk(gib * 2**30)`): the copying grows, the staging does not.
#
# **From which size of the data disk on, in whole GiB, does the instant restore serve users before the full restore does?** Work it out from the speed of
# the copying, or try sizes. (A full restore of a plan for one more disk: see the cell about 16 GiB above.)

# %%
SEED = 1  # with another one it is another machine
your_boot, your_plan, your_medium = first_steps.scenario(SEED)
print(
    f"{your_boot.vm}, {your_boot.boot}, on {your_medium}; launch after {your_plan.launch.head_start_ns / 1e9:g} s"
)


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
# **What is real and what is not.** Real: the requests, their order and the pauses between them, what the disk held. Recorded on an emulated processor (TCG), so the pauses are
# longer than on your hardware; `cpu_factor` of the hardware shortens them. Simulated: everything that takes time after a read has left the machine; the numbers of
# the devices and where they come from are in `vmrestorekit.restore.hardware`. The rules of the simulation, to the nanosecond, are in `docs/clockwork.md`.
