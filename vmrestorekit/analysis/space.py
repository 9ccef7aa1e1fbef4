"""The points of a sweep: every combination of what is varied, or a sample of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vmrestorekit.analysis.settings import SettingError

__all__ = ["Between", "Space"]


@dataclasses.dataclass(frozen=True)
class Between:
    """Any number from `low` to `high`, for a sampled space; with `log`, each order of magnitude as often."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise SettingError(f"expected low < high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise SettingError(f"log: expected low above 0, got {self.low}")

    def at(self, share: float) -> float | int:
        """Return the number at a share from 0 to 1 of the way; a whole one if both ends are."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = low + share * (high - low)
        value = min(max(math.exp(value) if self.log else value, self.low), self.high)
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return round(value) if whole else value


@dataclasses.dataclass(frozen=True)
class Space:
    """What is varied, and how far.

    Attributes
    ----------
    axes : mapping of str to sequence or Between
        Name and values. The last axis changes from each point to the next, the first one least often.
    sample : int, optional
        So many points by Latin hypercube sampling (M. McKay et al., Technometrics 21, 1979): each axis is cut
        into so many equal parts, and each part has one point. Default: every combination.
    seed : int
        Of the sample.
    """

    axes: Mapping[str, Sequence[Any] | Between]
    sample: int | None = None
    seed: int = 0
    _shares: npt.NDArray[np.float64] | None = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, values in self.axes.items():
            if isinstance(values, Between):
                if self.sample is None:
                    raise SettingError(f"{name}: expected a list of values, since the space is not sampled")
            elif not len(values):
                raise SettingError(f"{name}: expected at least one value, got an empty list")
        if self.sample is not None and self.sample < 1:
            raise SettingError(f"sample: expected at least 1 point, got {self.sample}")
        object.__setattr__(self, "_shares", self._drawn())

    def _drawn(self) -> npt.NDArray[np.float64] | None:
        if self.sample is None:
            return None
        rng = np.random.default_rng(self.seed)
        # axis by axis, so that one more axis leaves the others as they are
        drawn = [(rng.permutation(self.sample) + rng.random(self.sample)) / self.sample for _ in self.axes]
        return np.array(drawn).reshape(len(self.axes), self.sample).T

    def __len__(self) -> int:
        """Return the number of points."""
        if self.sample is not None:
            return self.sample
        return math.prod(len(values) for values in self.axes.values() if not isinstance(values, Between))

    def point(self, number: int) -> dict[str, Any]:
        """Return the values of a point by axis."""
        if self._shares is not None:
            return {
                name: _at(values, float(share))
                for (name, values), share in zip(self.axes.items(), self._shares[number], strict=False)
            }
        chosen: dict[str, Any] = {}
        for name, values in reversed(list(self.axes.items())):
            assert not isinstance(values, Between)  # checked above
            number, place = divmod(number, len(values))
            chosen[name] = values[place]
        return {name: chosen[name] for name in self.axes}


def _at(values: Sequence[Any] | Between, share: float) -> Any:
    if isinstance(values, Between):
        return values.at(share)
    return values[min(int(share * len(values)), len(values) - 1)]
