"""Inferring a relocation from its reads, for a media agent that is not told (operation O15).

`vmrestorekit.restore.eviction.EvictionPolicy` is the same for the read cache: what the simulation does at
each access, step by step, for whoever serves real reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vmrestorekit.plan import PlanError, PurgeRule

__all__ = ["RunDetector"]


class RunDetector:
    """Recognises runs of reads along a relocation sequence, read by read (rule 8 of the clockwork).

    Parameters
    ----------
    sequence : array_like of int, shape (n,)
        The blocks in the order in which the relocation reads them, none twice.
    run_length : int
        How many reads at consecutive positions make a run.

    Raises
    ------
    PlanError
        If a block comes twice, or the length is below two.
    """

    def __init__(self, sequence: npt.ArrayLike, run_length: int = 16) -> None:
        from vmrestorekit.restore import engine, records  # numba takes a second to import

        self.sequence = np.array(sequence, np.int64)
        self.run_length = PurgeRule(run_length=run_length).run_length
        self._position = {block: position for position, block in enumerate(self.sequence.tolist())}
        if len(self._position) < len(self.sequence):
            raise PlanError("run detector: expected a sequence without a block twice")
        self._world = np.zeros(1, engine.WORLD)
        machines = np.zeros(1, engine.MACHINE)
        machines["run_length"] = run_length
        self._tables: dict[str, npt.NDArray[Any]] = {
            "machines": machines,
            "runs": np.zeros(engine.OPEN_RUNS, engine.RUN),
        }
        records.lay_out(self._world[0], **self._tables)

    def read(self, block: int) -> list[int]:
        """Tell of a read, whoever reads; return the blocks that it shows to have been read by the relocation.

        All of a run once it is long enough, then each block that extends it; a block outside of the sequence
        shows nothing.
        """
        from vmrestorekit.restore import engine

        position = self._position.get(int(block))
        if position is None:
            return []
        count = int(engine.see_read(self._world, position))
        shown: list[int] = self.sequence[position + 1 - count : position + 1].tolist()
        return shown
