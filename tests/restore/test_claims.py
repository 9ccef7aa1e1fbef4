"""What the patent's claims insist on, shown on the simulated restore of a recorded boot."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from small_restores import by_block, cached_before, fetched_though_there, purged_outside_runs, row_of, rows_of

from vmrestorekit.plan import PurgeRule, RelocationStart, RestorePlan
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.predict.replay import LastBootReplay
from vmrestorekit.restore.events import CAUSES, PURGE_TRIGGERS, READERS
from vmrestorekit.restore.hardware import MEDIA, Hardware
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.restore.timeline import Timeline
from vmrestorekit.traces.corpus import Boot, Corpus

SECOND = 1_000_000_000

# one drive, so that reads and staging get into each other's way
ONE_DRIVE = MEDIA["disk_library"].replace(
    backup_device=dataclasses.replace(MEDIA["disk_library"].backup_device, channels=1)
)
assert isinstance(ONE_DRIVE, Hardware)


@pytest.fixture(scope="module")
def boot(packaged_corpus: Corpus) -> Boot:
    return packaged_corpus["bookworm-db"].boots[1]


@pytest.fixture(scope="module")
def plan(packaged_corpus: Corpus, boot: Boot) -> RestorePlan:
    """Stage half of what the last boot read, so that there are hits and misses; relocate while it boots."""
    predictor = LastBootReplay().fit(packaged_corpus["bookworm-db"].boots[0])
    whole = make_plan(predictor, boot)
    return whole.replace(
        first_set=whole.first_set[::2], relocation_start=RelocationStart(delay_ns=25 * SECOND)
    )


@pytest.fixture(scope="module")
def restore(boot: Boot, plan: RestorePlan) -> Timeline:
    return simulate(boot, plan, ONE_DRIVE)


def demand_intervals(timeline: Timeline) -> pl.DataFrame:
    """For each block that somebody waited for: the rows of its miss and of the start of its fetch."""
    causes = [CAUSES.index("vm_read"), CAUSES.index("relocation_read")]
    started = by_block(rows_of(timeline, "fetch").filter(pl.col("detail").is_in(causes)))
    missed = rows_of(timeline, "cache_miss")
    assert len(started) == len(missed) > 100
    return missed.join(started, on=["block", "request"], suffix="_fetch").sort("row")


def test_claim_1_before_relocation_staging_never_starts_while_a_read_waits(restore: Timeline) -> None:
    relocation = row_of(restore, "start_relocation")
    low = [CAUSES.index("first_set"), CAUSES.index("pre_relocation")]
    staging = rows_of(restore, "fetch").filter(pl.col("row") < relocation)
    for cause in low:
        assert len(staging.filter(pl.col("detail") == cause)) > 20
    waiting = np.zeros(len(restore), np.int32)
    for missed, started in demand_intervals(restore).select("row", "row_fetch").iter_rows():
        waiting[missed:started] += 1
    assert waiting[:relocation].max() > 0
    starts = staging.filter(pl.col("detail").is_in(low))["row"].to_numpy()
    # a miss is noted before the device is dispatched, so a waiting read is one that a stager would overtake
    assert not waiting[starts].any()


def test_claim_1_while_both_run_no_later_demand_overtakes_an_earlier_one(restore: Timeline) -> None:
    first, last = row_of(restore, "start_relocation"), row_of(restore, "finish_relocation")
    both = demand_intervals(restore).filter(pl.col("row").is_between(first, last))
    assert set(both["detail"]) == {READERS.index("vm"), READERS.index("relocation")}
    assert both["row_fetch"].is_sorted()


def test_claim_1_while_both_run_staging_waits_in_the_queue_of_demand(boot: Boot, plan: RestorePlan) -> None:
    deep = simulate(boot, plan.replace(stage_depth=8), ONE_DRIVE)
    staging = CAUSES.index("relocation_staging")
    fetches = rows_of(deep, "fetch")
    overtaken = [
        fetches.filter(pl.col("row").is_between(missed, started), pl.col("detail") == staging).height
        for missed, started in demand_intervals(deep).select("row", "row_fetch").iter_rows()
    ]
    # unlike before the relocation, staging that was queued first does go first, up to its depth
    assert 0 < max(overtaken) <= 8


def test_claim_2_a_missing_block_is_copied_to_the_read_cache_and_then_sent_from_it(restore: Timeline) -> None:
    staged = by_block(rows_of(restore, "staged"))
    served = rows_of(restore, "serve")
    # also one that is on its way for another reader: it is not fetched again
    assert not fetched_though_there(restore)
    for miss in rows_of(restore, "cache_miss", "cache_wait").iter_rows(named=True):
        after = pl.col("row") > miss["row"]
        block, reader = pl.col("block") == miss["block"], pl.col("request") == miss["request"]
        copied = staged.filter(after & block)["row"][0]
        sent = served.filter(after & block & reader)["row"][0]
        assert miss["row"] < copied < sent


@pytest.mark.parametrize(
    ("rule", "trigger"),
    [(PurgeRule(by_run=True), "run"), (PurgeRule(by_run=False, by_indication=True), "indication")],
)
def test_claim_3_relocated_blocks_are_purged_once_they_were_served(
    boot: Boot, plan: RestorePlan, rule: PurgeRule, trigger: str
) -> None:
    timeline = simulate(boot, plan.replace(purge=rule), ONE_DRIVE)
    purged = rows_of(timeline, "purge")
    assert set(purged["detail"]) == {PURGE_TRIGGERS.index(trigger)}
    assert len(purged) > 0.9 * int(timeline.stored.sum())
    entered = by_block(rows_of(timeline, "staged")).select("block", entered="row")
    sent = rows_of(timeline, "serve").select("block", sent="row")
    stay = (
        purged.join(entered, on="block")
        .filter(pl.col("entered") < pl.col("row"))
        .group_by("block", "row")
        .agg(pl.col("entered").max())
        .join(sent, on="block")
        .filter(pl.col("sent").is_between("entered", "row"))
    )
    assert stay.select("block", "row").unique().height == len(purged)


@pytest.mark.parametrize("run_length", [2, 16])
def test_claim_3_what_is_purged_belongs_to_a_series_of_reads_along_the_sequence(
    boot: Boot, plan: RestorePlan, run_length: int
) -> None:
    """The machine reads with gaps and in between; every purge has to have a series of its own."""
    rule = PurgeRule(by_run=True, run_length=run_length)
    timeline = simulate(boot, plan.replace(purge=rule), ONE_DRIVE)
    assert len(rows_of(timeline, "purge")) > 1000
    assert not purged_outside_runs(timeline)


def test_claim_3_without_a_purge_rule_nothing_is_purged(boot: Boot, plan: RestorePlan) -> None:
    rule = PurgeRule(by_run=False, by_indication=False)
    timeline = simulate(boot, plan.replace(purge=rule), ONE_DRIVE)
    assert rows_of(timeline, "purge").is_empty()
    assert timeline.summary()["peak_cache_bytes"] == plan.cache_slots * plan.block_bytes


def test_claim_4_afterwards_the_backup_lets_go_and_the_machine_runs_on_the_destination(
    restore: Timeline,
) -> None:
    order = (
        "finish_relocation",
        "use_destination",
        "unmount_file_system",
        "empty_read_cache",
        "de_associate",
    )
    rows = [row_of(restore, kind) for kind in order]
    assert rows == sorted(rows)
    emptied = row_of(restore, "empty_read_cache")
    assert restore.events["count"][emptied] == len(cached_before(restore, emptied))
    assert rows_of(restore, "use_destination")["actor"].to_list() == ["media_agent"]
    after = restore.events[rows[-1] + 1 :]
    reads = after.filter(pl.col("kind") == "vm_read")
    assert len(reads) > 100
    media = ["fetch", "staged", "serve", "cache_hit", "cache_wait", "cache_miss", "read_write_cache"]
    assert after.filter(pl.col("kind").is_in(media)).is_empty()
    done = after.filter(pl.col("kind") == "vm_done").join(reads, on="request", how="semi")
    assert len(done) == len(reads)
    # whatever the backup copy stored, or the machine wrote there, comes from the destination
    stored = (
        by_block(reads)
        .group_by("request")
        .agg(pl.col("block").is_in(np.flatnonzero(restore.stored).tolist()).all().alias("whole"))
    )
    whole = reads.join(stored.filter("whole"), on="request")
    came = rows_of(restore, "read_destination").select("request", bytes="detail")
    assert len(whole) > 100
    assert (whole.join(came, on="request", how="left")["bytes"] == whole["detail"]).all()


def test_claim_5_the_first_set_is_determined_before_launch_and_the_boot_is_served_from_it(
    restore: Timeline, plan: RestorePlan
) -> None:
    launch = row_of(restore, "launch_vm")
    assert row_of(restore, "indicate_vm_profile") < row_of(restore, "determine_first_set") < launch
    staged = by_block(rows_of(restore, "staged")).filter(
        pl.col("row") < launch, pl.col("detail") == CAUSES.index("first_set")
    )
    assert staged["block"].to_list() == plan.first_set[: len(staged)].tolist()
    assert restore.events["detail"][launch] == len(staged) > 0
    hits = rows_of(restore, "cache_hit").filter(pl.col("row") > launch)
    from_first_set = hits.filter(pl.col("block").is_in(staged["block"].implode()))
    assert len(from_first_set) > 200
