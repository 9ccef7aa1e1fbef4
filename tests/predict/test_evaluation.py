"""A whole evaluation of SYNTHETIC machines: the right scores, wherever it runs and whatever interrupts it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import polars as pl
import pytest
from lacking import missing
from synthetic_boots import boot_of, manifest_of
from synthetic_corpus import corpus_of, machine
from typer.testing import CliRunner

from vmrestorekit.cli import app, main
from vmrestorekit.predict.by_name import NoPrediction
from vmrestorekit.predict.evaluation import COSTS, LEAST_GAP, Conditions, evaluate
from vmrestorekit.predict.evaluation_report import summarise, write_report
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.replay import ContentHashReplay, LastBootReplay
from vmrestorekit.traces.boots import RecordedVM
from vmrestorekit.traces.recording import add_boot

MB = 1_000_000
QUICK = Conditions(bandwidths=(2 * MB, 250 * MB), head_starts_ns=(0, 4_000_000_000))
SLOW = "2MB/s,4s"
CONTENDERS = {"last_boot": LastBootReplay, "content": ContentHashReplay, "none": NoPrediction}
# three machines read the same contents, the fourth the others
CORPUS = corpus_of(
    machine("a", release="11", role="web"),
    machine("b", release="12", role="web"),
    machine("c", release="12", role="db"),
    machine("odd", first=0, release="12", role="db"),
)


def evaluated(corpus=CORPUS, splits=("later", "lineage"), predictors=None, **settings):
    return evaluate(
        *(corpus, splits, predictors),
        contenders=CONTENDERS,
        conditions=settings.pop("conditions", QUICK),
        **settings,
    )


def same(scores):
    return scores.filter(~pl.col("metric").is_in(COSTS))


@pytest.fixture(scope="module")
def scores():
    return evaluated()


def values(scores, split, predictor, metric, vm=None):
    found = scores.filter(split=split, predictor=predictor, metric=metric)
    return set((found if vm is None else found.filter(vm=vm))["value"].round(9))


def test_who_knows_all_finds_all_and_closes_the_gap(scores):
    for metric in ("average_precision", "recall@1", "precision@1", "fetched_recall", f"gap_closed@{SLOW}"):
        assert values(scores, "later", "last_boot", metric) == {1.0}
    for metric in ("brier", "unread_share", f"late_share@{SLOW}", f"wasted_bytes@{SLOW}"):
        assert values(scores, "later", "last_boot", metric) == {0.0}
    assert values(scores, "later", "boot_before", "recall") == {1.0}


def test_who_knows_nothing_is_lazy(scores):
    for metric in ("recall@2", "fetched_bytes", f"gap_closed@{SLOW}", f"wasted_bytes@{SLOW}"):
        assert values(scores, "lineage", "none", metric) == {0.0}
    assert values(scores, "lineage", "lazy", f"gap_closed@{SLOW}") == {0.0}
    assert values(scores, "lineage", "oracle_order", f"gap_closed@{SLOW}") == {1.0}
    lazy, none = (values(scores, "lineage", name, f"time_to_boot_s@{SLOW}") for name in ("lazy", "none"))
    assert lazy == none


def test_the_odd_machine_is_not_found_by_what_others_read(scores):
    assert values(scores, "lineage", "content", "recall@1", "odd") == {0.0}
    # of the boots of the three others that had the content, two thirds read it
    assert values(scores, "lineage", "content", "recall@1", "a") == {1.0}
    (closed,) = values(scores, "lineage", "content", f"gap_closed@{SLOW}", "odd")
    assert closed <= 0


def test_a_small_gap_is_shown_and_not_scored(scores):
    shown = scores.filter(pl.col("metric") == "gap_share@250MB/s,4s")
    assert 0 < shown["value"].max() < LEAST_GAP
    assert scores.filter(pl.col("metric") == "gap_closed@250MB/s,4s").is_empty()
    assert scores.filter(pl.col("metric") == f"gap_share@{SLOW}")["value"].min() >= LEAST_GAP


def test_who_knows_one_machine_only_is_asked_where_that_is_known():
    found = evaluated(splits=["later_with_others", "lineage"], predictors=["last_boot", "none"])
    by_last_boot = found.filter(pl.col("predictor") == "last_boot")
    assert by_last_boot["split"].unique().to_list() == ["later_with_others"]
    assert values(found, "later_with_others", "last_boot", "average_precision") == {1.0}
    with pytest.raises(PredictError, match="expected one that learns from other machines, got last_boot"):
        evaluated(splits=["lineage"], predictors=["last_boot"])


def test_machines_of_another_corpus():
    other = corpus_of(machine("new"), machine("strange", first=0))
    found = evaluated(corpus_of(machine("a"), machine("b")), predictors=["content"], test=other)
    assert found["split"].unique().to_list() == ["transfer"]
    assert values(found, "transfer", "content", "recall@1", "new") == {1.0}
    assert values(found, "transfer", "content", "recall@1", "strange") == {0.0}


# --- where it runs, and what is kept ------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The same machines in a directory."""
    directory = tmp_path_factory.mktemp("corpus")
    for vm in CORPUS.values():
        for boot in vm.boots:
            add_boot(directory, boot.trace, boot.manifests, vm.description)
    return directory


@pytest.fixture(scope="module")
def stored_corpus(stored):
    from vmrestorekit.traces.corpus import load_corpus

    return load_corpus(stored)


def test_two_processes_find_the_same(scores, stored_corpus):
    assert same(evaluated(stored_corpus, n_jobs=2)).equals(same(scores))


class Counted(ContentHashReplay):
    """Counts how often it is fitted, and is interrupted at the third time."""

    fits = 0
    breaks_at = 3

    def _fit(self, boots):
        Counted.fits += 1
        if Counted.fits == Counted.breaks_at:
            raise KeyboardInterrupt
        super()._fit(boots)


def test_an_interrupted_evaluation_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(Counted, "fits", 0)
    settings = {"contenders": {"counted": Counted}, "conditions": QUICK, "resume": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        evaluate(CORPUS, ["lineage"], **settings)
    assert Counted.fits == 3
    found = evaluate(CORPUS, ["lineage"], **settings)
    assert Counted.fits == 3 + 2  # of four folds two were there
    again = evaluate(CORPUS, ["lineage"], **settings)
    assert Counted.fits == 5
    assert again.equals(found)  # costs too: nothing was computed again
    monkeypatch.setattr(Counted, "breaks_at", 0)
    assert same(evaluate(CORPUS, ["lineage"], **(settings | {"resume": None}))).equals(same(found))


def test_what_is_kept_is_not_taken_for_something_else(tmp_path, monkeypatch):
    monkeypatch.setattr(Counted, "fits", 10)
    settings = {"contenders": {"counted": Counted}, "resume": tmp_path}
    evaluate(CORPUS, ["lineage"], **settings, conditions=QUICK)
    other = Conditions(bandwidths=(2 * MB,), head_starts_ns=(0,))
    found = evaluate(CORPUS, ["lineage"], **settings, conditions=other)
    assert Counted.fits == 10 + 4 + 4
    assert found.filter(pl.col("metric") == f"gap_closed@{SLOW}").is_empty()
    changed = corpus_of(*[machine(name) for name in ("a", "b", "c")], machine("odd", first=2))
    evaluate(changed, ["lineage"], **settings, conditions=other)
    assert Counted.fits == 10 + 4 + 4 + 4


class Slow(ContentHashReplay):
    """Takes long enough for its process to be killed."""

    def _fit(self, boots):
        time.sleep(1.0)
        super()._fit(boots)


@pytest.fixture
def cluster():
    try:
        from distributed import LocalCluster
    except ImportError:
        missing("no package 'distributed'")
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as started:
        yield started


def test_a_dask_cluster_finds_the_same_though_a_worker_is_killed(cluster, stored_corpus, tmp_path):
    pids = []

    def kill_one(done, total):
        if not pids:
            worker = next(iter(cluster.workers.values()))
            pids.append(worker.process.pid)
            os.kill(pids[0], signal.SIGKILL)

    contenders = {"content": Slow}
    found = evaluate(
        *(stored_corpus, ["lineage"]),
        contenders=contenders,
        conditions=QUICK,
        cluster=cluster.scheduler_address,
        progress=kill_one,
    )
    assert pids
    expected = evaluate(stored_corpus, ["lineage"], contenders=contenders, conditions=QUICK)
    assert same(found).equals(same(expected))


class Killed(ContentHashReplay):
    """Kills its process once."""

    def __init__(self, flag=""):
        self.flag = flag

    def _fit(self, boots):
        if not os.path.exists(self.flag):
            open(self.flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        super()._fit(boots)


class KilledOnce:
    def __init__(self, flag):
        self.flag = flag

    def __call__(self):
        return Killed(self.flag)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_killed_process_costs_time_only(scores, stored_corpus, tmp_path):
    contenders = {"content": KilledOnce(str(tmp_path / "flag"))}
    found = evaluate(stored_corpus, ["lineage"], contenders=contenders, conditions=QUICK, n_jobs=2)
    expected = evaluate(CORPUS, ["lineage"], contenders={"content": ContentHashReplay}, conditions=QUICK)
    assert same(found).equals(same(expected))


def test_no_cluster_there(stored_corpus):
    with pytest.raises(ValueError, match="cluster: expected a Dask scheduler at 'nowhere'"):
        evaluated(stored_corpus, cluster="nowhere")
    with pytest.raises(ValueError, match="jobs: expected a number of workers"):
        evaluated(n_jobs=0)


# --- what is told -------------------------------------------------------------------------------------


def test_the_report_says_who_is_better(scores, tmp_path):
    report = summarise(scores, main="content")
    titles = list(report.tables)
    assert "lineage: blocks, mean of 4 machines" in titles
    (against_none,) = (
        row
        for row in report.tables["lineage: content minus others, 95 % interval"]
        if row["against"] == "none"
    )
    assert against_none["recall@1.25"].startswith("0.750 [")
    write_report(scores, report, tmp_path, "vmrestorekit evaluate")
    assert pl.read_parquet(tmp_path / "scores.parquet").equals(scores)
    text = (tmp_path / "report.md").read_text()
    assert "    vmrestorekit evaluate\n" in text
    assert "| (gap, of lazy) |" in text


def test_the_command_prints_json(stored, tmp_path):
    words = ["evaluate", "--corpus", stored, "--split", "lineage", "--predictor", "content", "--bandwidth", 2]
    words += ["--head-start", 4, "--out", tmp_path, "--json"]
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    means = json.loads(done.stdout)["means"]
    (row,) = (row for row in means if (row["predictor"], row["metric"]) == ("content", "average_precision"))
    assert (row["split"], row["vms"]) == ("lineage", 4)
    assert {file.name for file in tmp_path.iterdir()} == {
        *("scores.parquet", "means.parquet", "differences.parquet", "report.md")
    }


def test_the_command_prints_tables(stored):
    words = ["evaluate", "--corpus", str(stored), "--test", str(stored)]
    with pytest.raises(PredictError, match=r"machines that .* does not have"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    words = ["evaluate", "--corpus", str(stored), "--split", "role", "--predictor", "first_access_by_path"]
    done = CliRunner().invoke(app, [*words, "--bandwidth", "2"], catch_exceptions=False)
    assert "role: blocks, mean of 4 machines" in done.stdout
    assert "oracle_order" in done.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--predictor", "crystal_ball"], "predictor: expected one of learned, "),
        (["--split", "earlier"], "split: expected one of later, "),
        (["--bandwidth", "0"], "bandwidths: expected some, all above 0"),
        (["--bandwidth", "nan"], "--bandwidth: expected a number of MB/s"),
        (["--test", ".", "--split", "role"], "--test: expected no --split beside it"),
    ],
)
def test_bad_input_ends_with_one_sentence(stored, options, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vmrestorekit", "evaluate", "--corpus", str(stored), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"vmrestorekit: {sentence}")
    assert printed.count("\n") == 1


def test_a_boot_without_mark_is_refused_before_the_work_begins():
    endless = boot_of(manifest_of([1]), [], vm="endless", boot_done_ns=None)
    corpus = corpus_of(machine("a"), RecordedVM("endless", {}, (endless,)))
    with pytest.raises(PredictError, match="endless, boot-1: expected a mark 'boot_done_ns', got"):
        evaluate(corpus, ["lineage"], contenders={"none": None}, conditions=QUICK)


def test_one_machine_cannot_be_left_out():
    with pytest.raises(PredictError, match="at least two lineages, got <Corpus of 2 boots"):
        evaluated(corpus_of(machine("a")), splits=["lineage"])
    with pytest.raises(PredictError, match="budgets: expected some, all above 0"):
        evaluated(budgets=[0])
