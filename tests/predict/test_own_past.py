"""What a machine's own past tells of its next boot; SYNTHETIC machines."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from synthetic_boots import BLOCK, MILLISECOND, boot_of, manifest_of, small_machine

from vmrestorekit.predict import past_reads
from vmrestorekit.predict.description import describe_disk
from vmrestorekit.predict.evaluation import recall_by_budget
from vmrestorekit.predict.evidence import EvidenceTable
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.observations import observe
from vmrestorekit.predict.observed import blocks_read
from vmrestorekit.predict.past_reads import PastReads, Told, foretold, machines_to_foretell
from vmrestorekit.predict.relatives import PAST_FEATURES, alike_with, past_features, past_of, relative_of

ALPHA = small_machine("alpha", 1, boots=3)
BETA = small_machine("beta", 2)
GAMMA = small_machine("gamma", 3)
EVERY = slice(None)


def read(block, at, count=1, disk=0):
    return (at * MILLISECOND, "read", disk, block * BLOCK, count * BLOCK)


def changed(manifest, blocks, content=None):
    """The same disk with other contents in some blocks; zeros if told so."""
    values = manifest.blocks["content"].to_numpy().copy()
    values[list(blocks)] = 7_000_000 + np.arange(len(blocks)) if content is None else content
    frame = manifest.blocks.with_columns(content=pl.Series(values, dtype=pl.UInt64))
    return dataclasses.replace(manifest, blocks=frame)


def of_lineage(boots, lineage):
    return tuple(dataclasses.replace(boot, description={"lineage": lineage}) for boot in boots)


def read_in(boot):
    return blocks_read(boot)["block"].to_numpy()


DISK = manifest_of(range(1, 21), [("/a", 0, 8), ("/b", 8, 8)])


class TestPast:
    # 0 to 9 in the first boot, 5 to 9 and 15 in the second, in this order
    FIRST = boot_of(DISK, [read(at, 10 + at) for at in range(10)])
    SECOND = boot_of(DISK, [read(at, 10 + at) for at in (*range(5, 10), 15)], boot="boot-2")
    PAST = past_of([FIRST, SECOND])

    def test_shares_the_last_boot_and_places(self):
        disk = self.PAST.disks[0]
        assert (self.PAST.vm, self.PAST.lineage, self.PAST.boots) == ("synthetic", "synthetic", 2)
        assert disk.block.tolist() == list(range(20))
        assert disk.content.tolist() == list(range(1, 21))
        assert disk.rate.tolist() == [0.5] * 5 + [1] * 5 + [0] * 5 + [0.5] + [0] * 4
        assert disk.last.tolist() == [0] * 5 + [1] * 5 + [0] * 5 + [1] + [0] * 4
        np.testing.assert_allclose(disk.when[[0, 5, 9, 15]], [0, (5 / 10 + 0) / 2, (0.9 + 4 / 6) / 2, 5 / 6])
        assert np.isnan(disk.when[[10, 19]]).all()

    def test_how_much_is_where_it_was(self):
        disk = self.PAST.disks[0]
        assert alike_with(describe_disk(DISK), disk) == 1
        # of 11 blocks that were read two differ and one is gone; what was not read does not count
        now = changed(changed(DISK, [0, 7, 11, 12]), [15], content=0)
        assert alike_with(describe_disk(now), disk) == pytest.approx(8 / 11)
        assert alike_with(describe_disk(changed(DISK, range(20))), disk) == 0
        assert alike_with(describe_disk(manifest_of([0] * 20)), disk) == 0
        nothing = past_of([boot_of(DISK, [])])
        assert alike_with(describe_disk(DISK), nothing.disks[0]) == 0

    def test_rows_of_another_disk(self):
        disk, larger = self.PAST.disks[0], manifest_of([1, 0, 3, 99, *range(5, 21), 40, 41])
        described = describe_disk(larger)
        at = dict(zip(described.block.tolist(), disk.at(described).tolist(), strict=True))
        assert [at[block] for block in (0, 2, 3, 19, 20, 21)] == [0, 2, 3, 19, 20, 20]
        same = dict(zip(described.block.tolist(), disk.unchanged(described).tolist(), strict=True))
        assert [same[block] for block in (0, 2, 3, 19, 20, 21)] == [True, True, False, True, False, False]

    def test_features(self):
        now = changed(DISK, [7])
        described = describe_disk(now)
        told = [np.full(20, value, np.float32) for value in (0.1, 0.2, 0.3)]
        x = past_features(described, self.PAST.disks[0], 2, 0.9, told, EVERY)
        rows = {
            block: dict(zip(PAST_FEATURES, row, strict=True))
            for block, row in zip(described.block.tolist(), x.tolist(), strict=True)
        }
        expected = {"stranger": 0.1, "stranger_when": 0.2, "file_read": 0.3, "boots": 2, "alike": 0.9}
        assert {name: rows[5][name] for name in expected} == pytest.approx(expected)
        seen = {"unchanged": 0, "address_rate": 1, "address_last": 1, "place_rate": 1}
        assert {name: rows[7][name] for name in seen} == seen
        assert rows[6]["unchanged"] == 1
        # nobody ever had this content; the file is that of blocks 0 to 7
        assert np.isnan(rows[7]["content_rate"])
        assert rows[6]["content_rate"] == 1
        assert rows[7]["file_rate"] == pytest.approx((5 * 0.5 + 3) / 8)
        assert (rows[11]["address_rate"], rows[11]["address_last"]) == (0, 0)
        # rows are blocks 16 to 19 of no file, then 0 to 15
        assert rows[10]["around_2"] == pytest.approx(2 / 5)
        assert rows[15]["around_2"] == pytest.approx(0.5 / 3)
        assert np.isnan(rows[16]["around_2"])  # of no file: what is beside it may be anything
        half = past_features(
            described, self.PAST.disks[0], 99, 0.9, [each[:10] for each in told], np.arange(10)
        )
        np.testing.assert_array_equal(half[:, 5:], x[:10, 5:])
        assert set(half[:, PAST_FEATURES.index("boots")]) == {8}


class TestRelative:
    PASTS = tuple(past_of(boots) for boots in (ALPHA, BETA, GAMMA))

    @pytest.mark.parametrize("boots", [ALPHA, BETA, GAMMA])
    def test_a_machine_is_known_again_after_some_of_its_blocks_changed(self, boots):
        needed = read_in(boots[-1])
        now = changed(boots[-1].manifest, needed[: needed.size // 3])
        past, alike = relative_of(describe_disk(now), 0, self.PASTS)
        assert past.vm == boots[0].vm
        assert 0.6 < alike < 0.7

    def test_a_stranger_has_none(self):
        described = describe_disk(small_machine("delta", 4)[0].manifest)
        assert relative_of(described, 0, self.PASTS) is None
        assert relative_of(described, 0, ()) is None

    def test_who_is_alike_in_less_than_half_is_a_stranger(self):
        boot = boot_of(DISK, [read(at, at) for at in range(10)])
        found = [
            relative_of(describe_disk(changed(DISK, range(count))), 0, [past_of([boot])]) for count in (5, 6)
        ]
        assert found[0] is not None
        assert found[0][1] == 0.5
        assert found[1] is None

    def test_of_two_clones_the_right_one(self):
        """Both have the same image; each has since written some blocks of its own, which it reads."""
        needed = read_in(ALPHA[0])
        one, other = needed[:8], needed[8:16]
        first, second = changed(ALPHA[0].manifest, one), changed(ALPHA[0].manifest, other)
        requests = [read(int(block), 10 + at) for at, block in enumerate(needed)]
        pasts = [
            past_of([boot_of(disk, requests, vm=vm)]) for vm, disk in (("first", first), ("second", second))
        ]
        later = needed[-4:]
        for disk, vm in ((first, "first"), (second, "second")):
            for order in (pasts, pasts[::-1]):
                past, alike = relative_of(describe_disk(changed(disk, later)), 0, order)
                assert past.vm == vm
                assert alike == pytest.approx(1 - 4 / needed.size)

    def test_only_disks_of_the_same_number_are_compared(self):
        both = (DISK, manifest_of(range(101, 121)))
        pasts = [past_of([boot_of(both, [read(3, 1), read(4, 2, disk=1)])])]
        second = describe_disk(both[1])
        assert relative_of(second, 1, pasts) is not None
        assert relative_of(second, 0, pasts) is None
        assert relative_of(second, 2, pasts) is None


class TestPastReads:
    def test_without_a_lesson_what_is_as_it_was_is_read_as_it_was(self):
        past = TestPast.PAST
        now = changed(DISK, [1, 7, 12])
        described = describe_disk(now)
        told = Told(*(np.linspace(low, low + 0.1, 20, dtype=np.float32) for low in (0.3, 0.8, 0.5)))
        probability, when = PastReads(None).predict(described, past.disks[0], 2, 0.9, told)
        for row, block in enumerate(described.block.tolist()):
            if block in (1, 7, 12):
                assert probability[row] == told.probability[row], block
            else:
                assert probability[row] == past.disks[0].rate[block], block
            seen = past.disks[0].when[block]
            assert when[row] == (told.when[row] if np.isnan(seen) else seen), block

    def test_times_are_those_of_the_address_else_of_the_content_else_of_the_place(self):
        disk = manifest_of([11, 12, 13, 14, 0, 0, 0, 0], [("/a", 0, 2)])
        past = past_of([boot_of(disk, [read(0, 1), read(1, 2), read(2, 3), read(3, 4)])])
        # /a now lies in blocks 3 to 5
        described = describe_disk(manifest_of([0, 0, 90, 12, 13, 99, 14, 97], [("/a", 3, 2), ("/c", 5, 1)]))
        told = Told(*(np.full(6, value, np.float32) for value in (0.5, 0.9, 0.5)))
        _, when = PastReads(None).predict(described, past.disks[0], 1, 0.9, told)
        found = dict(zip(described.block.tolist(), when.tolist(), strict=True))
        assert found == pytest.approx({2: 0.5, 3: 0.75, 4: 0.5, 5: 0.9, 6: 0.75, 7: 0.9})
        moved = describe_disk(manifest_of([0, 0, 0, 0, 98, 99], [("/a", 4, 2)]))
        _, when = PastReads(None).predict(moved, past.disks[0], 1, 0.9, Told(*(told.when[:2],) * 3))
        assert when.tolist() == pytest.approx([0, 0.25])

    def test_machines_with_one_boot_teach_nothing(self):
        boots = ALPHA[:1]
        assert machines_to_foretell([boots, BETA], seed=0) == {"beta"}
        assert PastReads.learn([], observe(boots), None, seed=0).classifier is None

    def test_so_many_machines_are_drawn(self, monkeypatch):
        monkeypatch.setattr(past_reads, "MACHINES", 2)
        drawn = [machines_to_foretell([ALPHA, BETA, GAMMA], seed) for seed in range(20)]
        assert {len(machines) for machines in drawn} == {2}
        assert len(set(drawn)) == 3
        assert drawn[0] == machines_to_foretell([ALPHA, BETA, GAMMA], seed=0)

    def lessons_of(self, monkeypatch, machines, unread):
        """What the trees are taught, and whom the stranger was told to forget."""
        taught, forgotten = [], []

        class FakeTrees:
            @classmethod
            def classify(cls, x, read, weight, **settings):
                taught.append((x, read, weight))
                return cls()

        def stranger(described, rows, without):
            forgotten.append(without)
            return Told(*(rows.astype(np.float32) for _ in range(3)))

        monkeypatch.setattr(past_reads, "Trees", FakeTrees)
        monkeypatch.setattr(past_reads, "UNREAD", unread)
        observations = [each for boots in machines for each in observe(boots)]
        pasts = [foretold(boots) for boots in machines]
        assert PastReads.learn(pasts, observations, stranger, seed=0).classifier is not None
        [lesson] = taught
        return lesson, forgotten, observations

    def test_the_last_boot_is_foretold_by_those_before_and_by_the_first_alone(self, monkeypatch):
        boots = small_machine("alpha", 1, boots=3)
        (x, read, weight), forgotten, observations = self.lessons_of(monkeypatch, [boots], 20)
        # others are asked once for both pasts; here they answer with the number of the row
        assert forgotten == [{"alpha"}]
        block = observations[0].described.block[x[:, PAST_FEATURES.index("stranger")].astype(int)]
        np.testing.assert_array_equal(read, np.isin(block, read_in(boots[-1])))
        stored = observations[0].described.block.size
        assert sorted(set(x[:, PAST_FEATURES.index("boots")])) == [1, 2]
        # the last boot reads what the first one reads
        assert read.sum() == 2 * read_in(boots[-1]).size
        np.testing.assert_allclose(weight.sum(), 2 * stored, rtol=1e-6)
        # all that was read, now or then, and 20 others each
        either = np.union1d(read_in(boots[0]), read_in(boots[1])).size
        assert weight.size == either + read_in(boots[0]).size + 2 * 20
        assert (weight[read] == 1).all()
        rate = x[:, PAST_FEATURES.index("address_rate")]
        np.testing.assert_array_equal(weight > 1, ~read & (rate == 0))

    def test_two_boots_are_one_lesson(self, monkeypatch):
        (x, read, _), _, _ = self.lessons_of(monkeypatch, [ALPHA[:2]], 20)
        assert read.sum() == read_in(ALPHA[1]).size
        # what only the last boot reads is an example, too
        assert (read & (x[:, PAST_FEATURES.index("address_rate")] == 0)).any()

    def test_others_tell_what_they_would_tell_of_a_stranger(self, monkeypatch):
        machines = [of_lineage(ALPHA[:2], "image"), of_lineage(BETA, "image"), GAMMA]
        _, forgotten, _ = self.lessons_of(monkeypatch, machines, 20)
        assert forgotten == [{"alpha", "beta"}, {"alpha", "beta"}, {"gamma"}]

    def test_a_disk_that_was_added_later_has_no_past(self, monkeypatch):
        more = (DISK, manifest_of(range(31, 41)))
        requests = [read(at, at) for at in range(9)]
        boots = (boot_of(DISK, requests), boot_of(more, [*requests, read(0, 20, disk=1)], boot="boot-2"))
        (x, _, _), _, _ = self.lessons_of(monkeypatch, [boots], 20)
        assert x.shape[0] == 20


def probability_of(predictor, manifest, blocks):
    return predictor.score_blocks(manifest)["probability"].to_numpy()[np.asarray(blocks)]


def restless(vm, seed):
    """Boots of a machine that always reads its programs; its state it writes anew and then does not read."""
    [boot, _] = small_machine(vm, seed)
    needed = read_in(boot)
    state = needed[::4]
    constant = np.setdiff1d(needed, state)
    boots, disk = [], boot.manifest
    for number in range(3):
        if number:
            values = disk.blocks["content"].to_numpy().copy()
            values[state] = 10**9 * seed + 10**6 * number + np.arange(state.size)
            disk = changed(disk, state, values[state])
        wanted = needed if number != 2 else constant
        requests = [read(int(block), 10 + at) for at, block in enumerate(wanted)]
        boots.append(boot_of(disk, requests, vm=vm, boot=f"boot-{number + 1}"))
    return tuple(boots), state, constant


class TestLearnedPredictor:
    @pytest.fixture(scope="class")
    @classmethod
    def with_own_past(cls):
        return LearnedPredictor().fit([*of_lineage(ALPHA, "image"), *of_lineage(BETA, "image"), *GAMMA])

    @pytest.mark.parametrize("boots", [ALPHA, BETA], ids=["alpha", "beta"])
    def test_with_own_boots_and_others_it_tells_nearly_the_last_one(self, with_own_past, boots):
        last = boots[-1]
        assert recall_by_budget(with_own_past, last, [1.0])["recall"][0] > 0.95
        needed = read_in(last)
        others = np.setdiff1d(np.flatnonzero(last.manifest.blocks["content"].to_numpy()), needed)
        assert probability_of(with_own_past, last.manifest, needed).mean() > 0.9
        assert probability_of(with_own_past, last.manifest, others).mean() < 0.1

    @pytest.mark.parametrize(
        ("boots", "left_out"),
        [(ALPHA, {"alpha", "beta"}), (GAMMA, {"gamma"}), (small_machine("delta", 4), set())],
        ids=["alpha", "gamma", "stranger"],
    )
    def test_what_others_tell_is_told_without_the_lineage(self, with_own_past, boots, left_out, monkeypatch):
        tables = [
            *with_own_past.evidence_.tables.values(),
            *with_own_past.file_reads_.evidence.tables.values(),
        ]
        asked = []
        real = EvidenceTable.without

        def spied(table, sources=()):
            if table in tables:
                asked.append(set(sources))
            return real(table, sources)

        monkeypatch.setattr(EvidenceTable, "without", spied)
        with_own_past.score_blocks(changed(boots[-1].manifest, read_in(boots[-1])[:3]))
        assert asked
        assert all(sources == left_out for sources in asked)

    def test_times_are_those_of_its_own_boots(self):
        """It boots ten times as slowly as all others, and from the end to the start."""
        needed = read_in(ALPHA[0])[::-1]
        slow = boot_of(
            ALPHA[0].manifest,
            [read(int(block), 10_000 + 500 * at) for at, block in enumerate(needed)],
            vm="alpha",
        )
        predictor = LearnedPredictor().fit([slow, *BETA, *GAMMA])
        expected = predictor.score_blocks(slow.manifest)["first_read_ns"].to_numpy()[needed]
        seen = np.array([10_000 + 500 * at for at in range(needed.size)]) * MILLISECOND
        np.testing.assert_allclose(expected[:-1], seen[:-1], rtol=0.05)
        stranger = small_machine("delta", 4)[0]
        told = predictor.score_blocks(stranger.manifest)["first_read_ns"].to_numpy()[read_in(stranger)]
        assert told.max() < seen.max() / 2

    def test_one_boot_of_one_machine_is_replayed_where_nothing_changed(self):
        first = ALPHA[0]
        needed = read_in(first)
        predictor = LearnedPredictor().fit(first)
        assert predictor.past_reads_.classifier is None
        stored = np.flatnonzero(first.manifest.blocks["content"].to_numpy())
        others = np.setdiff1d(stored, needed)
        rewritten = np.concatenate([needed[:5], others[:5]])
        now = changed(first.manifest, rewritten)
        np.testing.assert_array_equal(probability_of(predictor, now, needed[5:]), 1)
        np.testing.assert_array_equal(probability_of(predictor, now, others[5:]), 0)
        told = probability_of(predictor, now, rewritten)
        assert ((told > 0) & (told < 1)).all()
        times = predictor.score_blocks(first.manifest)["first_read_ns"].to_numpy()[needed]
        in_order = blocks_read(first)["first_read_ns"].to_numpy()
        # the clock has hundredths: less than from one file to the next
        np.testing.assert_allclose(times, in_order, rtol=0, atol=25 * MILLISECOND)

    def test_what_was_written_anew_is_not_blindly_read_again(self):
        machines = [restless(vm, seed) for vm, seed in (("alpha", 1), ("beta", 2), ("gamma", 3))]
        predictor = LearnedPredictor().fit([boot for boots, _, _ in machines for boot in boots])
        for boots, state, constant in machines:
            now = changed(boots[-1].manifest, state, 5 * 10**9 + np.arange(state.size))
            assert relative_of(describe_disk(now), 0, predictor.pasts_)[0].vm == boots[0].vm
            rewritten = probability_of(predictor, now, state)
            unchanged = probability_of(predictor, now, constant)
            assert unchanged.mean() > 0.9
            assert rewritten.mean() < 0.4
