"""What is observed, and how it is taught: nobody is described by what it, or its lineage, said; SYNTHETIC."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_boots import BLOCK, MILLISECOND, boot_of, manifest_of

from vmrestorekit.predict import examples as examples_module
from vmrestorekit.predict import file_reads
from vmrestorekit.predict.block_features import FEATURES, BlockEvidence, block_features
from vmrestorekit.predict.description import BLOCK_FEATURES, FILE_KEYS, KEYS, describe_disk
from vmrestorekit.predict.evidence import Evidence
from vmrestorekit.predict.examples import Examples, draw_examples
from vmrestorekit.predict.file_reads import FIRST_ROUND, FileReads, spread_to_blocks
from vmrestorekit.predict.lessons import (
    FOLDS,
    folds_of,
    lessons,
    parts_of_blocks,
    parts_of_files,
    reads_of_files,
)
from vmrestorekit.predict.observations import (
    CLOCK_POINTS,
    Observation,
    boots_by_machine,
    observe,
    reads_of,
    usual_boots,
    usual_clock,
)
from vmrestorekit.predict.observed import PredictError

MACHINES = "abcde"
READ, UNREAD = (0.25, 0.5, 1.0), 0.0


@functools.cache
def disk_of(number):
    """A disk of 12 files that all have, some with own contents, two of its own, and blocks of no file."""
    shared = [(f"/usr/lib/branch{chr(97 + at)}/x/lib{chr(97 + at)}.so", at) for at in range(12)]
    own = [(f"/opt/m{chr(97 + number)}/data{chr(97 + at)}", 100 * number + at) for at in range(2)]
    content, files = [], []
    for path, identity in shared + own:
        changed = 1000 * (number + 1) if identity % 4 == number % 4 else 0
        files.append((path, len(content), 4))
        content += [1 + 10 * identity + block + changed for block in range(4)]
    return describe_disk(manifest_of([*content, 0, 9001, 9002, 9003 + number], files))


def observation_of(number, lineage, release="", roles=(), seed=0):
    """A machine that reads half of what it has; sums of its rates and times are exact."""
    described = disk_of(number)
    drawn = np.random.default_rng(seed)
    size = described.block.size
    rate = np.where(drawn.random(size) < 0.5, drawn.choice(READ, size), UNREAD)
    when = np.where(rate > 0, drawn.integers(0, 64, size) / 64, np.nan)
    return Observation(
        *(MACHINES[number], lineage, release, frozenset(roles), 0, described),
        rate.astype(np.float32),
        when.astype(np.float32),
        np.zeros(size, np.float32),
    )


def with_other_reads(observation, seed=1):
    """The same blocks read, but in other shares of the boots and at other times."""
    drawn = np.random.default_rng(seed)
    rate = np.select([observation.rate == each for each in READ], np.roll(READ, 1), UNREAD)
    when = np.where(rate > 0, drawn.integers(64, 128, rate.size) / 64, np.nan)
    return dataclasses.replace(observation, rate=rate.astype(np.float32), when=when.astype(np.float32))


DESCRIPTIONS = st.lists(
    st.tuples(
        st.sampled_from(["l1", "l2", "l3"]),
        st.sampled_from(["", "Debian 12", "Debian 13"]),
        st.sets(st.sampled_from(["web", "db"])),
    ),
    min_size=2,
    max_size=len(MACHINES),
)


def observations_of(descriptions):
    return [observation_of(number, *about, seed=number) for number, about in enumerate(descriptions)]


def shown(observations):
    """The features of all blocks in each lesson."""
    taught = list(lessons(observations))
    evidence = Evidence.of(parts_of_blocks(observations), KEYS)
    nothing_of_files = [
        np.zeros(observations[lesson.number].described.first_rows.size, np.float32) for lesson in taught
    ]
    drawn = draw_examples(observations, taught, evidence, nothing_of_files, most=10**6, seed=0)
    sizes = []
    for lesson in taught:
        asked = folds_of([observations[lesson.number]], 0, slice(None)) == lesson.branches
        size = observations[lesson.number].rate.size
        sizes.append(size if lesson.branches is None else np.count_nonzero(asked))
    assert sum(sizes) == drawn.rate.size
    return taught, np.split(drawn.features, np.cumsum(sizes)[:-1])


class TestLessons:
    @settings(max_examples=100, deadline=None)
    @given(DESCRIPTIONS)
    def test_nobody_is_described_by_its_lineage_and_each_view_leaves_more_out(self, descriptions):
        observations = observations_of(descriptions)
        taught = list(lessons(observations))
        everyone = set(MACHINES[: len(observations)])
        several = len({each.lineage for each in observations}) > 1
        assert [lesson.number for lesson in taught] == sorted(lesson.number for lesson in taught)
        for number, own in enumerate(observations):
            views = [lesson for lesson in taught if lesson.number == number]
            if not several:
                assert [view.branches for view in views] == [None, *range(FOLDS)]
                continue
            lineage = {each.vm for each in observations if each.lineage == own.lineage}
            release = {each.vm for each in observations if own.release and each.release == own.release}
            role = {each.vm for each in observations if each.roles & own.roles}
            expected = [lineage, *(lineage | left_out for left_out in (release, role) if left_out)]
            assert [set(view.without) for view in views] == [each for each in expected if each != everyone]
            assert {view.branches for view in views} == {None}
            assert views[0].weight == 1
            assert {view.weight for view in views[1:]} <= {0.5}

    @settings(max_examples=12, deadline=None)
    @given(DESCRIPTIONS.filter(lambda all_of: len({about[0] for about in all_of}) > 1), st.data())
    def test_what_a_machine_reads_is_shown_to_other_lineages_only(self, descriptions, data):
        observations = observations_of(descriptions)
        changed = data.draw(st.integers(0, len(observations) - 1))
        name, lineage = observations[changed].vm, observations[changed].lineage
        others = [with_other_reads(each) if each.vm == name else each for each in observations]
        taught, before = shown(observations)
        again, after = shown(others)
        assert again == taught
        for lesson, one, other in zip(taught, before, after, strict=True):
            same = np.array_equal(one, other, equal_nan=True)
            if observations[lesson.number].lineage == lineage:
                assert same
            else:
                assert same == (name in lesson.without)

    def test_alone_each_is_shown_with_all_evidence_and_with_each_group_of_branches_hidden(self):
        observations = [observation_of(number, "same", seed=number) for number in range(2)]
        for hidden in range(FOLDS):
            others = []
            for each in observations:
                here = folds_of([each], 0, slice(None)) == hidden
                assert 0 < np.count_nonzero(here) < here.size
                changed = with_other_reads(each)
                rate, when = (
                    np.where(here, getattr(changed, of), getattr(each, of)) for of in ("rate", "when")
                )
                others.append(dataclasses.replace(each, rate=rate, when=when))
            for lesson, one, other in zip(*shown(observations), shown(others)[1], strict=True):
                same = np.array_equal(one, other, equal_nan=True)
                if lesson.branches in (None, hidden):  # of the other groups both are shown
                    assert same == (lesson.branches == hidden)

    def test_alone_evidence_of_all_other_branches_stays(self):
        observations = [observation_of(number, "same", seed=number) for number in range(2)]
        evidence = Evidence.of(parts_of_blocks(observations), KEYS)
        for lesson in lessons(observations):
            own = observations[lesson.number]
            rows = evidence.rows(own.described.keys)
            of_file = own.described.file >= 0
            hidden = folds_of([own], 0, slice(None)) == lesson.branches
            for kind in ("place", "file", "branch"):
                told = evidence.without(lesson.without)[kind][rows[kind]][:, 0]
                assert ((told > 0) == (of_file & ~hidden)).all()

    def test_blocks_of_a_branch_are_hidden_together(self):
        [observation] = [observation_of(0, "same")]
        folds = folds_of([observation], 0, slice(None))
        branch = observation.described.keys["branch"]
        for key in np.unique(branch[branch != 0]):
            assert np.unique(folds[branch == key]).size == 1
        assert set(folds.tolist()) == set(range(FOLDS))

    def test_with_three_lineages_a_fold_is_a_lineage(self):
        observations = observations_of([(lineage, "", ()) for lineage in ("x", "y", "x", "z")])
        folds = [np.unique(folds_of(observations, number, slice(None))).tolist() for number in range(4)]
        assert folds == [[0], [1], [0], [2]]
        few = observations[:3]
        assert len(np.unique(folds_of(few, 0, slice(None)))) == FOLDS

    def test_what_is_said_of_a_file_is_said_of_its_first_row(self):
        disk = describe_disk(manifest_of([1, 2, 3, 4, 5, 6], [("/a", 0, 2), ("/b", 2, 2)]))
        assert disk.block.tolist() == [4, 5, 0, 1, 2, 3]
        rate = np.array([1, 1, 0, 0.5, 0, 0], np.float32)
        when = np.array([0.1, 0.2, np.nan, 0.3, np.nan, np.nan], np.float32)
        observation = Observation("a", "l", "", frozenset(), 0, disk, rate, when, 0 * rate)
        other = dataclasses.replace(observation, vm="b", lineage="m", when=np.where(rate, when / 2, when))
        np.testing.assert_array_equal(reads_of_files(observation), np.float32([[0.5, 0], [0.3, np.nan]]))
        evidence = Evidence.of(parts_of_files([observation, other]), FILE_KEYS)
        found = evidence.tables["file"].without({"b"})[evidence.rows(disk.keys)["file"]]
        np.testing.assert_array_equal(
            found, [[0, np.nan, np.nan]] * 2 + [np.float32([1, 0.5, 0.3])] * 2 + [[1, 0, np.nan]] * 2
        )
        empty = describe_disk(manifest_of([0]))
        none = rate[:0]
        nothing = dataclasses.replace(observation, described=empty, rate=none, when=none, after=none)
        assert [column.size for column in reads_of_files(nothing)] == [0, 0]

    def test_only_who_read_anything_of_a_file_is_heard_of_its_places(self):
        disk = describe_disk(manifest_of([1, 2, 3, 4], [("/a", 0, 2), ("/b", 2, 2)]))
        rate, when = np.array([1, 0, 0, 0], np.float32), np.array([0.5, np.nan, np.nan, np.nan], np.float32)
        reads_a = Observation("one", "l", "", frozenset(), 0, disk, rate, when, 0 * rate)
        reads_nothing = dataclasses.replace(reads_a, vm="two", lineage="m", rate=0 * rate, when=when * np.nan)
        evidence = Evidence.of(parts_of_blocks([reads_a, reads_nothing]), KEYS)
        rows = evidence.rows(disk.keys)
        heard, all_heard = (evidence.tables[key].without()[rows[key]] for key in ("read_place", "place"))
        np.testing.assert_array_equal(heard[:, :2], [[1, 1], [1, 0], [0, np.nan], [0, np.nan]])
        np.testing.assert_array_equal(all_heard[:, :2], [[2, 0.5], [2, 0], [2, 0], [2, 0]])


def test_neighbours_are_those_of_the_same_file():
    """Of file /b nothing is known but that its first block was read, of /a that none was."""
    disk = describe_disk(manifest_of(range(1, 9), [("/a", 0, 3), ("/b", 3, 5)]))
    nothing = np.full((8, 3), np.nan, np.float32)
    rate = np.array([0, np.nan, 0, 1, np.nan, 0, np.nan, np.nan], np.float32)
    content = np.column_stack([np.ones(8), rate, rate]).astype(np.float32)
    found = dict.fromkeys(KEYS, nothing) | {"content": content}
    rows = dict.fromkeys(KEYS, np.arange(8, dtype=np.int32))
    x = block_features(disk, BlockEvidence(disk, rows, found), np.zeros((8, 2), np.float32), slice(None))
    named = dict(zip(FEATURES, x.T, strict=True))
    nan = np.nan
    np.testing.assert_array_equal(named["rate_within_2"], [0, 0, 0, 0.5, 0.5, 0.5, 0, 0])
    np.testing.assert_array_equal(named["rate_within_8"], [0, 0, 0, *[0.5] * 5])
    np.testing.assert_array_equal(named["place_rate_within_8"], [nan] * 8)
    # a place that is known fills in for contents that are not, but never overrules those that are
    place = np.full((8, 3), 0.25, np.float32)
    x = block_features(
        *(disk, BlockEvidence(disk, rows, found | {"place": place})),
        *(np.zeros((8, 2), np.float32), slice(None)),
    )
    named = dict(zip(FEATURES, x.T, strict=True))
    np.testing.assert_allclose(named["rate_within_8"], [0.25 / 3] * 3 + [1.75 / 5] * 5, rtol=1e-6)
    np.testing.assert_array_equal(named["place_rate_within_8"], [0.25] * 8)


class FakeTrees:
    """Answers with the weighted share of what it was taught, and tells what that was."""

    taught: list

    @classmethod
    def classify(cls, x, read, weight, **settings):
        made = cls()
        made.share = float((read * weight).sum() / weight.sum())
        cls.taught.append((x, read, weight))
        return made

    def chances(self, x):
        return np.full(x.shape[0], self.share, np.float32)


@pytest.fixture
def fake_trees(monkeypatch):
    monkeypatch.setattr(FakeTrees, "taught", [], raising=False)
    monkeypatch.setattr(file_reads, "Trees", FakeTrees)
    return FakeTrees


def reading_files(number, lineage, share, seed=0):
    """A machine of which so many files are read, from start to end, in every boot."""
    described = disk_of(number)
    read = np.random.default_rng(seed).random(described.file_count) < share
    rate = np.append(read, False)[described.file].astype(np.float32)
    return Observation(
        *(MACHINES[number], lineage, "", frozenset(), 0, described),
        rate,
        np.where(rate > 0, 0.5, np.nan).astype(np.float32),
        np.zeros_like(rate),
    )


class TestFileReads:
    LINEAGES = ("x", "y", "z", "x")

    def learned(self, observations):
        taught = list(lessons(observations))
        return taught, FileReads.learn(observations, taught, seed=0)[1]

    def test_answers_do_not_depend_on_what_the_own_lineage_read(self, fake_trees, monkeypatch):
        monkeypatch.setattr(file_reads, "UNREAD_SHARE", 1.1)  # who is asked must not depend on it either
        observations = [reading_files(at, name, 0.5, at) for at, name in enumerate(self.LINEAGES)]
        taught, before = self.learned(observations)
        others = [reading_files(0, "x", 0.9, 7), *observations[1:]]
        after = self.learned(others)[1]
        for lesson, one, other in zip(taught, before, after, strict=True):
            assert np.array_equal(one, other) == (observations[lesson.number].lineage == "x")

    def test_nor_do_the_features_of_its_files(self, fake_trees):
        observations = [reading_files(at, name, 0.5, at) for at, name in enumerate(self.LINEAGES)]
        others = [*observations[:3], reading_files(3, "x", 0.9, 7)]
        for number in range(4):
            changed = []
            for those in (observations, others):
                evidence = Evidence.of(parts_of_files(those), FILE_KEYS)
                lesson = next(each for each in lessons(those) if each.number == number)
                changed.append(file_reads.file_features(those[number].described, evidence, lesson.without))
            assert np.array_equal(*changed, equal_nan=True) == (self.LINEAGES[number] == "x")
            assert changed[0].shape[1] == len(FIRST_ROUND)

    def test_files_that_were_not_read_stand_for_those_that_are_not_asked(self, fake_trees, monkeypatch):
        monkeypatch.setattr(file_reads, "FEWEST_UNREAD", 0)
        monkeypatch.setattr(file_reads, "UNREAD_SHARE", 0.3)
        observations = [reading_files(at, name, 0.5, at) for at, name in enumerate(self.LINEAGES)]
        taught, _ = self.learned(observations)
        x, read, weight = fake_trees.taught[FOLDS]  # the model of the first round that sees all
        files = sum(observations[lesson.number].described.first_rows.size for lesson in taught)
        count = sum((reads_of_files(observations[lesson.number])[0] > 0).sum() for lesson in taught)
        assert np.count_nonzero(read) == count
        assert (weight > 0).all()
        np.testing.assert_allclose(weight[read], 1)
        np.testing.assert_allclose(weight[~read], 1 / file_reads.UNREAD_SHARE, rtol=1e-6)
        assert 0.4 * (files - count) < weight[~read].sum() < 1.7 * (files - count)
        assert x.shape[1] == len(FIRST_ROUND)

    def test_of_few_files_all_are_asked(self, fake_trees):
        self.learned([reading_files(at, name, 0.5, at) for at, name in enumerate(self.LINEAGES)])
        _, _, weight = fake_trees.taught[FOLDS]
        np.testing.assert_allclose(weight, 1)

    def test_alone_only_files_of_the_hidden_branches_are_asked(self, fake_trees, monkeypatch):
        monkeypatch.setattr(file_reads, "UNREAD_SHARE", 1.1)
        observation = reading_files(0, "x", 0.5)
        taught, answers = self.learned([observation])
        _, _, weight = fake_trees.taught[FOLDS]
        files = observation.described.first_rows.size
        assert [answer.size for answer in answers] == [files] * len(taught) == [files] * 4
        # once each with all evidence, once each with its branch hidden
        assert weight.size == 2 * files

    def test_real_trees_do_not_remember_a_lineage_by_its_files(self):
        """Each machine's files tell themselves apart by their size, and are read by chance."""
        drawn = np.random.default_rng(3)
        observations = []
        for number, lineage in enumerate("xyz"):
            files = [(f"/opt/{lineage * 3}/f{at:03x}.bin", at, 1) for at in range(300)]
            described = describe_disk(manifest_of(drawn.integers(1, 2**62, 300), files))
            # all blocks at addresses of their own: the only thing that differs is the path
            rate = (drawn.random(300) < 0.5).astype(np.float32)
            when = np.where(rate > 0, 0.5, np.nan).astype(np.float32)
            observations.append(
                Observation(MACHINES[number], lineage, "", frozenset(), 0, described, rate, when, 0 * rate)
            )
        taught = list(lessons(observations))
        model, answers = FileReads.learn(observations, taught, seed=0)
        for lesson, answer in zip(taught, answers, strict=True):
            read = reads_of_files(observations[lesson.number])[0] > 0
            assert abs(answer[read].mean() - answer[~read].mean()) < 0.1
        told = model.predict(observations[0].described)
        assert told.shape == (300,)
        assert ((told >= 0) & (told <= 1)).all()

    def test_probabilities_are_spread_to_the_blocks_of_a_file_and_to_what_it_uses(self):
        disk = describe_disk(manifest_of([1, 2, 3, 0, 4, 5], [("/a", 0, 2), ("/z", 3, 1), ("/b", 4, 2)]))
        disk = dataclasses.replace(disk, edges=np.array([[0, 2]], np.int32))
        found = spread_to_blocks(disk, np.array([0.5, 0.25], np.float32))
        nan = np.nan
        expected = [[nan, nan], [0.5, 0], [0.5, 0], [0.25, 0.49], [0.25, 0.49]]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


class TestExamples:
    LINEAGES = ("x", "y", "x")

    def drawn(self, rates, most, seed=0):
        observations = []
        for number, (lineage, rate) in enumerate(zip(self.LINEAGES, rates, strict=True)):
            when = np.where(rate > 0, 0.5, np.nan).astype(np.float32)
            observations.append(
                Observation(
                    MACHINES[number],
                    lineage,
                    "",
                    frozenset(["web"]),
                    0,
                    disk_of(number),
                    rate,
                    when,
                    0 * rate,
                )
            )
        # everyone has the one role: views by role would leave nobody
        taught = [dataclasses.replace(each, weight=1 + each.number) for each in lessons(observations)]
        assert len(taught) == len(observations)
        files = [np.zeros(each.described.first_rows.size, np.float32) for each in observations]
        evidence = Evidence.of(parts_of_blocks(observations), KEYS)
        return draw_examples(observations, taught, evidence, files, most, seed)

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=3, max_size=3), st.integers(1, 80))
    def test_weights_add_up_to_the_blocks_however_few_are_drawn(self, shares, most):
        drawn = np.random.default_rng(most)
        rates = [
            np.where(drawn.random(disk_of(at).block.size) < share, drawn.choice(READ), 0).astype(np.float32)
            for at, share in enumerate(shares)
        ]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(examples_module, "FEWEST", 2)
            found = self.drawn(rates, most)
        each = max(most // 6, 2)
        assert found.rate.size == sum(
            min(each, np.count_nonzero(rate)) + min(each, np.count_nonzero(rate == 0)) for rate in rates
        )
        assert found.rate.size <= max(most, 12)
        for answer in (True, False):
            expected = sum((1 + at) * np.count_nonzero((rate > 0) == answer) for at, rate in enumerate(rates))
            np.testing.assert_allclose(found.weight[(found.rate > 0) == answer].sum(), expected, rtol=1e-5)
        assert found.features.shape == (found.rate.size, len(FEATURES))
        np.testing.assert_array_equal(np.isnan(found.when), found.rate == 0)

    def test_each_block_has_the_features_of_its_own_lesson(self):
        rates = [np.full(disk_of(at).block.size, 1.0, np.float32) for at in range(3)]
        found = np.split(self.drawn(rates, 10**6).features, 3)
        address = FEATURES.index("address")
        for number, lineage in enumerate(self.LINEAGES):
            own = disk_of(number)
            others = [disk_of(at) for at in range(3) if self.LINEAGES[at] != lineage]
            met = {
                kind: sum(
                    np.isin(own.keys[kind], other.keys[kind]) & (own.keys[kind] != 0) for other in others
                )
                for kind in KEYS
            }
            order = np.argsort(own.block)
            x = found[number][np.argsort(found[number][:, address])]
            np.testing.assert_array_equal(x[:, : len(BLOCK_FEATURES)], own.features[order])
            for kind in KEYS:
                np.testing.assert_array_equal(x[:, FEATURES.index(f"{kind}_met")], met[kind][order], kind)
            # what is known is that all is read
            np.testing.assert_array_equal(
                x[:, FEATURES.index("place_rate")], np.where(met["place"], 1, np.nan)[order]
            )

    def test_a_lesson_never_has_fewer_than_its_due(self):
        rates = [np.full(disk_of(at).block.size, 1.0, np.float32) for at in range(3)]
        assert self.drawn(rates, most=1).rate.size == sum(rate.size for rate in rates)
        assert all(rate.size < examples_module.FEWEST for rate in rates)

    def test_the_seed_decides_who_is_drawn(self):
        rates = [np.tile([0.0, 1.0], disk_of(at).block.size)[: disk_of(at).block.size] for at in range(3)]
        rates = [rate.astype(np.float32) for rate in rates]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(examples_module, "FEWEST", 5)
            first, same, other = (self.drawn(rates, 1, seed).features for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, same)
        assert not np.array_equal(first, other, equal_nan=True)

    def test_what_some_boots_read_is_an_example_of_both_answers(self):
        rate = np.array([0, 0.25, 1], np.float32)
        when = np.array([np.nan, 0.5, 0.75], np.float32)
        column, weights = np.arange(3, dtype=np.float32)[:, None], np.array([8, 4, 2], np.float32)
        made = Examples(column, rate, when, 0 * rate, weights)
        x, read, weight = made.of_reading()
        found = sorted(zip(x[:, 0].tolist(), read.tolist(), weight.tolist(), strict=True))
        assert found == [(0, False, 8), (1, False, 3), (1, True, 1), (2, True, 2)]
        x, y, weight = made.of_time()
        assert (x.tolist(), y.tolist(), weight.tolist()) == ([[1]], [0.5], [4])


def read(block, at, count=1, disk=0):
    return (at * MILLISECOND, "read", disk, block * BLOCK, count * BLOCK)


def boots_that_follow(*follows):
    disk = manifest_of([1])
    return [
        dataclasses.replace(boot_of(disk, [], boot=f"boot-{at + 1}"), follows=what)
        for at, what in enumerate(follows)
    ]


class TestObservations:
    @pytest.mark.parametrize(
        ("follows", "usual"),
        [
            (["build", "shutdown", "crash", "shutdown"], [1, 2, 3]),
            (["build", "shutdown", "change", "shutdown", "crash"], [3, 4]),
            (["build", "change", "shutdown", "change"], [3]),
            (["change", "build"], [1]),
            (["build"], [0]),
            (["", "", ""], [0, 1, 2]),
            (["shutdown", "crash"], [0, 1]),
            (["", "change", ""], [2]),
        ],
    )
    def test_usual_boots_are_those_since_the_last_change(self, follows, usual):
        boots = boots_that_follow(*follows)
        assert [boot.boot for boot in usual_boots(boots)] == [f"boot-{at + 1}" for at in usual]

    DISKS = (manifest_of([1, 2, 0, 4, 5], [("/a", 3, 2)]), manifest_of([7, 8]))
    # order of first reads of the first boot: 3 and 4 at once, then 0 of the second disk, then 0
    FIRST = boot_of(DISKS, [read(3, 10, 2), read(0, 20, disk=1), read(0, 30), read(3, 40)], vm="m")
    SECOND = boot_of(DISKS, [read(0, 5), read(2, 6), read(3, 7), read(1, 8)], vm="m", boot="boot-2")

    def test_shares_and_places_of_first_reads(self):
        about = {"lineage": "image", "release": "Debian 12", "roles": ["web", "db"]}
        last = dataclasses.replace(self.SECOND, description=about)
        first, second = observe([self.FIRST, last])
        assert (first.vm, first.lineage, first.release, first.disk, second.disk) == (
            *("m", "image", "Debian 12"),
            *(0, 1),
        )
        assert first.roles == {"web", "db"}
        assert first.described.block.tolist() == [0, 1, 3, 4]
        assert first.rate.tolist() == [1, 0.5, 1, 0.5]
        # block 0: 3/4 and 0/4; 1: 3/4; 3: 0/4 and 2/4; 4: 0/4
        assert first.when.tolist() == [0.375, 0.75, 0.25, 0]
        assert second.rate.tolist() == [0.5, 0]
        np.testing.assert_array_equal(second.when, np.float32([0.5, np.nan]))
        assert (first.rate.dtype, first.when.dtype) == (np.float32, np.float32)

    def test_boots_before_a_change_do_not_count(self):
        changed = dataclasses.replace(self.SECOND, follows="change")
        after = boot_of(self.DISKS, [read(4, 5)], vm="m", boot="boot-3")
        assert observe([self.FIRST, changed, after])[0].rate.tolist() == [0, 0, 0, 1]
        assert observe([self.FIRST, changed])[0].rate.tolist() == [1, 1, 1, 0]

    def test_a_disk_that_grew(self):
        smaller = boot_of(manifest_of([1, 2]), [read(1, 5)])
        larger = boot_of(manifest_of([1, 2, 3]), [read(2, 5)], boot="boot-2")
        assert observe([smaller, larger])[0].rate.tolist() == [0, 0.5, 0.5]
        assert observe([larger, smaller])[0].rate.tolist() == [0, 0.5]

    def test_a_boot_that_never_ended(self):
        with pytest.raises(PredictError, match="boot_done_ns"):
            observe([boot_of(self.DISKS, [], boot_done_ns=None)])

    def test_machines_in_order_of_names_and_boots_in_their_own(self):
        names = [("z", "boot-2"), ("a", "boot-9"), ("z", "boot-1"), ("a", "boot-1")]
        boots = [boot_of(manifest_of([1]), [], vm=vm, boot=boot) for vm, boot in names]
        found = [[(boot.vm, boot.boot) for boot in own] for own in boots_by_machine(boots)]
        assert found == [[("a", "boot-9"), ("a", "boot-1")], [("z", "boot-2"), ("z", "boot-1")]]

    def test_the_clock_is_the_median_of_the_boots(self):
        disk = manifest_of([1] * 100)
        paces = (1, 2, 9)
        boots = [boot_of(disk, [read(at, at * pace) for at in range(100)]) for pace in paces]
        clock = usual_clock([reads_of(boot) for boot in boots])
        assert clock.shape == (CLOCK_POINTS,)
        np.testing.assert_allclose(clock[:-1], np.arange(100) * 2 * MILLISECOND)
        assert clock[-1] == 99 * 2 * MILLISECOND
        nothing = reads_of(boot_of(disk, []))
        np.testing.assert_array_equal(usual_clock([nothing]), np.zeros(CLOCK_POINTS))
        np.testing.assert_array_equal(usual_clock([*map(reads_of, boots), nothing, nothing]), clock)
