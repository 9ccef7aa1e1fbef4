# %% [markdown]
# # 04 · Choose the first set
#
# *Run the cells one by one with <kbd>Shift</kbd>+<kbd>Enter</kbd>; widgets appear only then.*
#
# A restore is about to begin. In four seconds the machine will be launched, and until then the media agent may **pre-stage**: copy blocks from the slow backup copy to its read cache. What it
# chooses is the **first set** (O3 to O5). It cannot take everything: the read cache is small, and four seconds are short. Today *you* are the media agent.
#
# **With 120 MB to spend, which parts of a web server's disk do you pre-stage so that its boot waits least?**
#
# A boot that finds a block in the cache has a *hit*. If the block is missing, it is a *miss*: the media agent fetches it now, and the machine waits (O8). All waiting of a boot together makes its **stall**: how much
# later it is done than with a local disk.

# %%
import numpy as np
import polars as pl
from checks import first_set as exercises

import vmrestorekit as vr
from vmrestorekit.plan import LaunchRule, RestorePlan
from vmrestorekit.predict.oracles import OracleOrder
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.guessing.guess_form import GuessForm

warmup()  # compile the engine now, so that nobody waits for it later

# %% [markdown]
# ## Your guess
#
# It is the web server of notebook 00. It stores 391 MB (of 10⁶ bytes; 373 MiB), of which its boot reads 84 MB in blocks of 64 KiB. The kernel and the initial RAM disk, which starts the system, are 28 MB of what it stores; the boot reads all of them. Libraries, parts of programs that many programs share, are 60 MB; the boot reads
# half of these.

# %%
guesses = GuessForm(
    kernel=(
        "With nothing pre-staged the stall is 15.6 s. If only the kernel and its RAM disk are pre-staged?",
        ["about 15 s", "about 10 s", "about 5 s"],
    ),
    libraries=("If only the libraries are pre-staged?", ["about 15 s", "about 9 s", "about 5 s"]),
    best=("And if all that the boot will read is known?", ["about 5 s", "about 2 s", "under 1 s"]),
)
guesses

# %% [markdown]
# ## Pick, restore, look, pick again
#
# Choose by *kind of file*, by *folder*, by single *file*, or a region of the disk on the map; **Add** puts it on the list. **Restore** boots the recorded machine with your first set. Then the map shows what came of each part, and the
# table on the right what was missed, and what was picked in vain. Can you get below 6 seconds?
#
# - What is picked beyond the budget is left out, from the end of the list. The line under the buttons says how much: "programs and their files" alone is too much.
# - *File system's own* is what the file system keeps for itself, such as the lists of its files and folders.
# - A block of the read cache is 64 KiB: whoever picks a small file gets its neighbours in the block, too.

# %%
machine = vr.load_corpus()["bookworm-web"]
boot, last_boot = machine.boots[-1], machine.boots[-2]
picker = vr.FirstSetPicker(boot, last_boot, "object_storage", budget_mb=120, head_start_s=4)
picker

# %% [markdown]
# ## What others would have picked
#
# - **nothing**: every read of a new block waits for the backup copy
# - **by kind**: the kernel, or the libraries, and nothing else
# - **what the last boot read**: `vr.LastBootReplay` replays a recording of the boot before. That needs a recording of this very machine.
# - **an oracle**: it knows all that this boot will read. Nobody can; it shows how much there is to win.

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
contents = picker.contents
candidates = {
    "nothing": np.empty(0, np.int32),
    "kernel, initial RAM disk": contents.blocks("kind of file", "kernel, initial RAM disk"),
    "libraries": contents.blocks("kind of file", "libraries"),
    "what the last boot read": picker.bench.others["what the last boot read"],
    "oracle": picker.bench.others["oracle: what this boot will read"],
}
stall = {name: picker.bench.restore(blocks, picker.rules) for name, blocks in candidates.items()}
pl.DataFrame(
    {
        "first set": name,
        "MB": round(tried.first_set.size * 65536 / 1e6),
        "stall (s)": round(tried.stall_s, 1),
    }
    for name, tried in stall.items()
)

# %%
guesses.tell(kernel="about 15 s", libraries="about 9 s", best="under 1 s")

# %% [markdown]
# **Why is the kernel worth so little?** It is the largest single piece that a boot reads, but it is read in one go, from its first byte to its last. Half a megabyte is then fetched at a time, and waiting 30 ms for that
# hardly shows. Libraries are read in bits, now here, now there: hundreds of small reads, and each miss costs 30 ms. *What counts is not how much is read, but how often the machine has to wait.*
#
# ## Not only which: in which order
#
# Now all that the boot will read is known, and the question is only what comes first. While there is time enough before the launch, the order does not matter. Let us take the time away, so that staging goes on behind the
# launch, on a *disk library* (four hard disks). The stall in seconds:

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
first_reads = vr.make_plan(OracleOrder().fit(boot), boot).first_set
orders = {
    "as first read": first_reads,
    "as on the disk": np.sort(first_reads),
    "backwards": first_reads[::-1].copy(),
    "shuffled": np.random.default_rng(1).permutation(first_reads),
}


def stall_s(first_set, head_start_s, medium):
    launch = LaunchRule("head_start", head_start_ns=int(head_start_s * 1e9))
    plan = RestorePlan(boot.disk_bytes, "live_mount", first_set=first_set, launch=launch)
    return vr.simulate(boot, plan, medium, detail="summary").summary()["stall_ns"] / 1e9


pl.DataFrame(
    {
        "order": name,
        "launch at once": round(stall_s(blocks, 0, "disk_library"), 1),
        "launch after 2 s": round(stall_s(blocks, 2, "disk_library"), 1),
    }
    for name, blocks in orders.items()
)

# %% [markdown]
# The same blocks, and only their order differs. It is enough to keep a little ahead of the machine; a block that is fetched after it was wanted is no help. On a medium on which every way to another place takes long, such as a tape, the
# order counts for more: exercise 2.
#
# ## A tight budget turns it round
#
# And if only 60 MB may be staged? Then the order decides what is *left out*. Cut the list of first reads after 60 MB, and its end is missing; cut the reversed list, and its beginning is. The stall in seconds:

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
budgets = (20, 40, 60, 80, 100)
pl.DataFrame(
    {"kept": name}
    | {
        f"{budget} MB": round(stall_s(blocks[: int(budget * 1e6) // 65536], 4, "object_storage"), 1)
        for budget in budgets
    }
    for name, blocks in {
        "what is read first": first_reads,
        "what is read last": first_reads[::-1].copy(),
    }.items()
)

# %% [markdown]
# With little to spend, it is better to leave out what is read *first*: that is the kernel again, cheap to fetch when it is wanted. So a good prediction says three things of a block: **how likely** it is read, **when**, and **what a miss of it
# would cost**. The predictor of this toolkit learns all of it from recordings.
#
# ## Exercise 1: your own machine
#
# Another seed, another machine and medium. **Find a first set within the budget with which the stall is below what is asked for.** Kinds of files alone are not enough: look at what was missed, and what was in vain. Then hand in `my_picker.first_set`.

# %%
SEED = 1  # with another one it is another machine, and other five blocks in exercise 2
yours = exercises.exercise(SEED)
print(f"{yours.boot.vm} on {yours.medium}: at most {yours.budget_mb} MB, stall below {yours.stall_below_s} s")
my_picker = vr.FirstSetPicker(
    yours.boot, yours.last_boot, yours.medium, budget_mb=yours.budget_mb, head_start_s=yours.head_start_s
)
my_picker

# %%
# BEGIN SOLUTION first_set = ...
for kind in ("configuration", "file system's own", "libraries"):
    my_picker.add("kind of file", kind)
for folder in ("/usr/lib/systemd", "/usr/bin", "/usr/sbin", "/bin", "/sbin", "/var/log/journal"):
    if folder in my_picker.contents.names("folder"):
        my_picker.add("folder", folder)
my_picker.restore()
first_set = my_picker.first_set
# END SOLUTION
exercises.check_first_set(first_set, seed=SEED)

# %% [markdown]
# ## Exercise 2: five blocks
#
# A MADE-UP boot, so small that every order can be tried. It reads five blocks, at the times below, in seconds from the launch, if nothing keeps it waiting. The backup copy is read by one slow reader, such as a tape: **every way to another place, the first one too, costs it 2 seconds**;
# a neighbour (11 behind 10) costs nothing more when it is staged right behind. The launch comes 2 seconds after staging has begun.
#
# **In which order do you stage them, so that the boot waits least?** `exercises.stall_of(order, SEED)` tries an order.

# %%
exercises.five_blocks(SEED)

# %%
# BEGIN SOLUTION order = ...
import itertools

orders = itertools.permutations(exercises.five_blocks(SEED)["block"].to_list())
order = list(min(orders, key=lambda each: exercises.stall_of(each, SEED)))
# END SOLUTION
exercises.check_order(order, seed=SEED)

# %% [markdown]
# **What is real and what is not.** Real: the machines, what their disks held, and every request of the boots. Simulated: the media agent, the backup copy's medium, the network; their numbers are in `vmrestorekit.restore.hardware`. The
# machines are mounted live here, so that no relocation is in the way. The five blocks of the second exercise are made up, and so is their reader.
