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
from vmrestorekit.predict.online import BootSoFar
from vmrestorekit.traces.large_manifest import LargeManifest
from vmrestorekit.traces.manifest import BLOCKS_SCHEMA, Manifest, ManifestError
from vmrestorekit.traces.schema import write_parquet_atomically

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

    @pytest.mark.parametrize("blocks", [0, -1024, 1000])
    def test_pieces_of_no_size(self, tmp_path, blocks):
        DISK.save(tmp_path / "disk.parquet")
        with pytest.raises(ManifestError, match=f"piece_blocks: expected a multiple of 1024, got {blocks}"):
            LargeManifest.scan(tmp_path / "disk.parquet", piece_blocks=blocks)

    @pytest.mark.parametrize("text", ["[]", "null", "5", "{}", '{"disk_bytes": "x", "files": {"path": []}}'])
    @pytest.mark.parametrize("read", [LargeManifest.scan, Manifest.load])
    def test_metadata_that_says_something_else(self, tmp_path, text, read):
        write_parquet_atomically(DISK.blocks, tmp_path / "disk.parquet", {"vmrestorekit.manifest": text})
        with pytest.raises(ManifestError, match=r"disk\.parquet"):
            read(tmp_path / "disk.parquet")

    def test_a_name_with_brackets_is_a_name(self, tmp_path):
        DISK.save(tmp_path / "disk[1].parquet")
        assert LargeManifest.scan(tmp_path / "disk[1].parquet").whole().equals(DISK)
        assert Manifest.load(tmp_path / "disk[1].parquet").equals(DISK)

    def test_a_file_that_goes_away_meanwhile(self, tmp_path):
        DISK.save(tmp_path / "disk.parquet")
        found = LargeManifest.scan(tmp_path / "disk.parquet")
        (tmp_path / "disk.parquet").unlink()
        with pytest.raises(FileNotFoundError, match="expected a saved manifest"):
            list(found.pieces())

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


def looked_at_alike(model, manifest, monkeypatch):
    """Compare scores with those that leave nothing out, where they say more than next to nothing."""
    asked = model.score_blocks(manifest)
    monkeypatch.setattr(asked_disk, "UNLIKELY", 0.0)
    everything = model.score_blocks(dataclasses.replace(manifest))
    more = asked["probability"] > asked_disk.PART_OF_A_FILE * 0.003
    assert more.sum()
    assert asked.filter(more).equals(everything.filter(more))
    assert asked.filter(~more)["probability"].max() < 0.005


class TestWhatIsNotLookedAt:
    @pytest.mark.parametrize("known", [False, True])
    def test_files_that_are_hardly_read_leave_the_others_as_they_are(self, model, monkeypatch, known):
        looked_at_alike(model, long_disk(OTHERS[0].manifests[0]) if known else DISK, monkeypatch)

    def test_of_what_is_never_looked_at_next_to_nothing_is_expected(self, model, monkeypatch):
        monkeypatch.setattr(asked_disk, "UNLIKELY", 1.0)
        nothing = model.score_blocks(dataclasses.replace(DISK))
        assert nothing["probability"].max() <= asked_disk.PART_OF_A_FILE
        of_none = DISK.blocks["file"].is_null() | (DISK.blocks["content"] == 0)
        assert nothing.filter(of_none)["probability"].sum() == 0

    def test_of_too_many_blocks_those_of_the_likeliest_files_are_looked_at(self, model, monkeypatch):
        everything = model.score_blocks(DISK)["probability"].to_numpy()
        monkeypatch.setattr(asked_disk, "MOST_BLOCKS", 60)
        fewer = model.score_blocks(dataclasses.replace(DISK))["probability"].to_numpy()
        kept = fewer > 0.01
        assert 0 < np.count_nonzero(kept) <= 60
        assert np.array_equal(fewer[kept], everything[kept])
        assert everything[kept].mean() > 5 * everything[~kept].mean()

    def test_what_the_machine_itself_has_read_is_looked_at_whatever_others_say(self, model, monkeypatch):
        monkeypatch.setattr(asked_disk, "UNLIKELY", 1.0)
        boot = OTHERS[0]
        scores = model.score_blocks(dataclasses.replace(boot.manifests[0]))
        read = np.unique(boot.trace.frame["offset"].to_numpy() // BLOCK)
        assert (scores["probability"].to_numpy()[read] > 0.5).all()

    def test_wherever_it_lies_by_now(self, model, monkeypatch):
        """A file that the machine reads was written anew, behind all others."""
        manifest = OTHERS[0].manifests[0]
        read = OTHERS[0].trace.frame["offset"].to_numpy() // BLOCK
        file = manifest.blocks["file"][int(read[5])]
        rows = np.flatnonzero(manifest.blocks["file"].fill_null(-1).to_numpy() == file)
        blocks = manifest.blocks.to_dict(as_series=False)
        for at, row in enumerate(rows):
            to = manifest.blocks.height - 20 + at
            for name, nothing in (("content", 0), ("file", None), ("file_block", None)):
                blocks[name][to], blocks[name][row] = blocks[name][row], nothing
        moved = dataclasses.replace(manifest, blocks=pl.DataFrame(blocks, schema=BLOCKS_SCHEMA))
        monkeypatch.setattr(asked_disk, "UNLIKELY", 1.0)
        scores = model.score_blocks(moved)["probability"].to_numpy()
        assert (scores[-20 : -20 + rows.size] > asked_disk.PART_OF_A_FILE).all()

    def test_a_boot_that_reads_it_after_all_expects_more_of_it(self, model, monkeypatch):
        monkeypatch.setattr(asked_disk, "UNLIKELY", 0.9)
        name = "/srv/archive"
        file = DISK.files["path"].index_of(name)
        rows = np.flatnonzero(DISK.blocks["file"].fill_null(-1).to_numpy() == file)
        scores = model.score_blocks(dataclasses.replace(DISK))
        before = scores["probability"].to_numpy()[rows]
        assert 0 < before.max() < 0.02
        boot = BootSoFar([DISK], [scores])
        boot.see([10**8, 2 * 10**8], [0, 0], [int(rows[0]) * BLOCK, int(rows[1]) * BLOCK], [BLOCK, BLOCK])
        after = boot.scores()[0]["probability"].to_numpy()[rows[2:6]]
        assert (after > 5 * before.max()).all()


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


def without_the_minute(boot):
    """The same recording, ended with the boot."""
    done = boot.trace.metadata.marks["boot_done_ns"]
    frame = boot.trace.frame.filter(pl.col("issued_ns") <= done)
    requests = list(frame.select("issued_ns", "op", "disk", "offset", "length").iter_rows())
    return boot_of(boot.manifests[0], requests, vm=boot.vm, boot=boot.boot, boot_done_ns=done)


class TestMinuteAfter:
    def test_a_recording_that_ends_with_the_boot_says_nothing_of_it(self, late_model):
        boots = [boot for n in range(5) for boot in late_machine(f"vm{n}", n)]
        short = [without_the_minute(boot) for boot in late_machine("short", 7)]
        model = vr.LearnedPredictor().fit([*boots, *short])
        chance = model.score_minute_after(short[0].manifests[0])["probability"].to_numpy()
        read = self.read_after(late_machine("short", 7)[0])
        assert chance[read].mean() > 0.7
        assert chance[~read].mean() < 0.1

    def test_it_goes_on_with_later_boots(self):
        first, second = late_machine("vm1", 1)
        others = [boot for n in (0, 2, 3) for boot in late_machine(f"vm{n}", n)]
        model = vr.LearnedPredictor(max_iter=20).fit([*others, without_the_minute(first)])
        model.partial_fit(second)
        chance = model.score_minute_after(second.manifests[0])["probability"].to_numpy()
        assert np.array_equal(chance == 1, self.read_after(second))

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
