# %% [markdown]
# # 09 · Evaluate predictors honestly
#
# *Run the cells one by one with <kbd>Shift</kbd>+<kbd>Enter</kbd>; widgets appear only then.*
#
# A colleague has written a predictor: a program that says which blocks of a backup copy a machine will ask
# for first (O4). The report says:
#
# > *Tested on ten virtual machines. It finds **99 %** of what they read. Ready for customers.*
#
# Every number in the report was computed correctly. And at the first customer it finds a third.
#
# **What went wrong in this evaluation, and how can one notice it before the customer does?**
#
# The usual reason is a **leak**: something about the answer was known before the question was asked. In
# this notebook you break an evaluation yourself, in five ways, and see what each does to the score.

# %%
import dataclasses

import altair as alt
import ipywidgets as widgets
import numpy as np
import polars as pl
from checks import evaluate as check

import vmrestorekit as vr
from vmrestorekit.plan import LaunchRule
from vmrestorekit.predict.by_name import make_predictor
from vmrestorekit.predict.evaluation import paired_differences, recall_by_budget
from vmrestorekit.predict.evaluation_loop import hardware_at
from vmrestorekit.predict.metrics import ceiling_scores, fetched_scores, needed_blocks
from vmrestorekit.predict.splits import split_folds
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.export import Export
from vmrestorekit.show.guessing.guess_form import GuessForm
from vmrestorekit.show.live_chart import LiveChart
from vmrestorekit.show.renderer import enable
from vmrestorekit.show.theme import STYLE, styled
from vmrestorekit.traces.working_set import boot_blocks

enable()  # charts that draw without a network
warmup()  # compile the engine now, so that nobody waits for it later

# %% [markdown]
# ## What is tested
#
# Ten recorded machines; of each the boot after its first shutdown, `boot-2`. A machine's **lineage** is the
# disk image that it descends from. Often an administrator installs one machine with care, the **golden
# image**, and copies it: the copies are **clones**, and share its lineage.

# %%
# NBVAL_CHECK_OUTPUT
corpus = vr.load_corpus()
_ = pl.Config.set_tbl_rows(30), pl.Config.set_fmt_str_lengths(60)
names = [
    *("bookworm-db", "bookworm-desktop", "bookworm-python", "bookworm-python-a", "bookworm-web"),
    *("bullseye-dns", "bullseye-web", "bullseye-web-a", "trixie-db", "trixie-web"),
]
boots = {name: corpus[name].boot("boot-2") for name in names}
pl.DataFrame(
    {
        "machine": names,
        "lineage": [corpus[name].lineage for name in names],
        "release": [corpus[name].release for name in names],
        "recorded twice": [bool(corpus[name].repeats) for name in names],
    }
)

# %% [markdown]
# ## How a prediction is scored
#
# The **predictor** here is a simple one: it lists what other machines read, by path and place in the file,
# earliest first. It learns at once, and a leak does the same to it as to any other.
#
# The **score** is the *recall at 1.25×*. If the boot really reads 1,000 blocks, the predictor may name
# 1,250; of the 1,000, how many are among them? Blocks that are all zeros do not count: a backup copy does
# not store them.


# %%
def recall(training, tested, predictor="first_access_by_path"):
    learned = make_predictor(predictor).fit(training)
    return recall_by_budget(learned, tested, [1.25])["recall"][0]


# %% [markdown]
# ## Your guess
#
# In the colleague's evaluation, boots of all machines were shuffled, and every tested boot had a relative
# in training: a clone, a second recording of the same boot, or even the boot itself. The mean recall was
# 99 %.

# %%
guesses = GuessForm(
    left=("How many percent are left when no relative of the tested machine is in training?", range(101)),
    loses=("Which machine's score falls most?", ["bullseye-web", "bookworm-db", "bookworm-desktop"]),
)
guesses

# %% [markdown]
# ## Leaks 1 and 2: relatives in training
#
# For each machine the predictor learns four times. From **strangers**: machines of other lineages. Then one
# leak is added:
#
# - a **clone** or the golden image: another machine by name, yet nearly the same disk;
# - a **repeat**: the same boot, recorded a second time from the same state of the disk;
# - the tested boot **itself**. Nobody does this on purpose. It happens when a table is shuffled row by row.
#
# `split_folds` makes the honest groups. A *fold* is a lineage, whose machines are tested together, and all the
# others, from which the predictor may learn. Shown are the folds' names, and what is tested in each.

# %%
STEPS = ["strangers", "+ clone", "+ repeat", "+ itself"]


def only(name):  # the machine with this one boot, so that the notebook stays quick
    return dataclasses.replace(corpus[name], recordings=(boots[name],))


small = vr.Corpus({name: only(name) for name in names})
folds = {boot.vm: fold for fold in split_folds(small, "lineage") for boot in fold.test}
{fold.name: [boot.vm for boot in fold.test] for fold in folds.values()}


# %% tags=["plumbing"]
def training_sets(name):
    strangers = list(folds[name].train)
    clones = [boots[other] for other in names if other != name and folds[other].name == folds[name].name]
    repeats = [again for again in corpus[name].repeats if again.repeats == "boot-2"]
    leaks = [clones, repeats, [boots[name]]]
    return [strangers, *(strangers + leak if leak else None for leak in leaks)]


rows, others_rows, needed, own_past = [], [], {}, {}
for name in names:
    for step, training in zip(STEPS, training_sets(name), strict=True):
        if training:
            rows.append((name, step, recall(training, boots[name])))
    # for later: two more predictors, and what the machine's own boot before tells
    for predictor in ("mean_access_by_path", "first_access_by_content"):
        others_rows.append((name, predictor, recall(folds[name].train, boots[name], predictor)))
    own_past[name] = ceiling_scores(corpus[name].boot("boot-1"), boots[name])["recall"]
    needed[name] = boot_blocks(boots[name]).height
    boots[name].drop_manifests()  # the states of ten disks at once would take much memory
needed_blocks.cache_clear()
ladder = pl.DataFrame(rows, schema=["machine", "training", "recall"], orient="row")

# %% [markdown]
# ## Let leaks in, one by one
#
# Choose a machine, then move the slider with the arrow keys. The line below says what the predictor was
# told.

# %% tags=["plumbing"]
COLOURS = dict(zip(STEPS, ["#0072B2", "#E69F00", "#CC79A7", "#D55E00"], strict=True))
SHAPES = dict(zip(STEPS, ["circle", "diamond", "triangle-up", "cross"], strict=True))


def ladder_chart(table, height=380, chosen=None):
    shown = alt.Chart(table).encode(
        x=alt.X(
            "recall:Q", scale=alt.Scale(domain=[0.3, 1]), axis=alt.Axis(format="%", title="recall at 1.25×")
        ),
        y=alt.Y("machine:N", title=None, axis=alt.Axis(labelLimit=200)),
    )
    points = shown.mark_point(filled=True, size=110, opacity=1).encode(
        color=alt.Color(
            "training:N", scale=alt.Scale(domain=STEPS, range=list(COLOURS.values())), title="learned from"
        ),
        shape=alt.Shape(
            "training:N", scale=alt.Scale(domain=STEPS, range=list(SHAPES.values())), title="learned from"
        ),
        yOffset=alt.YOffset("training:N", scale=alt.Scale(domain=STEPS)),
        tooltip=["machine", "training", alt.Tooltip("recall", format=".1%")],
    )
    lines = shown.mark_rule(strokeWidth=2, color="#8C8C8C").encode(x="min(recall):Q", x2="max(recall):Q")
    title = "What each machine's score becomes as leaks are let in" if chosen is None else chosen
    return (lines + points).properties(width=620, height=height, title=title, description=title)


# %% tags=["plumbing"]
def told(step, name):
    say = {
        "strangers": f"the predictor knows {len(folds[name].train)} machines, none of this lineage",
        "+ clone": "a machine from the same golden image is in training",
        "+ repeat": "another recording of the very same boot is in training",
        "+ itself": "the tested boot itself is in training",
    }
    return say[step]


class Leaks(widgets.VBox):
    def __init__(self):
        self.machine = widgets.Dropdown(
            options=names, value="trixie-web", description="machine", tooltip="Which machine is tested"
        )
        self.step = widgets.IntSlider(
            max=3,
            description="leaks let in",
            tooltip="0: none; 3: the boot itself",
            style={"description_width": "initial"},
        )
        self.chart, self.status = LiveChart(height=150), widgets.HTML()
        for control in (self.machine, self.step):
            control.observe(lambda _: self.show(), "value")
        controls = widgets.HBox([self.machine, self.step], layout={"flex_flow": "row wrap"})
        save = Export("leaks", lambda: self.chart.chart, lambda: self.table)
        super().__init__([widgets.HTML(STYLE), controls, self.status, self.chart, save])
        self.show()

    def show(self):
        name, wanted = self.machine.value, STEPS[: self.step.value + 1]
        found = ladder.filter(pl.col("machine") == name)
        self.table = found.filter(pl.col("training").is_in(wanted))
        self.chart.draw(ladder_chart(self.table, 60, name))
        last = self.table.filter(pl.col("training") == wanted[-1])
        score = f"recall {last['recall'][0]:.0%}" if last.height else "this machine has none, nothing changes"
        self.status.value = styled(
            f'<p role="status" aria-live="polite"><b>{wanted[-1]}</b>: {told(wanted[-1], name)}; {score}.</p>'
        )


Leaks()

# %% [markdown]
# ## The reveal

# %%
ladder_chart(ladder)


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def in_percent(column):
    return (pl.col(column) * 100).round(0).cast(pl.Int64)


table = ladder.pivot(on="training", index="machine", values="recall").select("machine", *STEPS)
table.with_columns(in_percent(step) for step in STEPS)

# %%
# NBVAL_CHECK_OUTPUT
honest = {row["machine"]: row["strangers"] for row in table.iter_rows(named=True)}
leaking = table.with_columns(leak=pl.coalesce("+ repeat", "+ clone", "+ itself"))
falls = leaking.sort(pl.col("leak") - pl.col("strangers"), descending=True)["machine"][0]
leaky, clean = leaking["leak"].mean(), leaking["strangers"].mean()
print(f"mean with a relative in training: {leaky:.0%}; without: {clean:.0%}")
print(f"falls most: {falls}")

# %%
guesses.tell(left=round(100 * clean), loses=falls)

# %% [markdown]
# **Which machine gains most from a leak? The one of which least is known.** The web server on Debian 11 scores 99 % either way:
# others like it are in training. The desktop has no relatives here, and strangers tell a third of what it
# reads; told the answer, the same predictor looks perfect. So a leak does not lift all scores alike. It hides just
# those machines that should worry you.
#
# **The rule:** a lineage is *one* fold. How well a machine is predicted from its own past is another
# question, with another split, `later`: there earlier boots of the same machine may be learned from, later
# ones never.

# %% [markdown]
# ## Leak 3: ten machines, or two hundred thousand blocks?
#
# The colleague's report gave the score as 99.0 ± 0.1 %. Why so exact? They counted *blocks*: 200,000
# found-or-not, like 200,000 throws of a coin. But blocks of one machine are not independent. One kernel
# found is thousands of blocks found.
#
# The honest question is about the *next machine*. So draw machines again and again, with replacement, and
# see how much the mean varies: this is a **bootstrap** over machines. A *95 % interval* has 95 % of these
# means in it. Clones are no independent draws either; whole
# lineages are. All three lines below use the honest scores.


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def interval(values, seed=0):
    drawn = np.random.default_rng(seed).integers(0, len(values), (2000, len(values)))
    return np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])


score, blocks = np.array([honest[name] for name in names]), np.array([needed[name] for name in names])
lineages = [folds[name].name for name in names]
families = np.array([np.mean(score[[other == name for other in lineages]]) for name in sorted(set(lineages))])
pooled = (score * blocks).sum() / blocks.sum()
naive = 1.96 * np.sqrt(pooled * (1 - pooled) / blocks.sum())
intervals = pl.DataFrame(
    [
        ("blocks, as if independent", pooled, pooled - naive, pooled + naive),
        ("machines", score.mean(), *interval(score)),
        ("lineages", families.mean(), *interval(families)),
    ],
    schema=["mean over", "recall", "low", "high"],
    orient="row",
)
intervals.with_columns((pl.col("recall", "low", "high") * 100).round(1))

# %% tags=["plumbing"]
base = alt.Chart(intervals).encode(
    y=alt.Y("mean over:N", sort=None, title=None, axis=alt.Axis(labelLimit=220))
)
bars = base.mark_rule(strokeWidth=6, color="#56B4E9").encode(
    x=alt.X(
        "low:Q",
        scale=alt.Scale(domain=[0.5, 1]),
        axis=alt.Axis(format="%", title="recall at 1.25×, 95 % interval"),
    ),
    x2="high:Q",
)
(bars + base.mark_point(filled=True, size=90, color="#D55E00", opacity=1).encode(x="recall:Q")).properties(
    width=560, height=110, title="The same predictions, three claims of certainty"
)

# %% [markdown]
# The first line is not a finer measurement. It answers a question that nobody asked: *would the same ten
# machines, with other blocks, score the same?*
#
# Pooling also lets the large ones decide: a desktop that reads 29,000 blocks counts twice as much as a web
# server with 15,000.

# %% [markdown]
# ## Leak 4: the best of many
#
# Now nobody touches the training data. You try 300 variants, and report the best one. Here the variants
# know *nothing*: each is a gambler who throws dice for the order of a disk's folders, and stages what they
# hold until half as many blocks are staged as the boot reads.
#
# One of 300 gamblers looks clever on the machine that he was chosen on. Is he clever on the others?

# %% tags=["plumbing"]
places = pl.concat(
    boot_blocks(boot).drop_nulls("path").select("path", "file_block", vm=pl.lit(name)).unique()
    for name, boot in boots.items()
)
places = places.with_columns(folder=pl.col("path").str.split("/").list.head(4).list.join("/"))
places = places.group_by("folder", "path", "file_block").agg("vm").sort("folder", "path", "file_block")
is_read = places.select(pl.col("vm").list.contains(name).alias(name) for name in names).to_numpy()
folder = places["folder"].rank("dense").to_numpy().astype(int) - 1


# %% tags=["plumbing"]
def strangers_of(name):
    return [number for number, other in enumerate(names) if folds[other].name != folds[name].name]


folders = int(folder.max()) + 1
dice = np.random.default_rng(0).random((300, folders)).argsort(axis=1)
found = np.zeros((300, len(names)))  # a row a gambler, a column a machine: what share of its reads he staged
for column, name in enumerate(names):
    known = is_read[:, strangers_of(name)].any(axis=1)  # places that strangers read
    size = np.bincount(folder[known], minlength=folders)[dice]
    right = np.bincount(folder[known], is_read[known, column], folders)[dice]
    room = is_read[:, column].sum() / 2 - (size.cumsum(axis=1) - size)
    staged = np.clip(room / np.maximum(size, 1), 0, 1)  # of the last folder only what still fits
    found[:, column] = (staged * right).sum(axis=1) / is_read[:, column].sum()

# %% [markdown]
# Guess before you run the next cell: with 300 gamblers instead of one, what happens to the score on the
# machine where the best one was chosen, and what happens to it on machines of other lineages?


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def chosen(tried):
    best = [found[:tried, column].argmax() for column in range(len(names))]
    here = [found[gambler, column] for column, gambler in enumerate(best)]
    there = [found[gambler, strangers_of(name)].mean() for name, gambler in zip(names, best, strict=True)]
    return np.mean(here), np.mean(there)


tries = [(tried, *chosen(tried)) for tried in (1, 3, 10, 30, 100, 300)]
many = pl.DataFrame(tries, schema=["gamblers", "where chosen", "elsewhere"], orient="row")
many.with_columns(in_percent("where chosen"), in_percent("elsewhere"))

# %% tags=["plumbing"]
drawn = many.unpivot(index="gamblers", variable_name="scored", value_name="share found")
ways = alt.Scale(domain=["where chosen", "elsewhere"], range=["#D55E00", "#0072B2"])
base = alt.Chart(drawn).encode(
    x=alt.X("gamblers:Q", scale=alt.Scale(type="log", domain=[1, 300], nice=False), title="gamblers tried"),
    y=alt.Y("share found:Q", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 0.4])),
    color=alt.Color("scored:N", scale=ways),
)
points = base.mark_point(filled=True, size=70, opacity=1).encode(
    shape=alt.Shape("scored:N", scale=alt.Scale(domain=ways.domain, range=["circle", "square"]))
)
(base.mark_line() + points).properties(
    width=520, height=220, title="The best of many gamblers, where he was chosen and elsewhere"
)

# %% [markdown]
# Choosing *is* learning. Whatever you choose by looking at a score (a variant, a threshold, a feature, the
# day on which you stop) was learned from the machines that gave the score. So keep machines back that are
# looked at once, at the very end.

# %% [markdown]
# ## Leak 5: the right number of the wrong thing
#
# The database server is to be mounted over a slow line that brings 5 MB a second; the read cache is as
# large as the disk, and staging has a head start of 4 s. Six plans; of each the share of the boot's reads
# that it stages (recall, *without* a budget), the share of requests that hit the read cache (O7), how long
# the server waited for the backup in all (its **stall**), and when users are served.

# %%
boot = boots["bookworm-db"]
learned = make_predictor("first_access_by_path").fit(folds["bookworm-db"].train)
plan = vr.make_plan(learned, boot, mode="live_mount")
plan = plan.replace(cache_bytes=sum(plan.disk_bytes))
everything = np.arange(plan.blocks, dtype=np.int32)
plans = {
    "nothing": plan.replace(first_set=everything[:0]),
    "predicted, earliest first": plan,
    "the same blocks, in the order of the disk": plan.replace(first_set=np.sort(plan.first_set)),
    "the same blocks, latest first": plan.replace(first_set=plan.first_set[::-1].copy()),
    "the whole disk, in its order": plan.replace(first_set=everything),
    "the whole disk, before the launch": plan.replace(first_set=everything, launch=LaunchRule("share")),
}
slow = hardware_at(5_000_000)
runs = {way: vr.simulate(boot, each, slow).summary() for way, each in plans.items()}


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def seconds(value):
    return round(value / 1e9)


pl.DataFrame(
    {
        "plan": way,
        "recall (%)": round(100 * fetched_scores(plans[way], boot)["fetched_recall"]),
        "hits (%)": round(100 * run["hit_rate"]),
        "stall (s)": seconds(run["stall_ns"]),
        "users served after (s)": seconds(run["time_to_ready_ns"]),
        "read from the backup (MB)": round(run["media_bytes"] / 1e6),
    }
    for way, run in runs.items()
)

# %% [markdown]
# - **Recall without a budget** rewards staging everything: 100 %, and the server waits more than twice as
#   long as with nothing staged. Always say how much could be staged.
# - Three plans have the *same* recall. What differs is only the order, and recall cannot see it.
# - **Hits** are no better. “The whole disk, in its order” has far more hits than “nothing”, and serves
#   users half a minute later: staging keeps the line busy while the server waits. The plan with nothing but
#   hits serves them last of all.
#
# What users notice is the time until they are served. So the evaluation of this project simulates each
# plan, and reports the share of the *gap closed*: 0 is a restore that stages nothing, 1 is one that knows
# the boot's reads in advance.

# %% tags=["plumbing"]
boot.drop_manifests()  # frees memory
needed_blocks.cache_clear()

# %% [markdown]
# ## How good can a prediction get?
#
# 100 % is not the measure. Even two boots of the *same* machine differ: times, log files, what has been
# written meanwhile. What would somebody find who simply repeats the machine's own boot before (`boot-1`),
# and stages just what that one read?

# %%
# NBVAL_CHECK_OUTPUT
past = pl.DataFrame({"machine": names, "strangers": honest.values(), "own boot before": own_past.values()})
past.with_columns(in_percent("strangers"), in_percent("own boot before"))

# %% [markdown]
# That is what a machine's own past is worth: a good 95 % in most cases, with no block to spare. Strangers
# may come close where they are alike, and even pass it, because they may name a quarter more (1.25×). But
# whoever reports the same 99 % for *every* machine never seen, the desktop included, has found a leak and
# no predictor.

# %% [markdown]
# ## Exercise 1 · Find the leaks
#
# Choose a seed of your own, for instance the last digits of your student number. You get a tested boot, the
# question that is asked, and boots that somebody put into training. Which of them must go? Give their
# numbers.

# %%
SEED = 1
question, candidates = check.training_table(corpus, SEED)
print(question)
candidates

# %%
# BEGIN SOLUTION leaks = ...  # a list of numbers, such as [0, 3]
tested = question.split(" of ")[1].split(":")[0]
leaks = candidates.filter(pl.col("lineage") == corpus[tested].lineage)["number"].to_list()
# END SOLUTION
check.leaks(corpus, leaks, SEED)

# %% [markdown]
# ## Exercise 2 · Recall at 1.25×, by hand
#
# A made-up disk of 24 blocks: what the predictor says, and what the boot read. Compute the recall at 1.25×,
# as a number from 0 to 1. Mind what counts: what is not `stored` is all zeros.

# %%
disk = check.small_disk(SEED)
disk

# %%
# BEGIN SOLUTION my_recall = ...  # a number from 0 to 1
stored = disk.filter("stored").sort("probability", descending=True)
named = stored.head(round(1.25 * stored["read"].sum()))
my_recall = named["read"].sum() / stored["read"].sum()
# END SOLUTION
check.recall(my_recall, SEED)

# %% [markdown]
# ## Exercise 3 · Better, or only different?
#
# Two more predictors were scored above, without leaks: `mean_access_by_path` (in the order of mean times)
# and `first_access_by_content` (which finds a block by its content wherever it lies). Here are the scores
# of all three in the form that `vmrestorekit evaluate` writes, for the machines that *your* seed draws, and
# two predictors to compare. `paired_differences` returns the mean difference over machines and its 95 %
# interval.
#
# Is the first one `"better"`, `"worse"`, or is it `"undecided"`, because the interval includes zero?

# %%
honest_rows = [(name, "first_access_by_path", score) for name, score in honest.items()] + others_rows
scores = check.as_scores(honest_rows)
first, second, drawn_scores = check.comparison(scores, SEED)
print(f"Is {first} better than {second}, on {drawn_scores['vm'].n_unique()} machines?")

# %%
# BEGIN SOLUTION verdict = ...  # "better", "worse" or "undecided"
difference = paired_differences(drawn_scores, ["recall@1.25"]).filter(predictor=first, against=second)
low, high = difference["low"][0], difference["high"][0]
verdict = "better" if low > 0 else "worse" if high < 0 else "undecided"
# END SOLUTION
check.verdict(verdict, scores, SEED)

# %% [markdown]
# ## Take with you
#
# Before you believe a score, ask:
#
# 1. Which machines were in training? Any clone, any repeat, any later boot? **A lineage is one fold.**
# 2. What is the mean taken over, and the interval? **Machines, or lineages; never blocks.**
# 3. What was chosen by looking at this very score? **Keep machines back.**
# 4. With what budget? And what do users gain? **Recall at a budget; time until served.**
# 5. Where is the floor (nothing staged) and the ceiling (the machine's own boot before)?
#
# The whole evaluation, with the learned predictor, all machines and all four questions, takes an hour:
# `vmrestorekit evaluate --split lineage`.
#
# **What is real and what is not.** Real: the machines, their disks as hashes and paths, every read of every
# boot, the repeats and the clones; all scores come from them. Simulated: the restores of leak 5. The
# colleague is made up, and so are the gamblers and the small disk of exercise 2. Ten machines are few, and
# all of them run Debian: the intervals say nothing of other systems, and no bootstrap can.
