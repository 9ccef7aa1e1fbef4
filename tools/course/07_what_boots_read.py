# %% [markdown]
# # 07 · What boots read
#
# *Run the cells one by one with <kbd>Shift</kbd>+<kbd>Enter</kbd>; widgets appear only then.*
#
# *Pre-staging* means to fetch blocks of a backup copy before the machine that is being restored asks for them. It is a bet on what the machine will read. A colleague says: *“Every server is different. Nobody can know what one wants that has never been restored before.”*
#
# **How much of its disk does a booting machine read, how much of that is the same at every boot, and how much is the same on other machines?**
#
# Nothing in this notebook is simulated, and nothing is predicted. All of it is counted from recordings of real virtual machines: each request that reached their disks,
# and before each boot a list of what each 4 KiB block of the disks held (a hash, and the path of the file it belongs to).

# %%
import polars as pl
from checks import recorded_traces

import vmrestorekit as vr
from vmrestorekit.show.corpus_charts import (
    after_changes_dots,
    bytes_read_so_far,
    machines_by_release,
    overlap_matrix,
    reading_curves,
    repeatability_dots,
    working_set_bars,
)
from vmrestorekit.show.first_set.first_touch_map import first_touch_map, touches_by_kind
from vmrestorekit.show.guessing.guess_form import GuessForm
from vmrestorekit.traces.in_common import WAYS, after_changes, overlaps, repeatability
from vmrestorekit.traces.working_set import working_sets

_ = pl.Config.set_tbl_rows(30), pl.Config.set_fmt_str_lengths(60), pl.Config.set_tbl_width_chars(140)

# %% [markdown]
# ## What there is
#
# The *catalogue* has one row for each recording; no recording has to be opened for it. Which machines are there, and what came before their boots? (*follows*: the
# building of the image, a clean shutdown, a crash, or a change of what is installed; *repeats*: recordings that started a boot again from the same state of the disks)

# %%
# NBVAL_CHECK_OUTPUT
corpus = vr.load_corpus()
catalog = corpus.catalog()
catalog.group_by("release", "vm", pl.col("roles").list.join(", ")).agg(
    recordings=pl.len(),
    repeats=(pl.col("repeats") != "").sum(),
    follows=pl.col("follows").unique().sort().str.join(", "),
).sort("release", "vm")

# %% [markdown]
# `corpus.scan()` asks about the requests of all recordings at once (a *lazy* query of polars: nothing is read from the files before `collect()`, and then only the columns that it needs). How large are the requests, and how many
# are reads? Copy this cell and ask something else.

# %%
# NBVAL_CHECK_OUTPUT
(
    corpus.scan()
    .join(catalog.lazy().select("vm", "boot", "release"), on=["vm", "boot"])
    .group_by("release", pl.col("op").cast(pl.String))
    .agg(
        requests=pl.len(),
        mb=(pl.col("length").sum() / 1e6).round(),
        median_kib=pl.col("length").median() / 1024,
    )
    .sort("release", "op")
    .collect()
)


# %% [markdown]
# ## Your guess
#
# When is a block of one machine “the same” as a block of another? There are three ways to say it: it lies at the same *address* of the disk; it has the same *content*; or it is at
# the same place of a file of the same *path*.
#
# A few words of the answers: the *initial RAM disk* is a file with what the kernel needs before it can read the disk itself; the *median* machine has as many machines below it as above.

# %%
SHARES = ["under 5 %", "5 to 10 %", "10 to 25 %", "over 25 %"]
ways = {"address": "address on the disk", "content": "content", "path": "file path"}
least = list(ways.values())
kinds = ["kernel, initial RAM disk", "libraries", "programs and their files", "data and logs"]
guesses = GuessForm(
    share=("How much of all that a disk stores does a machine read until it has booted (median)?", SHARES),
    within=(
        "In which of these ways do the boots of two machines of one release have least in common?",
        least,
    ),
    across=(
        "In which of these ways do the boots of machines of different releases have least in common?",
        least,
    ),
    most=("Which of these does a web server's boot read most of?", kinds),
)
guesses

# %% [markdown]
# ## How much?
#
# Blue: what each machine read until its boot was done, 4 KiB blocks with contents, each counted once. Orange: what it read for the first time while a client used its service: for
# a minute, or, of most machines, for some seconds only. Right: the same, of all that its disks store.

# %%
sets = working_sets(corpus)
working_set_bars(sets, corpus)

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
order = machines_by_release(corpus)
sets.join(order, on="vm").group_by("release").agg(
    machines=pl.len(),
    least_mb=pl.col("distinct_mb").min(),
    median_mb=pl.col("distinct_mb").median().round(1),
    most_mb=pl.col("distinct_mb").max(),
    median_share=pl.col("share").median().round(1),
).sort("release")

# %% [markdown]
# This is why an instant restore is worth the trouble: the machine serves its users when a small part of the disk has come, *if it is the right part*.
#
# ## Can one know it from other machines?
#
# Each row is a machine; the darker a cell, the more of what its boot reads the machine above reads, too. There is one picture for each way to say “the same”.
# On the diagonal: the machine's own boot before. Where do you see squares, and in which of the three do they fade? Hover over a cell for its figures.

# %%
pairs = overlaps(corpus)
overlap_matrix(pairs, corpus)

# %% [markdown]
# By path once more, large enough for the numbers. Read a row to see from which others this machine could learn. In the table below it, a *golden image* is a machine that was
# installed with care and then copied; all that descend from one image are one *lineage*.

# %%
overlap_matrix(pairs, corpus, ["path"])

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
release = dict(order.select("vm", "release").iter_rows())
lineage = dict(order.select("vm", "lineage").iter_rows())
other = pl.col("other").str.split(" ").list.first()
compared = pairs.with_columns(
    compared_with=pl.when(pl.col("vm") == other)
    .then(pl.lit("1  own boot before"))
    .when(pl.col("vm").replace(lineage) == other.replace(lineage))
    .then(pl.lit("2  same golden image"))
    .when(pl.col("vm").replace(release) == other.replace(release))
    .then(pl.lit("3  same release"))
    .otherwise(pl.lit("4  other release"))
)
medians = compared.group_by("compared_with").agg(pl.len().alias("pairs"), pl.col(WAYS).median().round(1))
medians.sort("compared_with")

# %% [markdown]
# Do machines of one golden image really share less content than others of their release? Not by nature: in two thirds of these pairs one of the two had all its packages upgraded (names that
# end in *-a*), and the other had not. The remaining pairs share about nine tenths.
#
# An address in common is the weakest of the three: it says that both read the same place of their disks, not that the same thing lies there. (See *Try it yourself*, 2.)
#
# ## When does a boot read what?
#
# Each dot is something read for the first time: its time from left to right, its place on the disk upwards; the lanes below say what the colours mean
# (*file system's own*: its tables of names and places). Where is the boot loader, and when does the kernel
# take over? What reads in order, what jumps about?

# %%
example = corpus["bookworm-web"].boots[-1]
first_touch_map(example)

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
done = example.metadata.marks["boot_done_ns"] / 1e9
touches = touches_by_kind(example).filter(pl.col("second") <= done)
by_kind = touches.group_by("what").agg(
    mb=(pl.len() * 4096 / 1e6).round(1),
    first_s=pl.col("second").min().round(1),
    files=pl.col("path").n_unique(),
)
by_kind.sort("mb", "what", descending=[True, False])

# %% [markdown]
# ## How does the reading go on?
#
# Steep: the disk is the bottleneck; flat: the processor is (these were emulated, so the flat parts are longer than on your hardware). A restore that reads as slowly as a tape stretches the
# steep parts, not the flat ones.

# %%
reading_curves(bytes_read_so_far(corpus), corpus)

# %% [markdown]
# ## Is it the same twice?
#
# Left: of the blocks that one of two boots read, how many both read. Right: whether they read them in the same order (1: just the same, 0: no relation). *Recorded twice*: from the very same state of the
# disks, so all that differs is chance. *After shutdowns*: two boots in a row.

# %%
again = repeatability(corpus, all_pairs=True)
repeatability_dots(again, corpus)

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
again.group_by("kind").agg(
    pairs=pl.len(),
    least_same_blocks=pl.col("same_blocks").min(),
    median_same_blocks=pl.col("same_blocks").median().round(1),
    median_rank_correlation=pl.col("rank_correlation").median().round(3),
).sort("kind")

# %% [markdown]
# ## And after a change?
#
# Clones of one golden image drift apart: all packages with security updates are upgraded, the kernel too (those whose names end in *-a*), or a configuration is edited, data and a few programs come (*-b*). Each point is a boot, compared with the one before of the same machine: after a clean shutdown, after a crash,
# after a change. Which of the three ways suffers most, and which one least?

# %%
changes = after_changes(corpus)
after_changes_dots(changes, corpus)

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
changes.group_by("follows").agg(pl.len().alias("boots"), pl.col(WAYS).median().round(1)).sort("follows")


# %% [markdown]
# ## The answers


# %% tags=["plumbing"]
def least_in_common(compared_with):
    of_group = medians.row(by_predicate=pl.col("compared_with") == compared_with, named=True)
    return ways[min(WAYS, key=of_group.get)]


median = sets["share"].median()
guesses.tell(
    share=SHARES[sum(median >= limit for limit in (5, 10, 25))],
    within=least_in_common("3  same release"),
    across=least_in_common("4  other release"),
    most=by_kind.filter(pl.col("what").is_in(kinds)).sort("mb", "what")["what"][-1],
)

# %%
print(f"The median machine reads {median:.0f} % of what it stores until it has booted.")
for found in medians.filter(compared_with="4  other release").select(WAYS).to_dicts():
    print(
        f"Of what it reads, a machine of another release reads {found['content']:.0f} % with the same content "
        f"and {found['path']:.0f} % at the same place of the same path (medians)."
    )

# %% [markdown]
# ## So can nobody know what a new machine reads?
#
# The colleague is half right. *Contents* are those of a release, and a release that one has not seen has hardly any in common with the others. But what is read has *names*, and they outlast the contents: each machine has a kernel,
# an initial RAM disk, a C library, systemd and its units. What is lost on the way to another release is, most of all, what carries a version in its name. That is why
# the predictors of this toolkit know blocks by content and by path, and why the learned one first asks which *files* are read: by their names, what kind they are, and what uses them.
#
# ## Try it yourself
#
# 1. **From whom should a machine learn?** For each machine, find the one of another lineage whose boot covers most of it by path. Is it one of the same role? (`pairs`, `lineage` and the catalogue's `roles`.)
# 2. **Same address, same thing?** Of the blocks that two machines read at the same address, how many have the same content, too? Try two of one release, then two of different ones. A start for a web server
#    is below.
# 3. **What is left for the service?** `service_blocks(boot)` of `vmrestorekit.traces.working_set` returns what was read first while a client used the service. What kinds of files are these, and are they large or small? Where it is empty,
#    take what `touches_by_kind` found after the boot was done.

# %%
# NBVAL_CHECK_OUTPUT
from vmrestorekit.traces.working_set import boot_blocks


def same_thing(one, another):
    here, there = (boot_blocks(corpus[vm].boots[-1]) for vm in (one, another))
    same = here.join(there, on=["disk", "block"])
    both = same.filter(pl.col("content") == pl.col("content_right"))
    return {
        "machine": one,
        "another": another,
        "same address (MB)": round(same.height * 4096 / 1e6),
        "and same content (MB)": round(both.height * 4096 / 1e6),
    }


pl.DataFrame([same_thing("bookworm-web", vm) for vm in ("bookworm-db", "trixie-web")])

# %% [markdown]
# ## Exercise: large, and in a row?
#
# A medium with a long way to its first byte (tape, object storage) likes large requests, each of which goes on where the one before ended. How is it with the boot of
# your seed's machine? `requests` has a row for each request that reached its disks, in the order of their issue; `boot_done_ns` is when the boot was done. Take the
# reads (`op == "read"`) that were issued until then.
#
# 1. **How many MB (of 10⁶ bytes) do they ask for in all?**
# 2. **Which share of them, in percent, is sequential:** begins where the read before it ended, on the same disk? (`shift` brings up the row before; the first read is not sequential.)

# %%
SEED = 1  # with another one it is another machine
requests, boot_done_ns = recorded_traces.requests(SEED)
requests.head(3)

# %%
# BEGIN SOLUTION megabytes, sequential_percent = ..., ...
reads = requests.filter(pl.col("op") == "read", pl.col("issued_ns") <= boot_done_ns)
ended = (pl.col("offset") + pl.col("length")).shift()
goes_on = (pl.col("offset") == ended) & (pl.col("disk") == pl.col("disk").shift())
megabytes = reads["length"].sum() / 1e6
sequential_percent = 100 * reads.select(goes_on.fill_null(False).mean()).item()
# END SOLUTION
recorded_traces.check_reads(megabytes, sequential_percent, seed=SEED)

# %% [markdown]
# **What is real and what is not.** Real: the machines, their requests, their order, what the disks held. Recorded on an emulated processor, on a host that did other things, too: compare *which* blocks are read and in which *order*, not seconds.
# What the guest kept in its own memory it did not read again, so nothing here says how often a block is *used*. How the machines were made and recorded, and what is biased about them, is in `data/traces/README.md`.
