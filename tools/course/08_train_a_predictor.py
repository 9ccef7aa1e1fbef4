# %% [markdown]
# # 08 · Train a predictor
#
# *Run the cells one by one with <kbd>Shift</kbd>+<kbd>Enter</kbd>; widgets appear only then.*
#
# An instant restore boots a machine straight from its backup copy, which lies somewhere slow. The *media
# agent*, the server that reads the copy, can fetch blocks before the machine asks for them and hold them in
# its *read cache*: this is called *pre-staging* (operation O5 of the patent). Which blocks? That has to be
# predicted (O4), and what is predicted is called the *first set*.
#
# The machine below is a cache server with Debian 13. Suppose that nobody ever recorded a boot of it, or
# of any machine with Debian 13. All you have is two recorded boots each of **two other machines**: a web server with
# Debian 12 and a name server with Debian 11.
#
# **What do the boots of two machines tell about a third one that was never seen?**

# %%
import tempfile
from pathlib import Path

import polars as pl
from checks import train

import vmrestorekit as vr
from vmrestorekit.predict.baselines import UnionReplay
from vmrestorekit.predict.explain import explain_block
from vmrestorekit.show.guessing.guess_form import GuessForm
from vmrestorekit.show.prediction.data import Needs, Prediction

_ = pl.Config.set_fmt_str_lengths(60), pl.Config.set_tbl_width_chars(120)

# %%
# NBVAL_CHECK_OUTPUT
corpus = vr.load_corpus()
learned_from = [boot for vm in ("bookworm-web", "bullseye-dns") for boot in corpus[vm].boots[:2]]
asked = {"same release": "bookworm-python", "other release": "trixie-cache"}
names = [*(boot.vm for boot in learned_from), *asked.values()]
machines = corpus.catalog().filter(pl.col("vm").is_in(names), pl.col("boot") == "boot-2")
machines.select(
    "vm", "release", pl.col("roles").list.join(", "), read_mb=(pl.col("read_bytes") / 1e6).round(1)
).sort("vm")

# %% [markdown]
# ## Three simple predictors
#
# Each keeps a list of everything that the two machines read, in that order, and expects it again. They
# differ in what makes a block “the same” on another disk:
#
# - **by address**: it lies at the same place of the disk;
# - **by content**: it holds the same 4 KiB, wherever they lie;
# - **by path**: it is the same part of a file of the same path (version numbers in the path do not count).

# %%
lists = {f"by {way}": UnionReplay(by=way).fit(learned_from) for way in ("address", "content", "path")}

# %% [markdown]
# ## Your guess
#
# Of the blocks that a boot reads, *recall* is the share that was staged. No more may be staged than 1.25
# times what the boot really reads.

# %%
ways = list(lists)
levels = ["less than the best list", "about as much", "half as much again", "twice as much, or more"]
guesses = GuessForm(
    same=("Which list has the best recall on a Python server with Debian 12 (one of the two has it)?", ways),
    other=("Which list has the best recall on the cache server with Debian 13 (neither has it)?", ways),
    worst=("Which list has the worst recall on the cache server?", ways),
    better=(
        "A fourth predictor, which learns, has the same two machines. What does it find on the cache server?",
        levels,
    ),
)
guesses

# %% [markdown]
# ## Train the fourth predictor
#
# The **learned** predictor does not choose one way. It looks at all of them, and at more: what a file is,
# which program loads it, which package it belongs to, what its neighbours do. *Decision trees* learn how
# far each of these can be trusted. To learn that, the predictor asks about each of the two machines with
# what the *other* one read: a machine that is asked about must not give its own answer.
#
# An *example* is a block of one of the machines, with the answer (read or not). Here the predictor takes
# fewer examples and fewer trees than usual, so that training takes seconds.

# %%
learned = vr.LearnedPredictor(max_examples=20_000, max_iter=40).fit(learned_from)
predictors = {"learned": learned, **lists}

# %% [markdown]
# ## The lists, compared
#
# A media agent stages whole blocks of its read cache, 64 KiB each: here a block counts as found if it is
# staged and the boot reads anything of it.


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def recall(predictor, boot):
    needs = Needs.of(boot)
    return Prediction.of("", predictor, needs).recall(needs.usual)  # the usual budget: 1.25 times the need


boots = {kind: corpus[vm].boot("boot-2") for kind, vm in asked.items()}
found = pl.DataFrame(
    {"list": list(lists)}
    | {kind: [round(recall(each, boot), 2) for each in lists.values()] for kind, boot in boots.items()}
)
boots["same release"].drop_manifests()  # what a disk held takes much memory
found

# %% [markdown]
# Within a release machines have the very same files, so content and path tell much. In another release
# hardly any content is the same: programs were compiled anew. Names stay. And an address says
# something only where disks were filled in the same way; this cache server even has another file system
# (XFS).
#
# ## What a budget buys
#
# Now the cache server, and all four. The **budget** is what may be staged. Move it; watch
#
# - **recall**: of the blocks that the boot reads, the share that is staged;
# - **precision**: of the blocks that are staged, the share that is read;
# - **waste**: what is staged and never read;
# - **stall**: how much longer the boot takes than on a local disk. Each budget is simulated in the
#   background as a live mount from object storage: watch the bar *Restores*.
#
# The *oracle* has seen the boot itself: nobody can do better. *No prediction* fetches each block when it is
# asked for.
#
# 1. Choose each predictor in turn. Which of them cannot use a larger budget, and why?
# 2. With a budget of about 20 MB, which predictor stalls least, and which one has the best recall? (A list
#    stages what was read first; the learned predictor takes what is most probable.)
# 3. Click an **M** (missed) on the map (or focus the map and use the arrow keys): what file is it? Press **Why?**
# 4. Look at the tables at the end. Which files are missed, which are wasted? What do the other machines say
#    of them?

# %%
boot = boots["other release"]
explorer = vr.PredictorExplorer(predictors, boot, "object_storage")
explorer

# %% [markdown]
# ## Your guesses

# %%
ranked = {kind: found.sort(kind)["list"].to_list() for kind in asked}
by_learning, by_list = recall(learned, boot), found["other release"].max()
limits = [(1.9, 3), (1.25, 2), (0.9, 1)]
level = next((level for limit, level in limits if by_learning >= limit * by_list), 0)
print(f"The learned predictor finds {100 * by_learning:.0f} %, the best list {100 * by_list:.0f} %.")
guesses.tell(
    same=ranked["same release"][-1],
    other=ranked["other release"][-1],
    worst=ranked["other release"][0],
    better=levels[level],
)

# %% [markdown]
# ## Why this block?
#
# The learned predictor can be asked. `/etc/ld.so.cache` tells programs where libraries lie. On each machine
# it has other content, at another address. Why is it expected all the same?


# %%
def first_block_of(path, manifest=boot.manifest):
    files = manifest.files.with_row_index("file").filter(path=path)
    mine = manifest.blocks.with_row_index("block").filter(pl.col("file") == files["file"][0], file_block=0)
    return mine["block"][0]


explain_block(learned, boot.manifest, first_block_of("/etc/ld.so.cache"))

# %% [markdown]
# And the program that makes this machine a cache server? The two others never had it.

# %%
explain_block(learned, boot.manifest, first_block_of("/usr/bin/memcached"))

# %% [markdown]
# This is what cannot be learned from strangers: what makes a machine different from all others. It is why a
# system should also learn from the machine's *own* boots, as soon as there is one.
#
# ## Keep what was learned
#
# The media agent needs the model later, on another computer. Many tools save models in a way that runs code when it is loaded (Python's
# *pickle*): whoever opens somebody else's file then runs whatever its author wanted. Here a model is nothing but
# arrays of numbers and a text about them. Loading it executes nothing, and what it says is checked.

# %%
# NBVAL_CHECK_OUTPUT
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "two_machines.npz")
    vr.save_model(learned, path, trained_on=learned_from)
    again = vr.load_model(path)
print("the same answers:", again.score_blocks(boot.manifest).equals(learned.score_blocks(boot.manifest)))

# %% [markdown]
# ## Try it yourself
#
# Choose a seed of your own: your neighbour's numbers are then others.

# %%
SEED = 1
train.task(SEED)

# %% [markdown]
# **1. Whom to learn from?** You may learn from one boot of one of the machines named above, by path. Which
# one tells most? Think first: a machine of the same release, or of the same role? Then try: `recall_from`
# gives the recall. `teacher` is the name of the machine.

# %%
train.recall_from("bookworm-web", "trixie-cache")  # from the first, of the second

# %%
# BEGIN SOLUTION teacher = ...
job = train.task(SEED)
teacher = max(job.candidates, key=lambda name: train.recall_from(name, job.target))
# END SOLUTION
train.check_teacher(teacher, SEED)

# %% [markdown]
# **2. How much is enough?** Which budget, in MB, does task 2 need? Find it with the slider (predictor
# *learned*), or in the table `explorer.curves`, which is what the charts show.

# %%
# BEGIN SOLUTION budget_mb = ...
wanted = train.task(SEED).recall
enough = explorer.curves.filter(pl.col("predictor") == "learned", pl.col("recall") >= wanted)
budget_mb = enough["budget_mb"].min()
# END SOLUTION
train.check_budget(budget_mb, SEED, explorer)

# %% [markdown]
# **3. What is staged for nothing?** At the budget of your task (`explorer.step = …`, predictor *learned*): of which file
# is most staged in vain? And why: is it `"read elsewhere"` (other machines have it and read it), `"read
# nowhere"` (they have it and never read it) or `"never met"` (they do not have it)?

# %%
# BEGIN SOLUTION wasted_file, reason = ..., ...
wasted = explorer.files_at("learned", train.task(SEED).step)
wasted = wasted.filter(pl.col("path").is_not_null(), pl.col("why") != "").sort("wasted_kib")
wasted_file, reason = wasted["path"][-1], train.REASONS[wasted["why"][-1]]
# END SOLUTION
train.check_waste(wasted_file, reason, SEED, explorer)

# %% [markdown]
# ## So what carries over to another machine?
#
# *Contents* are those of a release. *Addresses* are those of a disk that was filled in the same way.
# *Names* outlast both, and better than names is to know **which of them to trust when**: that is what was
# learned here, from two machines. With all recorded machines it takes a minute or two and finds more:
# `vmrestorekit train` on the command line.
#
# **What is real and what is not.** Real: the machines, what their disks held, and what their boots read.
# The predictors saw the disks of the machine that was asked about, as a backup system does, and never its
# reads; only the oracle did. Simulated: how long the boot is held up; the rules are in `docs/clockwork.md`,
# the numbers of the devices in `vmrestorekit.restore.hardware`. The boots were recorded on an emulated
# processor, so that pauses between reads are longer than on your hardware, and stalls shorter. Two machines
# and one target are an example, no proof: `vmrestorekit evaluate` asks about all of them.
