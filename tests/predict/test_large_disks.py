"""Plans of disks that are not held in memory, and what is left out of a look; the machines are synthetic."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from synthetic_boots import BLOCK, MILLISECOND, boot_of, small_machine

import vmrestorekit as vr
from vmrestorekit.predict import asked_disk
from vmrestorekit.predict.by_name import make_predictor
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.traces.large_manifest import LargeManifest
from vmrestorekit.traces.manifest import BLOCKS_SCHEMA, ManifestError

OTHERS = [boot for number in range(4) for boot in small_machine(f"vm{number}", number)]
MACHINE = small_machine("new", 9)[0]


@pytest.fixture(scope="module")
def model():
    return vr.LearnedPredictor(max_iter=20).fit(OTHERS)


def long_disk(manifest, pieces=3):
    """The same disk, with files that nobody reads behind it."""
    rows = (pieces - 1) * 1024
    more = pl.DataFrame(
        {
            "content": np.arange(1 << 50, (1 << 50) + rows, dtype=np.uint64),
            "file": np.full(rows, manifest.files.height, np.int32),
            "file_block": np.arange(rows, dtype=np.int32),
        },
        schema=BLOCKS_SCHEMA,
    )
    archive = pl.DataFrame(
        [("/srv/archive", rows * BLOCK, "regular", None)], schema=manifest.files.schema, orient="row"
    )
    return dataclasses.replace(
        manifest,
        disk_bytes=manifest.disk_bytes + rows * BLOCK,
        blocks=pl.concat([manifest.blocks, more]),
        files=pl.concat([manifest.files, archive]),
    )


DISK = long_disk(MACHINE.manifests[0])


def in_pieces(manifest, blocks=1024):
    return LargeManifest(
        manifest.disk_bytes, manifest.files, manifest.partitions, lambda: manifest.blocks.iter_slices(blocks)
    )


class TestLargeManifest:
    def test_what_was_saved_is_read_piece_by_piece(self, tmp_path):
        DISK.save(tmp_path / "disk.parquet")
        found = LargeManifest.scan(tmp_path / "disk.parquet", piece_blocks=1024)
        pieces = list(found.pieces())
        assert [(first, blocks.height) for first, blocks in pieces] == [(0, 1024), (1024, 1024), (2048, 1024)]
        assert found.whole().equals(DISK)
        assert [first for first, _ in found.pieces()] == [0, 1024, 2048]  # as often as it is asked

    @pytest.mark.parametrize(
        ("blocks", "message"),
        [
            (DISK.blocks[:2048], "expected 3072 blocks for a disk of .* got 2048"),
            (DISK.blocks.with_columns(content=pl.lit(None, pl.UInt64)), "row 0: 'content' is missing"),
            (DISK.blocks.with_columns(file=pl.lit(99, pl.Int32)), "is not a row of the"),
            (DISK.blocks.drop("content"), "blocks: expected columns"),
        ],
    )
    def test_blocks_that_do_not_fit_are_refused(self, blocks, message):
        manifest = in_pieces(dataclasses.replace(DISK))
        wrong = dataclasses.replace(manifest, read_pieces=lambda: blocks.iter_slices(1024))
        with pytest.raises(ManifestError, match=message):
            list(wrong.pieces())

    def test_pieces_end_where_cache_blocks_do(self):
        with pytest.raises(ManifestError, match="pieces of a multiple of 1024 blocks, got 1000 from block 0"):
            list(in_pieces(DISK, 1000).pieces())

    def test_no_manifest(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="expected a saved manifest"):
            LargeManifest.scan(tmp_path / "none.parquet")
        pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other.parquet")
        with pytest.raises(ManifestError, match="no saved manifest"):
            LargeManifest.scan(tmp_path / "other.parquet")


class TestPlansInPieces:
    def test_a_plan_is_the_same_in_pieces(self, model):
        whole = vr.make_plan(model, DISK)
        assert whole.first_set.size
        assert np.array_equal(vr.make_plan(model, in_pieces(DISK)).first_set, whole.first_set)

    def test_so_it_is_for_a_machine_whose_past_is_known(self, model):
        known = long_disk(OTHERS[0].manifests[0])
        whole = vr.make_plan(model, known)
        assert np.array_equal(vr.make_plan(model, in_pieces(known)).first_set, whole.first_set)

    def test_disks_of_both_kinds_stand_side_by_side(self, model):
        plan = vr.make_plan(model, [in_pieces(DISK), MACHINE.manifests[0]])
        assert plan.disk_bytes == (DISK.disk_bytes, MACHINE.manifests[0].disk_bytes)
        assert np.array_equal(plan.first_set, vr.make_plan(model, [DISK, MACHINE.manifests[0]]).first_set)

    def test_others_look_at_whole_disks(self):
        predictor = make_predictor("first_access_by_path").fit(OTHERS)
        with pytest.raises(PredictError, match=r"expected a Manifest, for .* looks at whole disks"):
            vr.make_plan(predictor, in_pieces(DISK))


class TestWhatIsNotLookedAt:
    def test_files_that_are_hardly_read_leave_the_others_as_they_are(self, model, monkeypatch):
        asked = vr.LearnedPredictor.score_blocks(model, DISK)
        monkeypatch.setattr(asked_disk, "UNLIKELY", 0.0)
        everything = model.score_blocks(dataclasses.replace(DISK))
        looked_at = asked["first_read_ns"].is_not_null()
        assert asked.filter(looked_at).equals(everything.filter(looked_at))
        monkeypatch.setattr(asked_disk, "UNLIKELY", 1.0)
        nothing = model.score_blocks(dataclasses.replace(DISK))
        assert nothing["probability"].sum() == 0

    def test_what_the_machine_itself_has_read_is_looked_at_whatever_others_say(self, model, monkeypatch):
        monkeypatch.setattr(asked_disk, "UNLIKELY", 1.0)
        boot = OTHERS[0]
        scores = model.score_blocks(dataclasses.replace(boot.manifests[0]))
        read = np.unique(boot.trace.frame["offset"].to_numpy() // BLOCK)
        assert (scores["probability"].to_numpy()[read] > 0.5).all()


def late_machine(vm, seed):
    """As `small_machine`, but ten seconds after the boot a client asks for some of the other files."""
    made = []
    for boot in small_machine(vm, seed):
        frame, manifest = boot.trace.frame, boot.manifests[0]
        done = frame["completed_ns"].max() + MILLISECOND
        requests = list(frame.select("issued_ns", "op", "disk", "offset", "length").iter_rows())
        later = manifest.files.with_row_index().filter(
            pl.col("path").str.contains("/shared(05|11|17|23|29|35)x/")
        )["index"]
        for order, file in enumerate(later):
            first = manifest.blocks["file"].index_of(file)
            length = manifest.files["size"][file]
            requests.append((done + (10_000 + order) * MILLISECOND, "read", 0, first * BLOCK, length))
        made.append(boot_of(manifest, requests, vm=boot.vm, boot=boot.boot, boot_done_ns=done))
    return tuple(made)


@pytest.fixture(scope="module")
def late_model():
    return vr.LearnedPredictor().fit([boot for n in range(5) for boot in late_machine(f"vm{n}", n)])


class TestMinuteAfter:
    @staticmethod
    def read_after(boot):
        done = boot.trace.metadata.marks["boot_done_ns"]
        at = boot.trace.frame.filter(pl.col("issued_ns") > done)
        blocks = [range(o // BLOCK, (o + n) // BLOCK) for o, n in at.select("offset", "length").iter_rows()]
        return np.isin(np.arange(boot.manifests[0].blocks.height), np.concatenate(blocks))

    def test_what_is_read_after_the_boot_is_expected_then_and_not_before(self, late_model):
        boot = late_machine("new", 9)[0]
        after, before = (
            late_model.score_minute_after(boot.manifests[0]),
            late_model.score_blocks(boot.manifests[0]),
        )
        assert after.schema == before.schema
        assert after.height == boot.manifests[0].blocks.height
        read = self.read_after(boot)
        chance, early = after["probability"].to_numpy(), before["probability"].to_numpy()
        assert chance[read].mean() > 0.7
        assert chance[~read].mean() < 0.1
        assert early[read].mean() < 0.2
        done = boot.trace.metadata.marks["boot_done_ns"]
        times = after["first_read_ns"].to_numpy()[read & (chance > 0.5)]
        assert np.median(times) == pytest.approx(done + 10e9, abs=5e9)

    def test_an_own_past_tells_it_of_what_is_unchanged(self, late_model):
        boot = late_machine("vm1", 1)[0]
        chance = late_model.score_minute_after(boot.manifests[0])["probability"].to_numpy()
        assert np.array_equal(chance == 1, self.read_after(boot))

    def test_nothing_is_expected_where_nothing_was_recorded(self):
        late_model = vr.LearnedPredictor(max_iter=5).fit(OTHERS)
        assert late_model.after_classifier_ is None
        assert late_model.score_minute_after(DISK)["probability"].sum() == 0

    def test_it_is_saved_with_the_model(self, late_model, tmp_path):
        from vmrestorekit.predict.saved_model import load_model, save_model

        save_model(late_model, tmp_path / "model.npz", trained_on=late_machine("vm1", 1))
        again = load_model(tmp_path / "model.npz")
        manifest = late_machine("new", 9)[0].manifests[0]
        assert again.score_minute_after(manifest).equals(late_model.score_minute_after(manifest))
