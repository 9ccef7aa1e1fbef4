# %% [markdown]
# # 10 · What if? An analyst's cookbook
#
# *Run the cells one by one with <kbd>Shift</kbd>+<kbd>Enter</kbd>; widgets appear only then.*
#
# You plan how a company brings servers back. Every day somebody asks *what if*: what if we relocate sooner? What if the backup is on tape? **Which settings
# of a restore matter, by how much, and which do not matter at all?**
#
# Each section is one question: your guess, a sweep of simulations, the answer in a small table, and a rule of thumb *with its limits*.
# There are six. Run all cells in their order, and take two or three questions at a sitting.
#
# Some words first. After an **instant restore** the server runs at once, straight from its backup; meanwhile its disk is copied to fast storage: the **relocation**
# (operation O13 of the patent). Both read through the **media agent**, which keeps blocks in its **read cache**, and from the same **backup device**: they get into each
# other's way. Filling the cache before somebody asks is called **staging**. The **stall** is how much longer the boot takes than from a local disk.

# %%
import dataclasses
import itertools

import altair as alt
import ipywidgets as widgets
import numpy as np
import polars as pl
from checks import what_if

import vmrestorekit as vr
from vmrestorekit.plan import LaunchRule, PurgeRule, RelocationStart
from vmrestorekit.restore.hardware import MEDIA, Link
from vmrestorekit.restore.replay import block_accesses
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.chart_frame import finished, heading
from vmrestorekit.show.guessing.guess_form import GuessForm
from vmrestorekit.show.live_chart import LiveChart
from vmrestorekit.show.renderer import enable
from vmrestorekit.show.theme import STYLE, styled

enable()  # charts that draw without a network
_ = pl.Config(tbl_rows=20, fmt_str_lengths=60, tbl_width_chars=140)
warmup()  # compile the engine now, so that nobody waits for it later

# %% [markdown]
# ## The tool
#
# A database server, recorded. The predictor is the simplest there is: *it will read what it read at its last boot*. Beside the recorded disk it gets a data disk of
# 4 GiB, whose content is made up and which the boot does not read: something large to relocate.

# %%
GIB, SECOND = 2**30, 1_000_000_000
corpus = vr.load_corpus()
database = corpus["bookworm-db"]
boot = database.boot("boot-3").with_data_disk(4 * GIB)
predictor = vr.LastBootReplay().fit([database.boot("boot-2")])
plan = vr.make_plan(predictor, database.boot("boot-3")).replace(disk_bytes=boot.disk_bytes)
print(f"{boot.vm}: {len(plan.first_set):,} of {plan.blocks:,} blocks are to be staged first")


# %% [markdown]
# One function asks the simulation; all that follows is this function in a loop. The backup copy lies on one of four media: `disk_library` (hard disks), `object_storage` (many can
# read at once, but each request takes long to answer), `flash` (the quickest), and `tape`.


# %%
def ask(boot, plan, hardware="disk_library"):
    figures = vr.simulate(boot, plan, hardware, detail="summary").summary()
    relocation, released = figures["relocation_ns"], figures["released_ns"]
    return {
        "ready (s)": figures["time_to_ready_ns"] / SECOND,  # from the request to the end of the boot
        "stall (s)": figures["stall_ns"] / SECOND,
        "slow reads (ms)": figures["wait_p99_ns"] / 1e6,  # 99 of 100 reads of the server wait less
        "relocation (s)": None if relocation is None else relocation / SECOND,
        "released (s)": None if released is None else released / SECOND,  # the backup copy is free again
        "read (MB)": figures["media_bytes"] / 1e6,  # from the backup device
        "read again": figures["refetches_after_purge"],  # misses of blocks that were dropped too early
    }


def after(seconds):
    return RelocationStart("delay", delay_ns=int(seconds * SECOND))


def table(rows, *columns, digits=1):
    shown = pl.DataFrame(rows)
    rounded = pl.selectors.float().round(digits) if digits else pl.selectors.float().round().cast(pl.Int64)
    return shown.select(columns or shown.columns).with_columns(rounded)


# %% [markdown]
# ## 1 · In which order should the relocation copy?
#
# The relocation follows a *sequence* of blocks. It starts together with the server. Does it matter which disk it copies first: the small one that the server boots
# from (770 MB), or the large one with the data?

# %%
order = GuessForm(
    order=(
        "With the data disk first, how long does the boot stall?",
        ["about as long", "about twice as long", "more than ten times as long"],
    )
)
order

# %%
# NBVAL_CHECK_OUTPUT
at_once = plan.replace(relocation_start=after(0))
data_first = at_once.replace(relocation_sequence=what_if.data_disk_first(boot))
table(
    (
        {"first": name, "medium": medium} | ask(boot, each, medium)
        for medium in ("disk_library", "object_storage")
        for name, each in (("boot disk", at_once), ("data disk", data_first))
    ),
    *("first", "medium", "stall (s)", "slow reads (ms)", "relocation (s)", "read again"),
)

# %%
order.tell(order="more than ten times as long")

# %% [markdown]
# The same bytes are copied in the same time, and yet the boot stalls. With the boot disk first, the relocation *is* the best staging: it is through with that disk in seconds, and the server finds its
# blocks on local storage.
#
# With the data disk first the two get into each other's way. But look at the last column before you believe that this is all! More than a thousand times a block had to be **read again**. The media
# agent drops what the relocation has read (O16), and it recognises the relocation by *runs* of reads in the order of the sequence (O15). A booting server reads its kernel and its libraries in just
# such runs: it is taken for the relocation, and its blocks are dropped under its hands. The patent has another way: the data agent *indicates* which blocks are done.

# %%
# NBVAL_CHECK_OUTPUT
indicated = data_first.replace(purge=PurgeRule(by_run=False, by_indication=True))
long_runs = data_first.replace(purge=PurgeRule(run_length=256))
purges = {"runs of 16": data_first, "runs of 256": long_runs, "indicated": indicated}
table(
    ({"purged by": name} | ask(boot, each) for name, each in purges.items()),
    *("purged by", "stall (s)", "slow reads (ms)", "relocation (s)", "read again"),
)

# %% [markdown]
# Three quarters of the stall were mistaken purges. What is left, six seconds, is the competition.
#
# > **Rule 1.** Relocate first what the server reads next; and let the data agent indicate what to purge, or ask for long runs. *Limit:* "first" works because a boot disk is small. If the
# > disk that the server works on is itself the large one, questions 2 and 3 are yours.
# >
# > **And a rule for analysts:** a large effect deserves a second figure that says *why*.
#
# From here on: data disk first, on purpose, so that the two compete; purged by indication, so that nothing else is in play.
#
# ## 2 · May the relocation hurry?
#
# Two settings decide. **Depth** is how many requests the relocation has under way at a time. **Priorities** say who comes first at the backup device:
#
# | setting | who waits for whom |
# |---|---|
# | `as_claimed` | staging waits for reads; once the relocation runs, its staging takes its turn among them (O11, O12) |
# | `strict` | staging always waits for reads |
# | `equal` | staging always takes its turn |
# | `weighted` | half of the device for the server's reads, 30 % for those of the relocation, 20 % for staging |

# %%
protects = GuessForm(
    protects=(
        "The relocation has 16 requests under way. What protects the server's reads best?",
        ["strict", "weighted", "none of them", "it depends on the network"],
    )
)
protects

# %%
fast = Link(latency_ns=200_000, bandwidth=1_250_000_000)
networks = {
    "1 Gbit/s": MEDIA["disk_library"],
    "10 Gbit/s": MEDIA["disk_library"].replace(link=fast),
}
competing = pl.DataFrame(
    {"network": network, "priorities": priorities, "depth": depth}
    | ask(boot, indicated.replace(priorities=priorities, relocation_depth=depth), hardware)
    for network, hardware in networks.items()
    for priorities in ("as_claimed", "strict", "equal", "weighted")
    for depth in (1, 2, 4, 8, 16)
)


# %% tags=["plumbing"]
def signs(field, names):  # a colour and a shape for each
    colours, shapes = (
        ["#0072B2", "#D55E00", "#009E73", "#CC79A7"],
        ["circle", "square", "triangle-up", "diamond"],
    )
    scales = (alt.Scale(domain=names, range=each[: len(names)]) for each in (colours, shapes))
    color, shape = (
        kind(f"{field}:N", title=None, scale=scale)
        for kind, scale in zip((alt.Color, alt.Shape), scales, strict=True)
    )
    return {"color": color, "shape": shape}


figures = ["slow reads (ms)", "relocation (s)"]
melted = competing.unpivot(figures, index=["network", "priorities", "depth"], variable_name="figure")
chart = (
    alt.Chart(melted)
    .mark_line(point={"size": 70, "filled": False}, strokeWidth=2)
    .encode(
        alt.X("depth:O", title="relocation requests under way", axis=alt.Axis(labelAngle=0)),
        alt.Y("value:Q", title=None),
        **signs("priorities", ["as_claimed", "strict", "equal", "weighted"]),
        tooltip=["network", "priorities", "depth", alt.Tooltip("value:Q", format=".1f"), "figure"],
    )
    .properties(width=320, height=170)
    .facet(column=alt.Column("network:N", title=None), row=alt.Row("figure:N", title=None))
    .resolve_scale(y="independent")
)
finished(chart, heading("What hurrying costs", "slow reads: 99 of 100 reads of the server wait less"))

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
table(
    competing.filter(pl.col("depth").is_in([1, 16])).to_dicts(),
    *("network", "priorities", "depth", "stall (s)", "slow reads (ms)", "relocation (s)"),
    digits=0,
)

# %%
protects.tell(protects="it depends on the network")

# %% [markdown]
# - On the slow network a **depth** of 2 already saves a quarter of the relocation's time. More only lets the server wait: with 16 its boot stalls five times as long. On the fast network
#   depth saves nothing: there the backup device is what is full, even at depth 1.
# - **`strict` changes nothing.** It only holds back *staging*. The relocation's own reads are reads like the server's, with "substantially the same priority", as the patent has it (O12).
# - **`weighted` protects where the device is scarce**, on the fast network: slow reads take 18 ms and not 63. On the slow network the queue is in front of the network, and no priority
#   of the device reaches it.
#
# > **Rule 2.** First ask what is scarce. If it is the network, only a smaller depth protects the server; if it is the device, weights do. *Limit:* weights act on misses alone. A read that
# > hits the read cache never gets to the device, but it waits for the network like all others.
#
# ## 3 · When should the relocation start?
#
# The simplest protection is patience (O10). Move the start, and see both prices: what the boot pays, and how long the backup copy stays tied up.

# %%
starts = list(range(0, 65, 5))
media = ["disk_library", "object_storage", "flash"]
sweep = pl.DataFrame(
    {"medium": medium, "start": start} | ask(boot, indicated.replace(relocation_start=after(start)), medium)
    for medium in media
    for start in starts
)


# %% tags=["plumbing"]
def start_chart(medium, start):
    shown = sweep.filter(medium=medium).unpivot(
        ["stall (s)", "released (s)"], index="start", variable_name="price"
    )
    line = (
        alt.Chart(shown)
        .mark_line(point=True, color="#0072B2")
        .encode(
            alt.X("start:Q", title="start of the relocation, seconds after the launch"),
            alt.Y("value:Q", title=None),
        )
    )
    rule = alt.Chart(shown).mark_rule(color="#D55E00", strokeWidth=2).encode(x=alt.datum(start))
    both = (
        alt.layer(line, rule)
        .properties(width=340, height=170)
        .facet(column=alt.Column("price:N", title=None))
    )
    return finished(
        both.resolve_scale(y="independent"), heading(f"From {medium}", "vertical: the start that you chose")
    )


style = {"description_width": "60px"}
start = widgets.SelectionSlider(
    options=starts, value=0, description="Start", tooltip="Seconds after the launch", style=style,
    layout={"width": "480px"},
)  # fmt: skip
medium = widgets.Dropdown(
    options=media, description="Medium", tooltip="Where the backup copy lies", style=style
)
said, drawn = widgets.HTML(), LiveChart(height=300)


def show(change=None):
    row = sweep.row(
        by_predicate=(pl.col("medium") == medium.value) & (pl.col("start") == start.value), named=True
    )
    said.value = styled(
        f'<p role="status" aria-live="polite">Started after {start.value} s: the boot stalls for {row["stall (s)"]:.1f} s, '
        f"and the backup copy is free {row['released (s)']:.0f} s after the restore was asked for.</p>"
    )
    drawn.draw(start_chart(medium.value, start.value))


start.observe(show, "value")
medium.observe(show, "value")
show()
widgets.VBox([widgets.HTML(STYLE), widgets.HBox([start, medium]), said, drawn])

# %% [markdown]
# Look for the place where waiting longer buys nothing any more.

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
by_load = ask(boot, indicated.replace(relocation_start=RelocationStart("load")))
chosen = [row for row in sweep.filter(medium="disk_library").to_dicts() if row["start"] in (0, 5, 20, 30, 60)]
table(
    [
        *(row | {"start": f"after {row['start']} s"} for row in chosen),
        {"start": "when the load is low"} | by_load,
    ],
    *("start", "stall (s)", "slow reads (ms)", "released (s)"),
)

# %% [markdown]
# - The stall falls in steps, for a boot reads in bursts: the kernel in its first seconds, services later. Each burst that the relocation does not meet is free.
# - About 30 s after its launch the boot is over (locally it takes 29 s), and waiting longer only keeps the backup copy tied up.
# - The start **by load** looks at the last 60 s of the server's demand; so it cannot start earlier, but nobody has to know how long a boot takes.
#
# > **Rule 3.** Start when the boot is done, or let the load decide. *Limit:* with the boot disk first (rule 1) the best start is at once. And a server that is always busy has
# > no such moment: then depth and weights are what is left.
#
# ### Exercise 1
#
# With your `SEED` you get a machine, a medium, and a limit. **What is the earliest start, a multiple of 5 s, with which the boot stalls for less?** Use `ask` and `after`, as in
# `ask(task.boot, task.plan.replace(relocation_start=after(20)), task.medium)`; a loop or a look at some starts will do.

# %%
SEED = 1
task = what_if.start_task(SEED)
print(task)

# %%
# BEGIN SOLUTION earliest_start = ...
earliest_start = next(
    start
    for start in range(0, 65, 5)
    if ask(task.boot, task.plan.replace(relocation_start=after(start)), task.medium)["stall (s)"]
    < task.limit_s
)
# END SOLUTION
what_if.check_start(earliest_start, SEED)


# %% [markdown]
# ## Is that an effect, or just this machine?
#
# A simulation gives the same answer each time: there is no noise to average out. But *one boot is not all boots*. So ask again, with other machines: eight roles, three releases of
# Debian. A rule that does not hold for all of them is none.


# %% tags=["plumbing"]
def rules_of(name):
    before, newest = vr.load_corpus()[name].boots[-2:]  # a corpus of its own: it can be let go again
    small = vr.make_plan(vr.LastBootReplay().fit([before]), newest)
    large = newest.with_data_disk(4 * GIB)
    plan = small.replace(disk_bytes=large.disk_bytes, relocation_start=after(0))
    bad = plan.replace(relocation_sequence=what_if.data_disk_first(large))
    told = bad.replace(purge=PurgeRule(by_run=False, by_indication=True))
    cases = {
        "boot disk first": plan,
        "data disk first": bad,
        "… purged by indication": told,
        "… and depth 16": told.replace(relocation_depth=16),
        "… and after 60 s": told.replace(relocation_start=after(60)),
    }
    return [{"vm": name, "case": case} | ask(large, each) for case, each in cases.items()]


names = ["bookworm-desktop", "bookworm-files", "bookworm-mail", "bookworm-node", "bullseye-web", "trixie-cache",
         "trixie-db", "trixie-dns"]  # fmt: skip
others = pl.DataFrame(row for name in names for row in rules_of(name))

# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
table(
    others.group_by("case", maintain_order=True)
    .agg(
        pl.len().alias("machines"),
        pl.min("stall (s)").alias("least stall (s)"),
        pl.median("stall (s)").alias("median stall (s)"),
        pl.max("stall (s)").alias("longest stall (s)"),
        pl.min("read again").alias("least read again"),
        pl.max("read again").alias("most read again"),
    )
    .to_dicts()
)

# %% [markdown]
# The ranges of good and bad settings do not even touch: the order, the mistaken purges, the depth, and the start matter for all eight. What differs is *how much*: do not carry the seconds of one
# machine over to another.
#
# ## 4 · Mount the server each morning, or restore it once?
#
# A test team wants yesterday's server every morning. A **live mount** (O22–O26) runs it from the backup and never relocates: each morning it reads only what the boot needs. An
# instant restore copies everything, once. **After how many mornings has the restore read less from the backup device?** The machine without the made-up disk stores 770 MB; each
# morning's boot needs something over 120 MB of it, in blocks of 64 KiB.

# %%
pays = GuessForm(pays=("By which morning have the mounts read more than the restore?", range(1, 31)))
pays

# %% [markdown]
# Seven boots of this server were recorded after its first: seven mornings, each predicted from the one before. A third way: mount it *once* and keep the mount, with a read cache of 256 MiB;
# what the cache holds need not be read again.

# %%
mornings = []
for before, today in itertools.pairwise(database.boots):
    planned = vr.make_plan(vr.LastBootReplay().fit([before]), today)
    mornings.append((today, planned))
mounts = [ask(today, planned.with_mode("live_mount")) for today, planned in mornings]
restored = ask(*mornings[0])

BLOCK, accesses, kept = 65_536, [], []
for today, _ in mornings:
    accesses.append(block_accesses(today.trace, BLOCK))
    misses = vr.replay_cache(np.concatenate(accesses), 256 * 2**20 // BLOCK, "lru").misses
    kept.append(misses * BLOCK / 1e6)

# %%
# NBVAL_CHECK_OUTPUT
sums = pl.DataFrame(
    {
        "morning": range(1, len(mounts) + 1),
        "mounted anew (MB)": np.cumsum([mount["read (MB)"] for mount in mounts]),
        "mount kept (MB)": kept,
        "restored once (MB)": [restored["read (MB)"]] * len(mounts),
        "mounted anew, stall (s)": np.cumsum([mount["stall (s)"] for mount in mounts]),
        "restored once, stall (s)": [restored["stall (s)"]] * len(mounts),
    }
)
table(sums.to_dicts())

# %% tags=["plumbing"]
lines = sums.unpivot(
    ["mounted anew (MB)", "mount kept (MB)", "restored once (MB)"], index="morning", variable_name="way"
)
chart = (
    alt.Chart(lines)
    .mark_line(point={"size": 70, "filled": False}, strokeWidth=2)
    .encode(
        alt.X("morning:O", axis=alt.Axis(labelAngle=0)),
        alt.Y("value:Q", title="read from the backup device so far (MB)"),
        **signs("way", ["mounted anew (MB)", "mount kept (MB)", "restored once (MB)"]),
    )
    .properties(width=560, height=230)
)
finished(chart, heading("Mornings until the restore pays", "bookworm-db, recorded boots"))

# %%
first = next(
    row["morning"] for row in sums.to_dicts() if row["mounted anew (MB)"] > row["restored once (MB)"]
)
pays.tell(pays=first)

# %% [markdown]
# - By **bytes**, what is stored divided by what a morning reads. With the data disk of 4 GiB it would be six times as many mornings.
# - By **stall**, the restore pays from the second morning on: it has none any more.
# - A mount that is **kept** never catches up: after the first morning its read cache holds nearly everything. But the media agent has to give it that cache all the time.
#
# > **Rule 4.** Mornings until a restore pays = bytes stored / bytes read a morning. *Limit:* in bytes of the backup device only. Who pays for waiting users restores at once; who needs the server for
# > an hour, or has no room on primary storage, mounts.
#
# ### Exercise 2
#
# For your machine and its data disk: **by which morning have mounts read more than one restore does**, if each reads what the recorded ones read on average? (The mornings that you have
# are too few: divide.) Take the default medium: `ask(boot, plan, "object_storage")`.

# %%
mounted = what_if.mornings_task(SEED)
print(mounted)  # mounted.mornings: pairs of a boot and its plan; the restore is that of the first

# %%
# BEGIN SOLUTION by_morning = ...
reads = [
    ask(boot, plan.with_mode("live_mount"), "object_storage")["read (MB)"] for boot, plan in mounted.mornings
]
by_morning = int(ask(*mounted.mornings[0], "object_storage")["read (MB)"] / np.mean(reads)) + 1
# END SOLUTION
what_if.check_mornings(by_morning, SEED)

# %% [markdown]
# ## 5 · What if the backup copy is on tape?
#
# A **tape** reads quickly (300 MB/s here), but it has one head, takes a minute to load, and two seconds or more to go anywhere else. The server without its data disk
# again, with a relocation 40 s after the launch.

# %%
tape = GuessForm(
    tape=(
        "From tape, which way serves the users first?",
        ["an instant restore", "a full restore: copy all, then boot", "both, about the same"],
    )
)
tape

# %%
# NBVAL_CHECK_OUTPUT
small = database.boot("boot-3")
small_plan = vr.make_plan(predictor, small, relocation_start=after(40))
ways = {"full restore": "full_restore", "instant restore": "instant_restore", "live mount": "live_mount"}
table(
    (
        {"medium": medium, "way": way} | ask(small, small_plan.with_mode(mode), medium)
        for medium in ("flash", "disk_library", "object_storage", "tape")
        for way, mode in ways.items()
    ),
    *("medium", "way", "ready (s)", "stall (s)", "released (s)", "read (MB)"),
    digits=0,
)

# %%
tape.tell(tape="a full restore: copy all, then boot")

# %% [markdown]
# From tape an instant restore is not instant: 23 minutes against a minute and a half. A boot hops about, and each hop is seconds. Can one do anything about it?

# %%
# NBVAL_CHECK_OUTPUT
all_staged = LaunchRule("share", share=1.0)
on_tape = {
    "launched after 4 s": small_plan,
    "launched when all is staged": small_plan.replace(launch=all_staged),
    "… and staged in the order of the tape": small_plan.replace(
        launch=all_staged, first_set=np.sort(small_plan.first_set)
    ),
    "nothing predicted, staged in the relocation's order": small_plan.replace(first_set=[]),
    "full restore": small_plan.with_mode("full_restore"),
}
table(
    ({"from tape": name} | ask(small, each, "tape") for name, each in on_tape.items()),
    *("from tape", "ready (s)", "stall (s)", "released (s)"),
    digits=0,
)

# %% [markdown]
# The best instant restore from tape is the one that gives up on prediction and reads the tape from one end to the other: about as quick as the full restore, since it is one. On a medium
# that hates hopping, *order beats prediction*.
#
# > **Rule 5.** Where getting to a block takes as long as reading thousands of them, read in the order of the medium. *Limit:* this disk has 770 MB stored. From one of 10 TB nobody waits for
# > the end: copy what is needed to another medium first.
#
# ## 6 · When is a full restore just as quick as an instant one?
#
# A full restore has no stall, but it begins with copying. So the faster the network, the less an instant restore gains.

# %% tags=["plumbing"]
link_speeds = [25, 50, 100, 150, 200, 300, 500, 1000]
rows = []
for speed in link_speeds:
    link = dataclasses.replace(MEDIA["flash"].link, bandwidth=speed * 1_000_000)
    hardware = MEDIA["flash"].replace(link=link)
    for way in ("full restore", "instant restore"):
        rows.append({"MB/s": speed, "way": way} | ask(small, small_plan.with_mode(ways[way]), hardware))
chart = (
    alt.Chart(pl.DataFrame(rows).select("MB/s", "way", ready="ready (s)"))
    .mark_line(point={"size": 70, "filled": False}, strokeWidth=2)
    .encode(
        alt.X("MB/s:Q", scale=alt.Scale(type="log"), title="bandwidth of the network (MB/s)"),
        alt.Y("ready:Q", title="seconds until users are served", scale=alt.Scale(zero=False)),
        **signs("way", ["full restore", "instant restore"]),
    )
    .properties(width=560, height=230)
)
finished(chart, heading("Full and instant restore meet", "bookworm-db without a data disk, from flash"))

# %% [markdown]
# They meet where copying everything takes as long as the head start of the instant restore (here 4 s) and its stall together.
#
# > **Rule 6.** A full restore wins if copying takes less than head start + stall. On a slow network copying takes bytes stored / bandwidth; on a fast one add what primary storage needs (500 MB/s here). *Limit:* with the data disk of 4 GiB that alone takes ten seconds, and the full restore is never as quick. Large disks are the rule.
#
# ### Exercise 3
#
# For your machine: **at which bandwidth of the network, in MB/s, is a full restore as quick as the instant one?** To about 10 %. Rule 6 gives a first guess; then simulate:
# `race.with_link(100)` is the hardware with 100 MB/s.

# %%
race = what_if.bandwidth_task(SEED)
print(race)


# %%
# BEGIN SOLUTION break_even = ...
def lead(speed):
    full, instant = (
        ask(race.boot, race.plan.with_mode(mode), race.with_link(speed))["ready (s)"]
        for mode in ("full_restore", "instant_restore")
    )
    return full - instant


break_even = next(speed for speed in range(20, 1000, 4) if lead(speed) < 0)
# END SOLUTION
what_if.check_bandwidth(break_even, SEED)

# %% [markdown]
# ## Take-away
#
# | what matters | what matters less than one thinks |
# |---|---|
# | the order of the relocation, and what is mistaken for it | `strict` or `equal` priorities: both are about staging only |
# | its start, relative to the boot | depth, once the device is full |
# | what is scarce, the network or the device | the bandwidth of a tape: its hops take the time |
# | bytes stored, for everything that copies | another day of use, for a mount that is kept |
#
# **What is real and what is not.** Real: the requests of the boots and what the recorded disks held. Made up: the data disk, and that nobody reads it; and that the mount which is kept reads nothing but these boots. Simulated: devices, network, media agent; the
# devices are typical of their class, not products (`vmrestorekit.restore.hardware` says where each number comes from). The predictor knows the last boot of *this* machine, which is more than you have the first time. And
# all boots are those of small Debian servers on an idle host: the rules are about *what* to look at, the numbers are these machines'.
