# %% [markdown]
# # 08 · Train a predictor
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

import ipywidgets as widgets
import polars as pl
from checks import train

import vmrestorekit as vr
from vmrestorekit.predict.baselines import UnionReplay
from vmrestorekit.predict.explain import explain_block
from vmrestorekit.show.prediction_data import Needs, Prediction
from vmrestorekit.show.predictor_explorer import PredictorExplorer

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
# *Recall* is the share of the blocks a boot reads that are among those predicted. Of what is predicted, no
# more may be staged than 1.25 times what the boot really reads.


# %%
def question(text, answers):
    title = widgets.HTML(f"<b>{text}</b>")
    choice = widgets.RadioButtons(options=answers, index=None, layout={"width": "max-content"})
    return widgets.VBox([title, choice])


same = question(
    "1 · Which list has the best recall on a Python server with Debian 12, the release of one of the two?",
    list(lists),
)
other = question("2 · And on the cache server with Debian 13, the release of neither?", list(lists))
worst = question("3 · Which list is worst on the cache server?", list(lists))
better = question(
    "4 · The learned predictor below has the same two machines. On the cache server it finds …",
    ["less than the best list", "about as much", "half as much again", "twice as much, or more"],
)
widgets.VBox([same, other, worst, better])

# %% [markdown]
# ## Train the fourth
#
# The **learned** predictor does not choose one way. It looks at all of them, and at more: what a file is,
# which program loads it, which package it belongs to, what its neighbours do. *Decision trees* learn how
# far each of these can be trusted. To learn that, the predictor asks about each of the two machines with
# what the *other* one read: no machine is its own witness.
#
# Here it draws fewer examples and grows fewer trees than usual, so that you need not wait long.

# %%
learned = vr.LearnedPredictor(max_examples=20_000, max_iter=40).fit(learned_from)
predictors = {"learned": learned, **lists}

# %% [markdown]
# ## The lists, compared
#
# A media agent stages whole blocks of its read cache, 64 KiB each: here a block counts as found if it is
# staged and the boot reads anything of it.


# %%
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
# hardly any content is the same: programs were compiled anew. Names last longer. And an address says
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
# 2. With a budget of some 20 MB, which predictor stalls least, and which one has the best recall? (A list
#    stages what was read first; the learned predictor takes what is most probable.)
# 3. Click an **M** on the map (or focus the map and use the arrow keys): what file is it? Press **Why?**
# 4. The tables at the end: which files are missed, which wasted? What do the other machines say of them?

# %%
boot = boots["other release"]
explorer = PredictorExplorer(predictors, boot, "object_storage")
explorer

# %% [markdown]
# ## Your guesses


# %%
def verdict(asked, right):
    guess = asked.children[1].value
    return "no guess" if guess is None else "right" if guess == right else f"no: {right}"


ranked = {kind: found.sort(kind)["list"].to_list() for kind in asked}
print("1 ·", verdict(same, ranked["same release"][-1]))
print("2 ·", verdict(other, ranked["other release"][-1]))
print("3 ·", verdict(worst, ranked["other release"][0]))
by_learning, by_list = recall(learned, boot), found["other release"].max()
limits = [(1.9, 3), (1.25, 2), (0.9, 1)]
level = next((level for limit, level in limits if by_learning >= limit * by_list), 0)
print("4 ·", verdict(better, better.children[1].options[level]))
print(f"The learned predictor finds {100 * by_learning:.0f} %, the best list {100 * by_list:.0f} %.")

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
# The profile of a machine may be one that the media agent knows by name (O3): then it needs the model, on
# another computer, later. Many tools save models in a way that runs code when it is loaded (Python's
# *pickle*): who opens a foreign file then does whatever its author wanted. Here a model is nothing but
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
# **1. Whom to learn from?** You may learn from one boot of one machine, by path. `recall_from` tells how
# well that goes; think first, then try. A machine of the same release, or of the same role?

# %%
train.recall_from("bookworm-web", "trixie-cache")  # from the first, of the second

# %%
# BEGIN SOLUTION teacher = ...
job = train.task(SEED)
teacher = max(job.candidates, key=lambda name: train.recall_from(name, job.target))
# END SOLUTION
train.check_teacher(teacher, SEED)

# %% [markdown]
# **2. How much is enough?** Find the budget with the slider (predictor *learned*), or in `explorer.curves`,
# which is what the charts show.

# %%
# BEGIN SOLUTION budget_mb = ...
wanted = train.task(SEED).recall
enough = explorer.curves.filter(pl.col("predictor") == "learned", pl.col("recall") >= wanted)
budget_mb = enough["budget_mb"].min()
# END SOLUTION
train.check_budget(budget_mb, SEED, explorer)

# %% [markdown]
# **3. For nothing.** At the budget of your task (`explorer.step = …`, predictor *learned*): of which file
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
# ## So what carries over?
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
