# %% [markdown]
# # 03 · The read cache
#
# A virtual machine that boots from its backup copy does not read the backup itself. Between both stands the **media agent**, and in it a
# **read cache**: fast storage that holds copies of *blocks*, pieces of the disk of 64 KiB. A block that is asked for and lies in the cache is a **hit**, served at
# once (O7). Else it is a **miss**: it is fetched from the backup, 30 ms and more away, put into the cache, then served (O8).
#
# When the cache is full, somebody has to go. A rule that says who is an **eviction policy**. And the patent has something better than
# eviction, the **purge** (O15, O16).
#
# **How large must the read cache be? And whom should it throw out?**
#
# *Run the cells one by one with <kbd>Shift</kbd>+<kbd>Enter</kbd>; widgets appear only then.*

# %%
import polars as pl
from checks import read_cache

import vmrestorekit as vr
from vmrestorekit.backup import BackupLayout
from vmrestorekit.plan import PurgeRule, RelocationStart
from vmrestorekit.restore.replay import block_accesses
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.guessing.guess_form import GuessForm

warmup()  # compile the engine now, so that nobody waits for it later
MIB = 2**20

# %% [markdown]
# ## The machine
#
# A web server, recorded while it booted. Before the launch the media agent stages a **first set** in the cache: what the server will most likely read (O4, O5).
# Here that is simply what it read when it booted the time before, in the same order.

# %%
corpus = vr.load_corpus()
web = corpus["bullseye-web"]
boot = web.boot("boot-2")
plan = vr.make_plan(
    vr.LastBootReplay().fit([web.boot("boot-1")]),
    boot,
    relocation_start=RelocationStart("delay", delay_ns=10_000_000_000),  # O10: 10 s after the launch
)
first_set_mib = len(plan.first_set) * plan.block_bytes / MIB
print(f"first set: {len(plan.first_set):,} blocks of {plan.block_bytes // 1024} KiB, {first_set_mib:.0f} MiB")

# %% [markdown]
# ## Who goes?
#
# | policy | who goes when the cache is full |
# | --- | --- |
# | **FIFO** | the block that came first |
# | **LRU** | the block that was not used for longest |
# | **CLOCK** | the block that came first; but who was used since is spared once, and goes to the end of the row |
# | **SIEVE** | like CLOCK, but who is spared keeps its place |
# | **S3-FIFO** | new blocks wait in a small queue; from there goes who is not asked for again, the others move to the main queue |
# | **ARC** | two lists, blocks used once and blocks used more often; how long each may be follows from who was evicted too early |
# | **Belady's optimum** | the block whose next use is farthest ahead. Nobody can know that; it is the measure for the others |
#
# ## Your guess
#
# **Stall** is how much longer the boot takes than from a local disk. In a **live mount** (boot from the backup, and stay there) with nothing staged, this server
# stalls for 14 s. With its first set of 68 MiB staged and room for all of it, the stall is 1 s.

# %%
guesses = GuessForm(
    small=(
        "The cache has only 64 MiB, 94 % of the first set. The live mount then stalls for …",
        ["about 1 s", "about 2 s", "about 7 s", "about 15 s"],
    ),
    policy=(
        "In this too small cache, which policy does best?",
        [
            "FIFO: first in, first out",
            "LRU: out goes what was not used for longest",
            "S3-FIFO: new blocks have to prove themselves in a small queue first",
            "all about the same",
        ],
    ),
    purge=(
        "An instant restore copies the whole disk, 342 MiB, through the same cache. "
        "How many MiB must it hold so that nothing is ever evicted?",
        range(0, 401, 4),
    ),
)
guesses

# %% [markdown]
# ## Does anybody read anything twice?
#
# A cache is good for what is read *again*. So look at the reads of the boot alone, first in pages of 4 KiB, then in the cache's blocks. `again`: of 100 accesses, how many go
# to something that was accessed before. `hits with 1 MiB`: how many of 100 an LRU cache of one MiB finds.


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def reuse(block_bytes):
    curve = vr.miss_ratio_curve(boot.trace, block_bytes=block_bytes)  # LRU, all sizes at once
    small = curve.filter(pl.col("cache_bytes") <= MIB)["miss_ratio"][-1]
    return {
        "KiB": block_bytes // 1024,
        "accesses": len(block_accesses(boot.trace, block_bytes)),
        "different ones": curve.height,
        "again": round(100 * (1 - curve["miss_ratio"][-1])),
        "hits with 1 MiB": round(100 * (1 - small)),
    }


pl.DataFrame([reuse(size) for size in (4 << 10, 64 << 10)])

# %% [markdown]
# Page by page hardly anything is read twice: the server keeps what it has read in its own memory. It comes back for the *neighbours*: a block of 64 KiB
# holds sixteen pages, and they are not all read at once. Most of them are read so soon after each other that one MiB catches them.
#
# So for a live mount the read cache is not mainly there to keep what was read. It is a **waiting room** for what was staged.

# %% [markdown]
# ## Explore
#
# Choose a case, a policy and a size. A restore is simulated for each policy at a size that you choose, so the map fills as you go (*All sizes* does the rest, *Simulated* says how
# much is done). In the map each cell is a simulated restore: click one, or walk with the arrow keys. The curves at the left only count blocks, as if fetching took no time, and so
# does the table's column *Misses, without time*; the curves at the right are the simulated restores.
#
# 1. *Live mount, first set staged*: walk down from 1024 to 32 MiB. Where is the cliff? What do the left curves, which know nothing of staging, say about it?
# 2. At 64 MiB, compare the policies.
# 3. *Live mount, nothing staged*: which policy is best now, and by how much?
# 4. *Instant restore*, with purging and without: set *Show* to *evicted*, then to *most that the cache held*.

# %%
sizes_mib = (16, 32, 48, 64, 80, 96, 128, 256, 512, 1024)
explorer = vr.CacheExplorer(boot, plan, sizes_mib=sizes_mib, size_mib=1024, one_by_one=True)
explorer

# %% [markdown]
# ## The answer: size

# %%
# NBVAL_CHECK_OUTPUT
mount = plan.with_mode("live_mount")
nothing_staged = mount.replace(first_set=[])


def stall(plan, size_mib, policy="lru"):
    run = vr.simulate(boot, plan.replace(cache_bytes=size_mib * MIB, eviction=policy), detail="summary")
    return round(run.summary()["stall_ns"] / 1e9, 1)


pl.DataFrame(
    {
        "MiB": size,
        "stall, nothing staged (s)": stall(nothing_staged, size),
        "stall, first set staged (s)": stall(mount, size),
    }
    for size in (16, 32, 48, 64, 80, 128)
)

# %% [markdown]
# 94 % of the first set fits, and all is lost: the server waits as long as if *nothing* had been staged. A still smaller cache makes staging even harmful.
# Four MiB too few are not a little worse, they are a cliff. Why?

# %% [markdown]
# ## Watch a policy decide
#
# The same in small: six blocks are wanted in their order, again and again, and the cache has room for five. Step through it: **whom does LRU evict, and when is that block
# wanted next?** Then look at S3-FIFO.

# %%
policies = vr.PolicyExplorer([1, 2, 3, 4, 5, 6] * 3, capacity=5, policies=("lru", "s3fifo"))
policies

# %% [markdown]
# LRU throws out the block that was not used for longest. When blocks are wanted in a fixed order, that is the very one that is wanted **next**. One block too many, and each
# access misses. It is the same with the first set: it is staged in the order in which it will be read. The block that lies there longest is the next to be
# read; a miss evicts it, so it will be a miss, too, which evicts the next …
#
# S3-FIFO sends new blocks through a small queue, a tenth of the cache (here that is one slot), and throws out there first. Some blocks suffer, the others stay until they are
# read. (Its *ghosts* are not in the cache: it only remembers the numbers of blocks that went lately.)

# %% [markdown]
# ## The answer: policy

# %%
# NBVAL_CHECK_OUTPUT
names = ("fifo", "lru", "clock", "sieve", "s3fifo", "arc")
pl.DataFrame(
    {
        "policy": policy,
        "staged, 64 MiB": stall(mount, 64, policy),
        "staged, 80 MiB": stall(mount, 80, policy),
        "nothing staged, 16 MiB": stall(nothing_staged, 16, policy),
    }
    for policy in names
)

# %% [markdown]
# - The cache is **large enough**: the policy does not matter at all, for nobody is evicted.
# - It is **a little too small** for what was staged: S3-FIFO and ARC, which do not let a long row of new blocks drive out everything else, wait less than half as long.
# - **Nothing is staged**: plain FIFO and LRU are as good as any. What is read again is read *soon*, and they keep what is new. S3-FIFO throws
#   new blocks out first, and is the worst; but it is about a second or two of fifteen.
#
# There is no best policy, only one that fits what is asked. The choice of the size matters more.

# %% [markdown]
# ## The answer: purge
#
# An **instant restore** copies the disk to primary storage while the server runs (**relocation**, O13). The relocation reads every stored block once, through the same cache. What the relocation
# has copied, the server reads from its new place from then on (O14): nobody will ask the media agent for it again. The media agent
# sees runs of reads in the relocation's order (O15), and drops such a run as soon as it is served (O16).


# %%
# NBVAL_CHECK_OUTPUT
def restore(size_mib, purge):
    changed = plan.replace(cache_bytes=size_mib * MIB, purge=PurgeRule(by_run=purge))
    run = vr.simulate(boot, changed, detail="summary").summary()
    return {
        "MiB": size_mib,
        "purge": "yes" if purge else "no",
        "evicted (MiB)": round(run["evicted_bytes"] / MIB),
        "held at most (MiB)": round(run["peak_cache_bytes"] / MIB),
        "read from the backup (MiB)": round(run["media_bytes"] / MIB),
        "stall (s)": round(run["stall_ns"] / 1e9, 1),
    }


_ = pl.Config(tbl_cols=-1, tbl_width_chars=120)
pl.DataFrame(restore(*each) for each in ((96, True), (96, False), (256, False), (512, False)))

# %% [markdown]
# With the purge, 96 MiB (92, to be exact) are enough for a disk of 342 MiB, and nothing is ever evicted. Without it the cache fills up with blocks that nobody will ask for
# again, and only the whole disk's size ends the evicting. **Eviction guesses, the purge knows.**
#
# Be fair to LRU, though: at 96 MiB it guesses well, and the server waits no longer without the purge. (The relocation of this small disk takes four seconds; then nobody asks
# the media agent for anything.) What the purge saves is room, and on a media agent that restores many servers at once, room is what is short.

# %%
guesses.tell(
    small="about 15 s",
    policy="S3-FIFO: new blocks have to prove themselves in a small queue first",
    purge=92,
)

# %% [markdown]
# ## Your turn
#
# Choose another seed, and you have other machines and numbers than your neighbour.

# %%
SEED = 1

# %% [markdown]
# **1 · How large?** Below you get a machine and a miss ratio. How many blocks of 64 KiB must an LRU cache hold at least, so that the boot misses no more than that? Nothing is staged.
# `vr.miss_ratio_curve(machine.boot.trace)` has a row for each size; its `miss_ratio` is a share of 1, not of 100.

# %%
machine = read_cache.draw_machine(corpus, SEED)
machine

# %%
# BEGIN SOLUTION blocks = ...
curve = vr.miss_ratio_curve(machine.boot.trace)
blocks = curve.filter(100 * pl.col("miss_ratio") <= machine.percent)["cache_blocks"][0]
# END SOLUTION
read_cache.check_size(blocks, machine)

# %% [markdown]
# **2 · Which policy?** By hand, on paper: how many of these accesses miss with FIFO, with LRU, and with Belady's optimum, which evicts the block whose next use is farthest
# ahead? The cache is empty at first. (`vr.PolicyExplorer(puzzle.accesses, puzzle.slots, ("fifo", "lru"), guess=True)` lets you train.)

# %%
puzzle = read_cache.draw_accesses(SEED)
puzzle

# %%
# BEGIN SOLUTION misses = {"fifo": ..., "lru": ..., "belady": ...}
misses = {
    policy: vr.replay_cache(puzzle.accesses, puzzle.slots, policy).misses
    for policy in ("fifo", "lru", "belady")
}
# END SOLUTION
read_cache.check_misses(misses, puzzle)

# %% [markdown]
# **3 · What does the purge save?** For the restore of your machine, find the smallest read cache of `read_cache.SIZES` (MiB) with which nothing is evicted: with
# the purge, as your plan has it, and with `PurgeRule(by_run=False)`. The function `restore` above shows how to simulate it.

# %%
your_boot, your_plan = read_cache.draw_restore(corpus, SEED)
delay_s = your_plan.relocation_start.delay_ns / 1e9
stored_mib = BackupLayout.full(your_boot.manifests).stored_bytes / MIB
print(
    f"{your_boot.vm}, {your_boot.boot}: {stored_mib:.0f} MiB are stored; relocation {delay_s:g} s after the launch"
)


# %%
# BEGIN SOLUTION sizes = (..., ...)
def smallest(plan):
    for size in read_cache.SIZES:
        run = vr.simulate(your_boot, plan.replace(cache_bytes=size * MIB), detail="summary")
        if run.summary()["evicted_bytes"] == 0:
            return size


sizes = (smallest(your_plan), smallest(your_plan.replace(purge=PurgeRule(by_run=False))))
# END SOLUTION
read_cache.check_purge(sizes, your_boot, your_plan)

# %% [markdown]
# **What is real and what is not.** Real: the reads of all machines, their order and the pauses between them. Simulated: the media agent with its cache, the devices, the network (`vmrestorekit.restore.hardware` has their numbers). The
# six policies are the very ones that the project's live media agent runs. The left curves know no time: a block that is missing is there at once. *Nothing staged* and
# *never purging* are what-ifs, not how the patent does it. The first set is optimistic: a server that was booted before, and has changed little since.
