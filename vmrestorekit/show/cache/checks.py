"""What the cache explorer is given: one clear sentence for what it cannot show."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.hardware import Hardware
from vmrestorekit.restore.replay import block_accesses
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.cache.cases import Case, accesses_alone, cases_of
from vmrestorekit.show.units import size as size_text
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["CacheExplorerError", "expect_cases", "expect_one_of", "expect_sizes", "first_size"]

_MIB = 1 << 20


class CacheExplorerError(ValueError):
    """What the explorer was given is not as expected."""


def expect_cases(
    given: Boot | ReadTrace | npt.ArrayLike,
    plan: RestorePlan | None,
    clones: tuple[Boot, ...],
    hardware: Hardware,
) -> dict[str, Case]:
    """Return what there is to be asked of the cache, by its key.

    Raises
    ------
    ValueError
        If what is given is neither a boot with what belongs to it nor accesses alone.
    """
    if isinstance(given, Boot):
        plan = RestorePlan(given.disk_bytes) if plan is None else plan
        if not isinstance(plan, RestorePlan):
            raise CacheExplorerError(f"plan: expected a RestorePlan, got {type(plan).__name__}")
        if plan.disk_bytes != given.disk_bytes:
            raise CacheExplorerError(
                f"plan: expected one for the disks of {given.vm} {given.disk_bytes}, got {plan.disk_bytes}"
            )
        for number, clone in enumerate(clones):
            if not isinstance(clone, Boot):
                raise CacheExplorerError(f"clones[{number}]: expected a Boot, got {type(clone).__name__}")
        warmup()
        return cases_of(given, plan, clones, hardware)
    if plan is not None or clones:
        raise CacheExplorerError("plan, clones: expected a Boot to restore, got accesses alone")
    if isinstance(given, ReadTrace):
        return {"accesses": accesses_alone(block_accesses(given), f"Reads of {given.metadata.vm}")}
    accesses = np.asarray(given)
    if accesses.ndim != 1 or not accesses.size or accesses.dtype.kind not in "iu":
        raise CacheExplorerError(
            "boot_or_accesses: expected a Boot, a ReadTrace or a list of block numbers, got "
            f"{type(given).__name__} (as an array {accesses.dtype} of shape {accesses.shape})"
        )
    return {"accesses": accesses_alone(accesses, "Accesses")}


def expect_sizes(sizes_mib: Sequence[float], block_bytes: int) -> tuple[int, ...]:
    """Return sizes in bytes.

    Raises
    ------
    ValueError
        Unless they are at least two, rising, and hold a block.
    """
    try:
        sizes = tuple(int(each * _MIB) for each in sizes_mib)
    except (TypeError, ValueError) as error:
        raise CacheExplorerError(f"sizes_mib: expected numbers, got {sizes_mib!r}") from error
    if len(sizes) < 2 or sizes[0] < block_bytes or any(a >= b for a, b in itertools.pairwise(sizes)):
        raise CacheExplorerError(
            f"sizes_mib: expected at least two, rising, from a block of {size_text(block_bytes)} on, "
            f"got {tuple(sizes_mib)}"
        )
    return sizes


def first_size(sizes: Sequence[int]) -> int:
    """Return the size that is shown at first: 64 MiB, or one in the middle."""
    return 64 * _MIB if 64 * _MIB in sizes else sizes[len(sizes) // 2]


def expect_one_of(name: str, value: Any, known: Iterable[Any]) -> None:
    """Complain unless a value is one of those that are known.

    Raises
    ------
    ValueError
    """
    if value not in known:
        shown = [f"{each / _MIB:g}" for each in known] if name == "size_mib" else list(known)
        got = f"{value / _MIB:g}" if name == "size_mib" else repr(value)
        raise CacheExplorerError(f"{name}: expected one of {', '.join(shown)}, got {got}")
