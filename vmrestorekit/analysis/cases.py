"""The cases of a study: each boot with each plan made for it, and each backup copy of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from vmrestorekit.analysis.rows import SweepError
from vmrestorekit.analysis.study import Case, Impossible, Study
from vmrestorekit.backup.copy_layout import LAYOUTS_FILE, load_layouts
from vmrestorekit.backup.layout import BackupLayout, expect_block_bytes
from vmrestorekit.plan import RestorePlan
from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.planning import make_plan
from vmrestorekit.predict.source_digest import source_digest
from vmrestorekit.restore.hardware import Hardware, resolve_hardware
from vmrestorekit.traces.corpus import Boot

__all__ = ["FULL", "PlanMaker", "PlanSource", "study_of"]

FULL = "full"  # the copy that is a full backup, written in the order of the disks
PlanMaker = Callable[[Boot, int], RestorePlan]
PlanSource = RestorePlan | BlockPredictor | PlanMaker | None
_COMPUTED_BY = "vmrestorekit.analysis.study"

Axes = dict[str, Sequence[Any]]


def study_of(
    boots: Boot | Iterable[Boot],
    plans: PlanSource | Mapping[str, PlanSource],
    hardware: Hardware | str | Sequence[Hardware | str],
    block_bytes: Sequence[int],
    copies: Sequence[str],
    *,
    seed: int,
    version: str,
) -> tuple[Study, Axes]:
    """Make each plan for each boot, and return all that simulations need, with the axes that choose it.

    Raises
    ------
    SweepError
        If there is nothing to simulate, or something comes twice. A plan that cannot be made for one of the
        boots is no such error: its rows will say why.
    """
    chosen = _labelled("boots", [boots] if isinstance(boots, Boot) else list(boots), _label)
    machines = [hardware] if isinstance(hardware, Hardware | str) else list(hardware)
    named = _labelled("hardware", [resolve_hardware(each) for each in machines], lambda each: each.name)
    sources = _named_plans(plans)
    for size in block_bytes:
        expect_block_bytes(size)
    axes: Axes = {
        "boot": list(chosen),
        "plan": list(sources),
        "block_bytes": list(_labelled("block_bytes", block_bytes, lambda size: size)),
        "copy": list(_labelled("copies", copies, lambda name: name)),
        "hardware": list(named),
    }
    cases = {
        (label, *key): case
        for label, boot in chosen.items()
        for key, case in _cases_of(boot, sources, block_bytes, copies)
    }
    return Study(cases, named, seed, version, source_digest(_COMPUTED_BY)), axes


def _label(boot: Boot) -> str:
    return f"{boot.vm}/{boot.boot}"


def _labelled(what: str, values: Sequence[Any], label: Callable[[Any], Any]) -> dict[Any, Any]:
    labelled = {label(value): value for value in values}
    if not labelled:
        raise SweepError(f"{what}: expected at least one, got none")
    if len(labelled) < len(values):
        raise SweepError(
            f"{what}: expected each once, got {', '.join(str(label(value)) for value in values)}"
        )
    return labelled


def _named_plans(plans: PlanSource | Mapping[str, PlanSource]) -> dict[str, PlanSource]:
    named = dict(plans) if isinstance(plans, Mapping) else {_usual_name(plans): plans}
    if not named:
        raise SweepError("plans: expected at least one, got none")
    for name, source in named.items():
        if not (source is None or isinstance(source, RestorePlan | BlockPredictor) or callable(source)):
            raise SweepError(
                f"plans: expected None, a RestorePlan, a fitted predictor or a function for {name!r}, "
                f"got {source!r:.80}"
            )
    return named


def _usual_name(source: PlanSource) -> str:
    if source is None:
        return "none"
    return type(source).__name__ if isinstance(source, BlockPredictor) else "plan"


def _cases_of(
    boot: Boot, sources: Mapping[str, PlanSource], block_bytes: Sequence[int], copies: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], Case | Impossible]]:
    manifests = boot.manifests
    for size in block_bytes:
        for plan_name, source in sources.items():
            plan = _tried(_plan_for, source, boot, size)
            for copy in copies:
                layout = _tried(_layout_of, boot, size, copy)
                yield (plan_name, size, copy), _case(boot, plan, layout)
    del manifests
    boot.drop_manifests()


def _case(boot: Boot, plan: RestorePlan | str, layout: BackupLayout | str) -> Case | Impossible:
    for part in (plan, layout):
        if isinstance(part, str):
            return Impossible(boot.metadata.vm, boot.metadata.boot, part)
    assert isinstance(plan, RestorePlan)
    assert isinstance(layout, BackupLayout)
    return Case.of(boot.trace, plan, layout)


def _tried(make: Callable[..., Any], *arguments: Any) -> Any:
    """Return what was made, or the sentence that says why it cannot be."""
    try:
        return make(*arguments)
    except ValueError as error:  # what the rooms raise for what does not go together
        return str(error)


def _plan_for(source: PlanSource, boot: Boot, block_bytes: int) -> RestorePlan:
    if source is None:
        return RestorePlan(boot.disk_bytes, block_bytes=block_bytes)
    if isinstance(source, BlockPredictor):
        return make_plan(source, boot, block_bytes=block_bytes)
    plan = source if isinstance(source, RestorePlan) else source(boot, block_bytes)
    if plan.block_bytes != block_bytes:
        raise SweepError(f"plan: expected one for blocks of {block_bytes} bytes, got {plan.block_bytes}")
    return plan


def _layout_of(boot: Boot, block_bytes: int, copy: str) -> BackupLayout:
    if copy == FULL:
        return BackupLayout.full(boot.manifests, block_bytes)
    path = None if boot.path is None else boot.path.parent / LAYOUTS_FILE
    recorded = {} if path is None or not path.is_file() else _recorded(path)
    if copy not in recorded:
        known = ", ".join([FULL, *recorded])
        raise SweepError(f"copy: expected one of {known} for {_label(boot)}, got {copy!r}")
    layout = recorded[copy]
    if (layout.disk_bytes, layout.block_bytes) != (boot.disk_bytes, block_bytes):
        raise SweepError(f"copy: {copy!r} is of other disks or blocks than asked for of {_label(boot)}")
    if (layout.hole != BackupLayout.full(boot.manifests, block_bytes).hole).any():
        raise SweepError(f"copy: {copy!r} is of another state of the disks than before {_label(boot)}")
    return layout


_recorded = functools.lru_cache(maxsize=4)(load_layouts)
