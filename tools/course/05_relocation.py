# %% [markdown]
# # 05 · Relocation: in which order, and when?
#
# *Run the cells one by one with <kbd>Shift</kbd>+<kbd>Enter</kbd>; widgets appear only then.*
#
# A virtual machine (VM) was booted straight from its backup copy: nobody had to wait until everything was copied. But it cannot stay there for ever. The backup copy lies on
# something slow, and it has to be free again for other restores.
#
# So, while the VM runs, its disk is copied to **primary storage**, the fast disks where it belongs. This copying is the **relocation** (operations O10 to O17 of the
# patent, US 9,417,968, as this course counts them). Some words for it:
#
# - The **media agent** reads the backup copy, and keeps what it has read for a while in a **read cache**. To the VM and to the relocation alike this looks like one disk, the **logical source**.
# - The **data agent** coordinates the restore: it tells the others what to do.
# - The **destination** is the volume on primary storage. What has been copied there is **relocated**: from then on the VM reads it there (O14).
# - The **relocation sequence** is the order in which the blocks, pieces of 64 KiB, are copied (O13).
# - The **stall** is how much longer the boot takes than from a local disk.
#
# **Copying is copying, is it not? Does the order matter at all, and does it matter when it starts?**

# %%
import polars as pl
from checks import relocation

import vmrestorekit as vr
from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import RelocationStart
from vmrestorekit.restore.runs import RunDetector
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.guessing.guess_form import GuessForm
from vmrestorekit.show.relocation.choices import PURGES, SEQUENCES, Choice, sequences_of

warmup()  # compile the engine now, so that nobody waits for it later
SECOND = 1_000_000_000

# %% [markdown]
# ## The machine
#
# A PostgreSQL server with 770 MB on its disk, recorded while it booted. Before its launch the media agent stages the **first set**, what the server will most likely read first (O4, O5). Here
# that is what it read when it booted the time before. The relocation starts 10 seconds after the launch, and goes through the disk from its beginning to its end.

# %%
database = vr.load_corpus()["bookworm-db"]
boot = database.boot("boot-8")
plan = vr.make_plan(
    vr.LastBootReplay().fit([database.boot("boot-7")]),
    boot,
    relocation_start=RelocationStart("delay", delay_ns=10 * SECOND),  # O10
)
print(f"first set: {len(plan.first_set):,} blocks of {plan.block_bytes // 1024} KiB")

# %% [markdown]
# ## Your guess
#
# With this plan the boot stalls for 1.0 s, the relocation takes 8.2 s, and the backup copy is free 22 s after the restore was asked for.

# %%
guesses = GuessForm(
    order=(
        "Let the relocation start with the launch. With which order does the boot stall longest?",
        [SEQUENCES[name] for name in ("ascending", "boot_first", "boot_last", "backwards")],
    ),
    start=(
        "What the boot needs comes last. When should the relocation start, so that the boot waits least?",
        ["with the launch", "4 s after it", "10 s after it", "when the boot is done"],
    ),
)
guesses

# %% [markdown]
# ## Try it
#
# Above you choose; below, the **reference** is the plan as it was given, and **this** is your choice, on one clock. Drag **Time**, click into the time chart, or click on a block of a map to see its history.
# A cell of a map stands for many blocks, and shows what most of those are that no longer just rest in the backup; the history is of one block.
#
# | You choose | |
# |---|---|
# | **Order** | the relocation sequence |
# | **Starts**, **Delay** | when the relocation starts |
# | **Ahead** | how much of the read cache may be filled with blocks for the relocation, before it asks for them |
# | **Purge**, **Run** | when the media agent drops a block that was read: see below |
# | **Priority** | whether reads go before staging ahead; leave it as it is (*by weights*: both take turns) |
#
# Look first, then open **Why?**
#
# 1. **Order** *what the boot needs last*, **Starts** *with the launch*. Choose **Go to** *miss of a purged block*, press **Next**, and read the block's history. Why is it fetched twice?
# 2. **Order** *backwards*, **Starts** *some time after the launch*, **Delay** 10 s, as in the reference. Why does the relocation take twice as long?
# 3. **Order** *ascending*, **Delay** 20 s, **Ahead** 100 %. The VM's reads still go before all others. Why does its boot wait so long?

# %%
vr.RelocationExplorer(boot, plan)

# %% [markdown]
# ## Why the order matters
#
# Five orders; the relocation starts with the launch. Times in seconds.

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
orders = sequences_of(boot, plan, BackupLayout.full(boot.manifests, plan.block_bytes))


def results(choice):
    """Restore the server with a choice; times in seconds."""
    figures = vr.simulate(boot, choice.applied(plan, orders)).summary()
    return {
        "stall": round(figures["stall_ns"] / 1e9, 1),
        "relocation": round(figures["relocation_ns"] / 1e9, 1),
        "backup free": round(figures["released_ns"] / 1e9, 1),
        "fetches": figures["media_fetches"],
        "fetched again": figures["refetches_after_purge"],
    }


names = ["ascending", "by_file", "boot_first", "boot_last", "backwards"]
pl.DataFrame([{"order": SEQUENCES[name]} | results(Choice(name, "at_once")) for name in names])

# %% [markdown]
# - **Ascending** does well: the blocks lie on the backup medium in this order, so that one fetch brings many neighbours, up to half a megabyte. *Backwards* each neighbour comes alone. That is two and
#   a half times as many fetches, each with its 30 ms before the first byte, and the relocation takes more than twice as long.
# - **What is relocated early is read early from the destination**, which is quicker than the read cache behind its network. Here *ascending* happens to be early enough, too: 770 MB are soon copied.
# - **What the boot needs last** is worst of all. 246 blocks were fetched *again* from the slow backup device. Why that, we see next.
#
# ## Why may the media agent throw blocks away?
#
# Once the relocation has read a block, and has stored it on the destination, nobody asks the media agent for it any more. Keeping it would only fill the read cache. So it is **purged** (O16). How does the media agent know?
#
# - **Indicated**: the data agent says what is relocated.
# - **Inferred from runs** (O15): the media agent watches all reads. A *run* of them along the relocation sequence, 16 in a row say, is taken for the relocation. (It can look for runs after each read, or *once a period*.)
#
# A small example: a sequence of six blocks, a run of three, and a read of a stranger in between.

# %%
# NBVAL_CHECK_OUTPUT
detector = RunDetector(sequence=[50, 30, 80, 10, 90, 20], run_length=3)
rows = [{"read": block, "may be purged now": str(detector.read(block))} for block in (50, 30, 77, 80, 10, 20)]
pl.DataFrame(rows)

# %% [markdown]
# A run may be made of *anybody's* reads. If the relocation sequence has, at its end, the blocks of the boot in the order in which the boot reads them, then the booting VM's own reads look like the relocation. They are purged once sent; the
# relocation has not come to them, and the next read of the same block is a miss. The order *what the boot needs last*, with the launch, and four ways to purge. Two columns say what the VM's reads waited for, added up (`vr.waits`): the backup device, or the network, behind others. (They do not add up to the stall:
# two reads that wait at once count twice, and shorter waits are left out, as those for a turn at the device.) *Evicted*: dropped from the full cache to make room.


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def purging(words, **choice):
    restored = vr.simulate(boot, Choice("boot_last", "at_once", **choice).applied(plan, orders))
    figures, waits = restored.summary(), vr.waits(restored)
    return {
        "purge": words,
        "fetched again": figures["refetches_after_purge"],
        "stall (s)": round(figures["stall_ns"] / 1e9, 1),
        "backup device (s)": round(waits["device_ns"].sum() / 1e9, 1),
        "network (s)": round(waits["link_queue_ns"].sum() / 1e9, 1),
        "evicted (MiB)": round(figures["evicted_bytes"] / 2**20),
    }


pl.DataFrame(
    [
        purging(f"{PURGES['run']} of 2", purge="run", run_length=2),
        purging(f"{PURGES['run']} of 16", purge="run"),
        purging(PURGES["indication"], purge="indication"),
        purging(PURGES["off"], purge="off"),
    ]
)

# %% [markdown]
# So it depends on the purge what the VM waits for:
#
# - **Inferred**: the VM's blocks are purged too early, and the VM waits for the **backup device**, which fetches them again. A longer run does not help here: the *whole* sequence's end looks like the VM.
# - **Indicated**: nothing is purged before it is on the destination, and nothing is fetched again. What is left, about 3 s, is waiting on the **network**: behind the relocation, which copies everything else first.
# - **Never**: the cache of 256 MiB fills up, and blocks are **evicted**. The cache does not know who will not be missed, so that the VM waits for both.
#
# ### Exercise 1: which blocks go?
#
# With another seed you get other numbers.

# %%
SEED = 1

seen = relocation.reads(SEED)
print("relocation sequence:", *seen.sequence)
print("reads, in this order:", *seen.reads)
print("a run takes", seen.run_length, "reads")

# %%
# BEGIN SOLUTION purged = ...  # a list of blocks, such as [12, 34]
detector = RunDetector(seen.sequence, seen.run_length)
purged = [block for read in seen.reads for block in detector.read(read)]
# END SOLUTION
relocation.purge(purged, SEED)

# %% [markdown]
# ## When to start?
#
# Seconds again; the purge is inferred from runs of 16.

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
pl.DataFrame(
    [
        {"delay (s)": delay}
        | {
            f"{SEQUENCES[name]}: {figure}": results(Choice(name, "delay", delay))[figure]
            for name in ("ascending", "boot_last")
            for figure in ("stall", "backup free")
        }
        for delay in (0, 4, 10, 20, 40)
    ]
)

# %% [markdown]
# **With a good order** later is *not* gentler. The longer the server hangs on the backup, the more of its reads come from there, over the network, with a miss here and there. A relocation that starts at once, in a good order, is best for both: stall and backup copy.
#
# With the bad order there is one good moment soon after the launch. Look at the time chart: the boot loader has just read kernel and RAM disk, and for nearly ten seconds the server reads next to nothing. The relocation has the network for itself, and is done before the server
# wakes up. That is the idea of a **load condition** (O10): start when little is asked for. (The one here looks at the last
# minute. It is made for a server's day, and too slow for a boot.)

# %%
guesses.tell(order=SEQUENCES["boot_last"], start="4 s after it")

# %% [markdown]
# ### Exercise 2: a start that suits everybody
#
# Another machine, and an order that cannot be changed: what the boot needs last. And another restore keeps the destination busy for a while, so that the good moment soon after the launch is over. Its users want it to boot with little stall, its owner wants the backup copy back soon.
# **After how many seconds do you start?** Choose a **Delay**, and look at where the reads are and what is being copied then. Another seed is another machine and another time.

# %%
mine = relocation.scenario(SEED)
mine

# %%
vr.RelocationExplorer(mine.boot, mine.plan)

# %%
# BEGIN SOLUTION delay = ...  # seconds from the launch to the start of the relocation
delay = next(s for s in range(90) if relocation.start(s, SEED).is_right)
# END SOLUTION
relocation.start(delay, SEED)

# %% [markdown]
# ## And then?
#
# While all this goes on, the server *writes*. The backup copy must not change, so that writes go to a **write cache** on the host (O9), and the relocation copies what was there *before*. What has to happen when the last block is relocated, and
# in which order? Three steps:
#
# 1. **Apply the writes** (O17): what is in the write cache is newer than what was relocated, so that it goes over it. What the VM writes meanwhile is applied as well, until nothing is left.
# 2. The **pivot** (O21; the numbers do not follow the order here): from now on the VM uses the destination only. It was not stopped at any point.
# 3. Only then **unmount** (O18): a read of the logical source may have been under way until now. **Empty the read cache** (O19), and **de-associate** (O20): the backup copy is free, and byte for byte what it was.
#
# If the host crashes before the pivot, write cache and destination are still there. The relocation goes on where it was, and applying a write twice changes nothing.
#
# ### Exercise 3: an order of your own
#
# A made-up (SYNTHETIC) disk of 128 blocks, small enough to be thought through. Its machine reads some neighbours, one after the other, and then the same ones again. Nothing is staged ahead for the relocation, which starts with the launch. The purge is inferred from runs of four reads. In
# ascending order, blocks are fetched again.
#
# **Find a relocation sequence, a list of the numbers 0 to 127, with which nothing is fetched again, and that has at most two jumps.** A *jump* is a place in your list where the next number is not one more: `[0, 1, 2, 5, 6]` has one. (`[*range(128)]` is the ascending order; lists can be added.)

# %%
disk = relocation.tiny_disk(SEED)
print("The machine reads", *disk.wanted, "and then these again.")
print("fetched again in ascending order:", disk.relocate([*range(128)])["refetches_after_purge"])

# %%
# BEGIN SOLUTION order = ...  # a list of 128 blocks
needed = [*disk.wanted]
order = needed + [block for block in range(128) if block not in needed]
# END SOLUTION
relocation.order(order, SEED)

# %% [markdown]
# ## What you take with you
#
# - The **order** decides how far fetches reach on the medium, what is early on the destination, and whether the media agent mistakes the VM for the relocation.
# - The **purge** keeps the cache small, and is safe if it is indicated. If it is inferred, a run should be long, and the sequence should not be the order in which the VM reads.
# - A **priority** protects the backup device, not the read cache: what is staged ahead in quiet moments drives out what the VM will want. So staging **ahead** needs a limit.
# - **Start** early if the order is good; else when the VM asks for little.
#
# **What is real and what is not.** Real: the machines, their disks' layout, the requests of their boots with the pauses between them. Recorded on an emulated processor, so that the pauses are longer than on your hardware. Simulated: everything that takes time after a read
# has left the machine (numbers of the devices in `vmrestorekit.restore.hardware`, rules in `docs/clockwork.md`). The backup copy is a full one, written in the order of the disk. What the widget calls *what-if* is not what the
# patent has. Made up: the disk of exercise 3. And these disks are small: with terabytes the relocation takes hours, and a boot is over before it has begun to matter.
