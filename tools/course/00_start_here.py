# %% [markdown]
# # 00 · Start here
#
# A virtual machine is lost: its disk broke, or somebody encrypted it for ransom. There is a **backup copy**, made last night, on storage that is large, cheap and slow. Copying it back
# takes hours. Its users want it now.
#
# This course shows a way out that sounds like a trick: **boot the machine at once, from the backup copy, and move its disk while it runs.** It is called *instant restore*. A patent
# describes it (US 9,417,968); marks such as O7 are the numbers of its steps, as this course counts them.
#
# You know what a virtual machine is, and a little Python. Of backups you need to know nothing. Each notebook explains its words; all of them stand in the [glossary](glossary.md) (`docs/glossary.md` in the repository).
#
# **Can a machine run from a disk that is not there yet?**
#
# *Run the cells one by one with <kbd>Shift</kbd>+<kbd>Enter</kbd>; widgets appear only then, and stop when the notebook's kernel stops. Results are folded up (•••) until their cell is run. Begin here.*

# %%
from checks import environment

import vmrestorekit as vr
from vmrestorekit.show.guessing.guess_form import GuessForm

environment.check_environment()

# %% [markdown]
# Where there is a ✗ it says what to do. Nothing in this course needs a network.
#
# ## A guess first
#
# Each notebook asks before it shows. If you have guessed, you notice more. Nobody keeps score.

# %%
guesses = GuessForm(
    share=(
        "A web server's disk stores 372 MiB. How many per cent of that does it read until it has booted?",
        range(101),
        "%",
    ),
    order=(
        "What has to come first, so that the machine can run soon?",
        ["the disk from its beginning", "the largest files", "what the machine reads first"],
    ),
)
guesses

# %% [markdown]
# ## The system in seven scenes
#
# Go through the scenes with **Next** or with the slider (arrow keys work, too). Left is the *host*, where the machine runs; right is where the backup lies. The dots are blocks, pieces of the disk of
# 64 KiB. The numbers come from a simulated restore of a real web server: its boot was recorded, request by request. (The bar of the write cache shows how much it holds of the most that it ever holds.)

# %% tags=["plumbing"]
from vmrestorekit.plan import LaunchRule
from vmrestorekit.show.newcomer_picture import NewcomerPicture

machine = vr.load_corpus()["bookworm-web"]
boot, boot_before = machine.boots[-1], machine.boots[-2]
plan = vr.make_plan(
    vr.LastBootReplay().fit(boot_before),
    boot,
    launch=LaunchRule("head_start", head_start_ns=4_000_000_000),
)
restore = vr.simulate(boot, plan, "object_storage")
NewcomerPicture(restore)

# %% [markdown]
# Seven words that come again and again:
#
# | word | means |
# |---|---|
# | **backup copy** | everything that was on the machine's disk, as of last night; never changed by a restore |
# | **media agent** | the program that looks after the backup copy, and serves blocks of it |
# | **read cache** | what the media agent has fetched so far, on something fast; of limited size |
# | **pre-staging** | fetching into the read cache *before* anybody asks |
# | **first set** | the blocks that are pre-staged for the boot: a prediction |
# | **write cache** | where the machine's writes wait until its disk has moved |
# | **destination** | the new disk, on fast storage: *relocation* is copying everything there |
#
# And the answers to the guesses, from the recording:

# %%
from vmrestorekit.traces.working_set import boot_blocks

read = boot_blocks(boot).height
stored = sum(int((manifest.blocks["content"] != 0).sum()) for manifest in boot.manifests)
guesses.tell(share=round(100 * read / stored), order="what the machine reads first")

# %% [markdown]
# That is 68 MiB, in pieces of 4 KiB. (In blocks of 64 KiB, which a restore fetches whole, it is 80 MiB.) So most of the disk can wait. The art is to know which part cannot.
#
# ## How exercises work
#
# An exercise begins with a **seed**. With another seed you get another machine or other numbers: your neighbour can help you, but not copy your result. Put your answer in place of the dots, and
# run the cell: it says whether it is right, and gives a hint if not. You can try as often as you like.
#
# A first one. Each machine was booted several times for the recordings. **How many boots of yours were recorded?** (`corpus[your_machine].boots` is a tuple of them.)

# %%
SEED = 1
corpus = vr.load_corpus()
your_machine = environment.machine(SEED)
your_machine

# %%
# BEGIN SOLUTION boots = ...
boots = len(corpus[your_machine].boots)
# END SOLUTION
environment.check_boots(boots, seed=SEED)

# %% [markdown]
# ## The course
#
# Go through it in this order; each stands by itself, too. 00 to 06 are the restore, 07 to 09 the prediction, 10 is for asking your own questions. The minutes are for the first time.

# %%
environment.course()

# %% [markdown]
# ## Keys that help
#
# | key | does |
# |---|---|
# | <kbd>Shift</kbd>+<kbd>Enter</kbd> | run this cell and go on |
# | <kbd>Esc</kbd>, then <kbd>↑</kbd> <kbd>↓</kbd> | go from cell to cell; <kbd>Enter</kbd> goes into one |
# | <kbd>Tab</kbd>, <kbd>Shift</kbd>+<kbd>Tab</kbd> | in a widget: to the next control, and back |
# | <kbd>Space</kbd> or <kbd>Enter</kbd> | press a button |
# | <kbd>←</kbd> <kbd>→</kbd>, <kbd>Home</kbd>, <kbd>End</kbd> | move a slider, or through a map of blocks |
# | <kbd>Ctrl</kbd>+<kbd>B</kbd> | hide the list of files, and have more room |
# | *Run* → *Restart Kernel and Run All Cells* | begin afresh, if something is confused |
#
# **What is real and what is not.** Real: the machines, all that they read while they booted, and what their disks held. Simulated: everything that takes time after a read has left the machine (storage, network, the
# media agent). Each notebook ends with such a paragraph.
