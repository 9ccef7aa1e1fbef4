"""Nothing that is tested is learned from: the splits, on SYNTHETIC machines."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_boots import boot_of, manifest_of
from synthetic_corpus import corpus_of, machine

from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.splits import FOLLOWS, SPLITS, boots_to_test, split_folds, transfer_folds
from vmrestorekit.traces.corpus import Boot, Corpus, RecordedVM

MANIFEST = manifest_of([1])


def boot(vm: str, number: int, follows: str, repeats: str = "") -> Boot:
    made = boot_of(MANIFEST, [], vm=vm, boot=f"boot-{number}")
    return dataclasses.replace(made, follows=follows, repeats=repeats)


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    machines = {}
    for number in range(draw(st.integers(1, 6))):
        name = f"vm{number}"
        follows = draw(st.lists(st.sampled_from(["", "build", "shutdown", "crash", "change"]), max_size=4))
        boots = [boot(name, at, each) for at, each in enumerate(follows)]
        boots += [boot(name, 100 + at, each, f"boot-{at}") for at, each in enumerate(follows) if at % 2]
        description = {
            # a machine may descend from another one of the corpus, or from an image that is not there
            "lineage": draw(st.sampled_from(["", "vm0", "golden"])),
            "release": draw(st.sampled_from(["11", "12", "13"])),
            "roles": draw(
                st.lists(st.sampled_from(["web", "db", "mail"]), min_size=1, max_size=2, unique=True)
            ),
        }
        machines[name] = RecordedVM(name, description, tuple(boots))
    return Corpus(machines)


def folds_of(corpus: Corpus, split: str):
    try:
        return split_folds(corpus, split)
    except PredictError:
        return ()


@settings(max_examples=150, deadline=None)
@given(corpora())
def test_what_is_held_out_is_not_learned_from(corpus):
    of = {
        "lineage": lambda vm: {vm.lineage, vm.name},
        "release": lambda vm: {vm.release},
        "role": lambda vm: set(vm.roles),
    }
    for split, groups in of.items():
        for fold in folds_of(corpus, split):
            train, test = ([corpus[each.vm] for each in boots] for boots in (fold.train, fold.test))
            assert train
            assert test
            known = {name for vm in train for name in (vm.name, vm.lineage)}
            assert not known & {name for vm in test for name in (vm.name, vm.lineage)}
            assert all(fold.name in groups(vm) for vm in test)
            assert not any(fold.name in groups(vm) for vm in train)


@settings(max_examples=100, deadline=None)
@given(corpora())
def test_only_earlier_boots_tell_a_later_one(corpus):
    for fold in folds_of(corpus, "later"):
        (tested,) = fold.test
        boots = corpus[tested.vm].boots
        assert fold.train == boots[: boots.index(tested)]
        assert fold.train


@settings(max_examples=100, deadline=None)
@given(corpora())
def test_one_fit_tells_the_next_boot_of_all_machines(corpus):
    folds = folds_of(corpus, "later_with_others")
    for fold in folds:
        to_go = set()
        for tested in fold.test:
            boots = corpus[tested.vm].boots
            own = tuple(each for each in fold.train if each.vm == tested.vm)
            assert own == boots[: boots.index(tested)]
            assert own
            to_go.add(len(boots) - len(own))
        # as if all were asked on the same day: of no machine is more left out
        (to_go,) = to_go
        for vm in corpus.values():
            assert [each for each in fold.train if each.vm == vm.name] == list(vm.boots[:-to_go])
    if len(corpus) > 1:
        every = {boot for vm in corpus.values() for boot in boots_to_test(vm) if boot is not vm.boots[0]}
        assert {boot for fold in folds for boot in fold.test} == every
        assert len(every) == sum(len(fold.test) for fold in folds)


@settings(max_examples=100, deadline=None)
@given(corpora())
def test_each_boot_that_counts_is_tested_and_no_repeated_one(corpus):
    for split in SPLITS:
        for fold in folds_of(corpus, split):
            assert not any(each.repeats for each in (*fold.train, *fold.test))
            assert all(each.follows in FOLLOWS for each in fold.test)
            assert len(set(fold.train)) == len(fold.train)
            assert not set(fold.train) & set(fold.test)
    lineage = folds_of(corpus, "lineage")
    tested = [each for fold in lineage for each in fold.test]
    assert len(tested) == len(set(tested))


def test_every_machine_is_tested_once_by_lineage():
    corpus = corpus_of(machine("a", lineage="golden"), machine("b", lineage="golden"), machine("c"))
    folds = {fold.name: {each.vm for each in fold.test} for fold in split_folds(corpus, "lineage")}
    assert folds == {"golden": {"a", "b"}, "c": {"c"}}


def test_a_machine_of_the_same_lineage_leaves_training_whatever_its_release_and_role():
    corpus = corpus_of(
        machine("old", release="11", role="web"),
        machine("upgraded", lineage="old", release="12", role="db"),
        machine("other", release="12", role="db"),
    )
    for split, name in (("release", "11"), ("role", "web")):
        (fold,) = (fold for fold in split_folds(corpus, split) if fold.name == name)
        assert {each.vm for each in fold.train} == {"other"}


def test_the_newest_boot_after_each_kind_of_end():
    ends = ["build", "shutdown", "crash", "shutdown", "change", "crash"]
    vm = RecordedVM("vm", {}, tuple(boot("vm", at, each) for at, each in enumerate(ends)))
    assert [each.boot for each in boots_to_test(vm)] == ["boot-1", "boot-2", "boot-3", "boot-5"]
    assert [each.boot for each in boots_to_test(vm, newest=True)] == ["boot-3", "boot-5"]
    assert [each.boot for each in boots_to_test(vm, follows=["build"])] == ["boot-0"]


def test_machines_of_another_corpus_are_strangers():
    learned = corpus_of(machine("a"), machine("b"), machine("clone", lineage="x"))
    other = corpus_of(machine("b", first=0), machine("new", lineage="x"))
    (fold,) = transfer_folds(learned, other)
    assert {each.vm for each in fold.train} == {"a"}
    assert fold.test == other.boots
    with pytest.raises(PredictError, match=r"split transfer: expected machines that .* does not have"):
        transfer_folds(learned, learned)


@pytest.mark.parametrize("split", ["later_with_others", "lineage", "release", "role"])
def test_one_machine_is_too_few(split):
    with pytest.raises(PredictError, match=f"split {split}: expected .*, got <Corpus of 2 boots: a"):
        split_folds(corpus_of(machine("a")), split)


def test_clones_are_one_machine():
    with pytest.raises(PredictError, match="at least two lineages"):
        split_folds(corpus_of(machine("a"), machine("b", lineage="a")), "lineage")


def test_what_is_not_described_cannot_be_held_out():
    corpus = corpus_of(machine("a", release=""), machine("b"))
    with pytest.raises(PredictError, match="a: expected 'release' in its description"):
        split_folds(corpus, "release")
    with pytest.raises(PredictError, match=r"split: expected one of later, .*, got 'earlier'"):
        split_folds(corpus, "earlier")
