"""Checks of the exercises: each says whether an answer is right, and if not, gives a hint, not the answer.

An exercise begins with a seed: with another one it has other numbers, so that neighbours can help each other
without copying. What is right is worked out from the student's own seed, by the same simulation.
"""

from __future__ import annotations

import dataclasses
import html

import polars as pl

__all__ = ["Verdict", "hint", "right", "your_turn"]

# tables in the notebooks: a reader is after the numbers, not the shape and the types of the columns
pl.Config.set_tbl_hide_dataframe_shape(True)
pl.Config.set_tbl_hide_column_data_types(True)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a check says: whether the answer is right (None: there is none yet), and a sentence or two."""

    is_right: bool | None
    text: str

    @property
    def mark(self) -> str:
        return {True: "✓ Right.", False: "✗ Not yet.", None: "… Your turn."}[self.is_right]

    def __repr__(self) -> str:
        return f"{self.mark} {self.text}"

    def _repr_html_(self) -> str:
        colour = {True: "#009E73", False: "#D55E00", None: "#0072B2"}[self.is_right]
        return (
            f'<p role="status" style="border-left:4px solid {colour};padding:6px 12px;margin:4px 0">'
            f"<b>{self.mark}</b> {html.escape(self.text)}</p>"
        )


def right(text: str) -> Verdict:
    """Say that an answer is right, and why."""
    return Verdict(True, text)


def hint(text: str) -> Verdict:
    """Say that an answer is not right yet, and where to look."""
    return Verdict(False, text)


def your_turn(text: str) -> Verdict:
    """Say what is asked for, where nothing was answered: ``...`` stands where the answer goes."""
    return Verdict(None, text)
