"""Checks of `08_train_a_predictor`: whom to learn from, how large a budget, and what was staged in vain."""

from __future__ import annotations

import dataclasses
import functools
import random
from typing import Any

import polars as pl

import vmrestorekit as vr
from checks import Verdict, hint, right, your_turn
from vmrestorekit.show.prediction.data import Needs, Prediction

__all__ = [
    "REASONS",
    "Task",
    "check_budget",
    "check_teacher",
    "check_waste",
    "recall_from",
    "task",
]

# how the explorer's table says it -> the answer to choose
REASONS = {
    "others have it and read it": "read elsewhere",
    "others have it, none reads it": "read nowhere",
    "no machine learned from has it": "never met",
}
_PREDICTOR = "learned"
_AS_GOOD = 0.01  # of teachers whose recall differs by less, each is right
_MB = 1e6


@dataclasses.dataclass(frozen=True, repr=False)
class Task:
    """What is asked for a seed.

    Attributes
    ----------
    target : str
        The machine that is to be restored.
    candidates : tuple of str
        Machines that it could learn from, one of them.
    recall : float
        That is to be reached with the smallest budget.
    step : int
        A place of the explorer's slider.
    """

    target: str
    candidates: tuple[str, ...]
    recall: float
    step: int

    def __repr__(self) -> str:
        return (
            f"1. {self.target} is lost. Of {', '.join(self.candidates)} you may learn from one: which?\n"
            f"2. Which is the smallest budget of the slider with which the learned predictor finds "
            f"{100 * self.recall:.0f} % of trixie-cache's blocks?\n"
            f"3. With explorer.step = {self.step}, which sets the slider: of which file is most wasted? Why?"
        )


@functools.cache
def _corpus() -> vr.Corpus:
    return vr.load_corpus()


def task(seed: int) -> Task:
    """Return what a seed asks; two candidates are of the same release, one is of the same role, if any."""
    draw = random.Random(f"train {seed}")
    machines = {
        vm.name: vm for vm in _corpus().values() if vm.lineage == vm.name and "desktop" not in vm.roles
    }
    target = machines[draw.choice(sorted(machines))]
    others = [vm for vm in machines.values() if vm is not target]
    same_release = [vm.name for vm in others if vm.release == target.release]
    elsewhere = [vm for vm in others if vm.release != target.release]
    same_role = [vm.name for vm in elsewhere if vm.roles == target.roles]
    rest = sorted({vm.name for vm in elsewhere} - set(same_role))
    chosen = {*draw.sample(sorted(same_release), 2), *draw.sample(sorted(same_role), min(1, len(same_role)))}
    chosen |= set(draw.sample(rest, 4 - len(chosen)))
    recall = draw.choice((0.6, 0.7, 0.8, 0.85, 0.9))
    return Task(target.name, tuple(sorted(chosen)), recall, draw.randint(21, 30))


@functools.cache
def recall_from(teacher: str, target: str) -> float:
    """Return how much of a machine's first boot another one's first boot tells by path."""
    learned_from, asked = (_corpus()[name].boots[0] for name in (teacher, target))
    predictor = vr.LastBootReplay(by="path").fit(learned_from)
    needs = Needs.of(asked)
    found = Prediction.of(teacher, predictor, needs).recall(needs.usual)
    for boot in (learned_from, asked):
        boot.drop_manifests()  # the states of a disk are large
    return found


def check_teacher(answer: Any, seed: int) -> Verdict:
    """Say whether this is the machine to learn from."""
    asked = task(seed)
    if answer is None or answer is ...:
        return your_turn(
            f"Which of {', '.join(asked.candidates)} tells most of {asked.target}? Give its name."
        )
    if not isinstance(answer, str) or answer not in asked.candidates:
        return hint(f"The answer is a name, one of {', '.join(asked.candidates)}; you gave {answer!r:.60}.")
    recalls = {name: recall_from(name, asked.target) for name in asked.candidates}
    best = max(recalls.values())
    if recalls[answer] >= best - _AS_GOOD:
        return right(
            f"From {answer} one learns {100 * recalls[answer]:.0f} % of what {asked.target} reads; from the "
            f"others {_all_but(answer, recalls)}. {_why(answer, asked.target)}"
        )
    return hint(
        f"{answer} finds {100 * recalls[answer]:.0f} %, but one of the others finds more. By path, what "
        "counts is whether files have the same names: look at the release first, then at the role."
    )


def _all_but(answer: str, recalls: dict[str, float]) -> str:
    return ", ".join(f"{100 * recall:.0f} %" for name, recall in recalls.items() if name != answer)


def _why(answer: str, target: str) -> str:
    one, other = _corpus()[answer], _corpus()[target]
    if one.release == other.release:
        return (
            f"Both run {one.release}: their files have the same names, and mostly the same places are read."
        )
    return "Not the release decides this time: what both do has the same names in both."


def check_budget(answer: Any, seed: int, explorer: Any) -> Verdict:
    """Say whether this is the smallest budget, in MB, that reaches the recall of the task."""
    wanted = task(seed).recall
    if answer is None or answer is ...:
        return your_turn(f"How many MB does the learned predictor need for a recall of {100 * wanted:.0f} %?")
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return hint(f"The answer is a number of MB, such as 50.5; you gave {answer!r:.60}.")
    curve = explorer.curves.filter(predictor=_PREDICTOR).sort("budget_mb")
    enough = curve.filter(pl.col("recall") >= wanted)
    if enough.is_empty():
        return hint(
            "No budget of the slider is enough with this model: train it on more, or take another seed."
        )
    least = enough["budget_mb"][0]
    step = curve["budget_mb"][1] - curve["budget_mb"][0]
    if abs(answer - least) < step / 2:
        waste = enough["waste_mb"][0]
        return right(
            f"{least:.1f} MB: with one step of the slider less, recall is below {100 * wanted:.0f} %. "
            f"{waste:.1f} MB of it are staged in vain."
        )
    if answer < least:
        return hint(
            f"With {answer:g} MB, fewer than {100 * wanted:.0f} % are found. Move the slider to the right."
        )
    return hint(f"{answer:g} MB are enough, but less would do. Move the slider to the left.")


def check_waste(path: Any, reason: Any, seed: int, explorer: Any) -> Verdict:
    """Say whether most is wasted of this file at the task's budget, and whether this is why."""
    step = task(seed).step
    if path is None or path is ... or reason is None or reason is ...:
        reasons = ", ".join(repr(each) for each in REASONS.values())
        return your_turn(
            f"Set explorer.step = {step}; name the file of which most is wasted, and why: {reasons}."
        )
    if not isinstance(path, str) or not isinstance(reason, str) or reason not in REASONS.values():
        return hint(
            f"The answers are a path and one of {', '.join(REASONS.values())}; you gave {path!r:.60} and "
            f"{reason!r:.60}."
        )
    wasted = explorer.files_at(_PREDICTOR, step).filter(
        pl.col("path").is_not_null(), pl.col("wasted_kib") > 0, pl.col("why").is_in(REASONS)
    )
    mine = wasted.filter(path=path)
    if mine.is_empty():
        return hint(f"Nothing of {path} is wasted with this budget. Look at the table “Wasted files”.")
    if mine["wasted_kib"][0] < wasted["wasted_kib"].max():
        return hint(f"Of {path} {mine['wasted_kib'][0]:,} KiB are wasted, but of another file it is more.")
    why = REASONS[mine["why"][0]]
    if reason != why:
        return hint(
            "The file is right. For the reason, look at the last column: who has the file, who reads it?"
        )
    return right(f"{mine['wasted_kib'][0]:,} KiB of {path} are staged in vain. {_TOLD[why]}")


_TOLD = {
    "read elsewhere": "Machines that were learned from read it, this one reads less of it, or nothing: a "
    "good guess that did not come true.",
    "read nowhere": "The machines that were learned from have it and never read it: what kind of file it is, "
    "or its neighbours on the disk, misled.",
    "never met": "Nobody has met it; only what kind of file it is spoke for it.",
}
