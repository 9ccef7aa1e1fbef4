"""What a predictor may learn from, and what it is then asked of: the splits of an evaluation.

Four questions, never pooled: a later boot of a machine that is known, a machine that nobody has seen, a
release that nobody has seen, an application that nobody has seen. In the last three the tested machines'
whole lineages are left out: a clone of the golden image is no other machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from vmrestorekit.predict.observed import PredictError
from vmrestorekit.traces.corpus import Boot, Corpus, RecordedVM

__all__ = ["FOLLOWS", "SPLITS", "TRANSFER", "Fold", "boots_to_test", "split_folds", "transfer_folds"]

# what comes before the boots that are tested: a machine that was just built or changed boots in its own way.
# "" is unknown, as in recordings that do not tell
FOLLOWS = ("", "shutdown", "crash")
TRANSFER = "transfer"  # the split of machines from another corpus


@dataclasses.dataclass(frozen=True)
class Fold:
    """One fit, and the boots that it is tested on.

    Attributes
    ----------
    split : str
        A name of `SPLITS`, or `TRANSFER`.
    name : str
        What is held out.
    train, test : tuple of Boot
        The boots of a machine in the order in which they happened.
    """

    split: str
    name: str
    train: tuple[Boot, ...]
    test: tuple[Boot, ...]


def boots_to_test(
    machine: RecordedVM, follows: Iterable[str] = FOLLOWS, newest: bool = False
) -> tuple[Boot, ...]:
    """Return the distinct boots of a machine that came after one of these; a repeated recording never.

    Parameters
    ----------
    machine : RecordedVM
    follows : iterable of str
        As in `TraceMetadata`.
    newest : bool
        Only the last boot after each of these.
    """
    boots = [boot for boot in machine.boots if boot.follows in tuple(follows)]
    if newest:
        last = {boot.follows: boot for boot in boots}
        boots = [boot for boot in boots if last[boot.follows] is boot]
    return tuple(boots)


def split_folds(
    corpus: Corpus, split: str, follows: Iterable[str] = FOLLOWS, newest: bool = False
) -> tuple[Fold, ...]:
    """Return the folds of a split.

    Parameters
    ----------
    corpus : Corpus
    split : {"later", "later_with_others", "lineage", "release", "role"}
        ``later``: each boot of a machine, from its boots before. ``later_with_others``: the last boot of
        every machine, from the boots before these of all machines, and so on backwards. ``lineage``,
        ``release``, ``role``: each of these, from the machines that are not of it, nor of the lineage of a
        machine that is.
    follows, newest
        As in `boots_to_test`.

    Raises
    ------
    PredictError
        If there is no such split, or the corpus has too few machines or boots for it.
    """
    if split not in SPLITS:
        raise PredictError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    tested = {name: boots_to_test(machine, follows, newest) for name, machine in corpus.items()}
    folds = tuple(fold for fold in _FOLDS[split](corpus, tested) if fold.test)
    if not folds:
        raise PredictError(f"split {split}: expected {_NEEDS[split]}, got {corpus!r}")
    return folds


def transfer_folds(
    corpus: Corpus, other: Corpus, follows: Iterable[str] = FOLLOWS, newest: bool = False
) -> tuple[Fold, ...]:
    """Return the fold of a predictor that learns from a whole corpus and is asked of another one's machines.

    Machines of the first corpus that share a name or a lineage with one of the second are left out of
    training, since nobody can tell whether they are the same.

    Raises
    ------
    PredictError
        If no machine is left to learn from, or none is to be tested.
    """
    train = _strangers(corpus, other.values())
    test = tuple(boot for machine in other.values() for boot in boots_to_test(machine, follows, newest))
    if not train or not test:
        lacking = f"machines that {corpus!r} does not have" if not train else f"a boot after {tuple(follows)}"
        raise PredictError(f"split {TRANSFER}: expected {lacking} in the corpus of the test, got {other!r}")
    return (Fold(TRANSFER, "other corpus", train, test),)


_Tested = dict[str, tuple[Boot, ...]]


def _strangers(corpus: Corpus, machines: Iterable[RecordedVM]) -> tuple[Boot, ...]:
    """Return the boots of machines that have neither name nor lineage in common with any of these."""
    known = {name for machine in machines for name in (machine.name, machine.lineage)}
    return tuple(
        boot for vm in corpus.values() if known.isdisjoint((vm.name, vm.lineage)) for boot in vm.boots
    )


def _later(corpus: Corpus, tested: _Tested) -> Iterable[Fold]:
    for name, machine in corpus.items():
        for number, boot in enumerate(machine.boots):
            if number and boot in tested[name]:
                yield Fold("later", f"{name} {boot.boot}", machine.boots[:number], (boot,))


def _later_with_others(corpus: Corpus, tested: _Tested) -> Iterable[Fold]:
    """Yield a fold a step back in time: one fit tells the boot that comes next of every machine."""
    most = max(len(machine.boots) for machine in corpus.values()) if len(corpus) > 1 else 0
    for back in range(1, most):
        before = {name: machine.boots[:-back] for name, machine in corpus.items()}
        train = tuple(boot for boots in before.values() for boot in boots)
        test = tuple(
            machine.boots[-back]
            for name, machine in corpus.items()
            if before[name] and machine.boots[-back] in tested[name]
        )
        yield Fold("later_with_others", f"last but {back - 1}" if back > 1 else "last", train, test)


def _hold_out(
    split: str, groups_of: Callable[[RecordedVM], tuple[str, ...]], corpus: Corpus, tested: _Tested
) -> Iterable[Fold]:
    groups = {name: groups_of(machine) for name, machine in corpus.items()}
    for group in sorted({group for of_machine in groups.values() for group in of_machine}):
        held_out = [machine for name, machine in corpus.items() if group in groups[name]]
        train = _strangers(corpus, held_out)
        if train:
            yield Fold(split, group, train, tuple(boot for vm in held_out for boot in tested[vm.name]))


def _by_lineage(corpus: Corpus, tested: _Tested) -> Iterable[Fold]:
    return _hold_out("lineage", lambda machine: (machine.lineage,), corpus, tested)


def _by_release(corpus: Corpus, tested: _Tested) -> Iterable[Fold]:
    _expect_described(corpus, "release", lambda machine: bool(machine.release))
    return _hold_out("release", lambda machine: (machine.release,), corpus, tested)


def _by_role(corpus: Corpus, tested: _Tested) -> Iterable[Fold]:
    _expect_described(corpus, "roles", lambda machine: bool(machine.roles))
    return _hold_out("role", lambda machine: machine.roles, corpus, tested)


def _expect_described(corpus: Corpus, key: str, is_described: Callable[[RecordedVM], bool]) -> None:
    """Refuse machines of which nobody can tell whether they belong to what is held out."""
    for machine in corpus.values():
        if not is_described(machine):
            raise PredictError(f"{machine.name}: expected {key!r} in its description to split by, found none")


_FOLDS: dict[str, Callable[[Corpus, _Tested], Iterable[Fold]]] = {
    "later": _later,
    "later_with_others": _later_with_others,
    "lineage": _by_lineage,
    "release": _by_release,
    "role": _by_role,
}
_NEEDS = {
    "later": "a machine with a boot to test and a boot before it",
    "later_with_others": "two machines, one of them with a boot to test and a boot before it",
    "lineage": "boots to test, and machines of at least two lineages",
    "release": "boots to test, and machines of at least two releases and lineages",
    "role": "boots to test, and machines of at least two roles and lineages",
}
SPLITS = tuple(_FOLDS)
