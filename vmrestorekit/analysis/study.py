"""What a sweep needs to simulate any of its points, wherever that happens: traces, plans, layouts, hardware.

A study is packed once into an array of bytes that travels once a worker. Nothing in it refers to files.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pickle
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.analysis.settings import SETTINGS, with_settings
from vmrestorekit.backup.layout import BackupLayout
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.hardware import Hardware
from vmrestorekit.restore.simulate import simulate_trace
from vmrestorekit.restore.summary import SUMMARY_MEANING
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["CASE_AXES", "Case", "Impossible", "Study", "row_schema", "rows_of", "unpacked"]

# these axes choose a case and hardware; all others are settings
CASE_AXES = ("boot", "plan", "block_bytes", "copy")
FIGURES = tuple(SUMMARY_MEANING)
_NAME_BYTES = 16
_TEXT, _WHOLE = pl.String(), pl.Int64()


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One boot with a plan made for it, and where the blocks of its backup copy lie."""

    trace: ReadTrace
    plan: RestorePlan
    address: npt.NDArray[np.int64]
    chunk: npt.NDArray[np.int32] | None = None
    chunk_extents: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, trace: ReadTrace, plan: RestorePlan, layout: BackupLayout) -> Case:
        """Return a case whose blocks lie as a layout says."""
        chunk, extents = layout.read_together() or (None, None)
        return cls(trace, plan, layout.address, chunk, extents)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of all that the case consists of."""
        digest = hashlib.blake2b(digest_size=10)
        digest.update(self.trace.metadata.to_json().encode())
        digest.update(self.trace.frame.hash_rows(seed=0).to_numpy().tobytes())
        for array in (self.address, self.chunk, self.chunk_extents, self.plan.first_set, self.plan.sequence):
            digest.update(b"|" if array is None else np.ascontiguousarray(array).tobytes())
        plain = dataclasses.replace(self.plan, first_set=np.empty(0, np.int32), relocation_sequence=None)
        digest.update(repr(plain).encode())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Impossible:
    """A boot for which there is no such plan or backup copy, and why."""

    vm: str
    boot: str
    reason: str

    @property
    def fingerprint(self) -> str:
        """Digest of all that is known."""
        return hashlib.blake2b(repr(self).encode(), digest_size=10).hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """All cases of a sweep by their values on `CASE_AXES`, and hardware by name."""

    cases: Mapping[tuple[Any, ...], Case | Impossible]
    hardware: Mapping[str, Hardware]
    seed: int
    version: str
    code: str

    def packed(self) -> npt.NDArray[np.uint8]:
        """Return the study as bytes; `unpacked` is the way back."""
        data = pickle.dumps(self, protocol=5)
        name = hashlib.blake2b(data, digest_size=_NAME_BYTES).digest()
        return np.frombuffer(name + data, np.uint8)

    def case(self, point: Mapping[str, Any]) -> Case | Impossible:
        """Return the case of a point."""
        return self.cases[tuple(point[axis] for axis in CASE_AXES)]

    def key(self, point: Mapping[str, Any]) -> str:
        """Return what a row is known by: equal keys have equal figures."""
        hardware = repr(self.hardware[point["hardware"]])
        settings = json.dumps(point, sort_keys=True)
        parts = (self.case(point).fingerprint, hardware, settings, self.code, str(self.seed))
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()

    def row(self, number: int, point: Mapping[str, Any]) -> dict[str, Any]:
        """Simulate a point; what cannot be simulated is a row that says why."""
        case = self.case(point)
        figures: Mapping[str, Any] = dict.fromkeys(FIGURES)
        error = None
        try:
            figures = self._figures(case, point)
        except ValueError as problem:  # plan, hardware and trace say with it what is wrong
            error = str(problem)
        about = case if isinstance(case, Impossible) else case.trace.metadata
        return {
            **{"point": number, **point, "vm": about.vm, "boot": about.boot},
            **{name: figures[name] for name in FIGURES},
            **{"error": error, "version": self.version, "seed": self.seed},
            **{"data": case.fingerprint, "key": self.key(point)},
        }

    def _figures(self, case: Case | Impossible, point: Mapping[str, Any]) -> Mapping[str, Any]:
        if isinstance(case, Impossible):
            raise ValueError(case.reason)
        settings = {name: value for name, value in point.items() if name in SETTINGS}
        plan, hardware = with_settings(case.plan, self.hardware[point["hardware"]], settings)
        layout = (case.address, case.chunk, case.chunk_extents)
        return simulate_trace(case.trace, plan, hardware, *layout, detail="summary").metrics


def row_schema(axes: Sequence[str]) -> pl.Schema:
    """Return the columns of a sweep's table."""
    settings = {name: SETTINGS[name] for name in axes if name in SETTINGS}
    figures = {name: pl.Float64() if name == "hit_rate" else pl.Int64() for name in FIGURES}
    return pl.Schema(
        {
            **{"point": _WHOLE, "vm": _TEXT, "boot": _TEXT, "plan": _TEXT, "block_bytes": _WHOLE},
            **{"copy": _TEXT, "hardware": _TEXT, **settings, **figures, "error": _TEXT},
            **{"version": _TEXT, "seed": _WHOLE, "data": _TEXT, "key": _TEXT},
        }
    )


def rows_of(points: Sequence[tuple[int, Mapping[str, Any]]], packed: npt.NDArray[np.uint8]) -> pl.DataFrame:
    """Simulate numbered points of a study, in a worker; return a frame of `row_schema`."""
    study = unpacked(packed)
    schema = row_schema(list(points[0][1]))
    return pl.DataFrame([study.row(number, point) for number, point in points], schema=schema)


def unpacked(packed: npt.NDArray[np.uint8]) -> Study:
    """Return the study that was packed, unpacked once in a process as long as it is the one in use."""
    name = packed[:_NAME_BYTES].tobytes()
    with _lock:
        if name not in _unpacked:
            study = pickle.loads(packed[_NAME_BYTES:].data)
            assert isinstance(study, Study)
            # a sweep has one study: the traces of one before need not stay in memory
            _unpacked.clear()
            _unpacked[name] = study
        return _unpacked[name]


_unpacked: dict[bytes, Study] = {}
_lock = threading.Lock()
