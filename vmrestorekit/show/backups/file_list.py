"""A list of files, as a file manager has it: walked through by arrow keys, with boxes to tick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

__all__ = ["FileList"]


class FileList(anywidget.AnyWidget):
    """One page of a list, and the way to it; what a person does is told to those who `listen`.

    Attributes
    ----------
    trail : list of str
        The way to what is listed, each a button; the last one is where we are.
    heads : list of str
        Over the columns, the first for names.
    rows : list of dict
        ``name``; ``kind`` (a sign in front of it) and ``said`` (the same in words); ``cells``, the further
        columns; ``tick``: -1 cannot be ticked, 0 not ticked, 1 something in it is, 2 ticked; ``opens``:
        whether it can be entered; ``hint``, optional.
    current : int
        The row on which the keyboard stands, -1 for none.
    label, empty : str
        What is listed, for screen readers; and what to say if there is nothing.
    """

    _esm = Path(__file__).with_suffix(".js")

    trail = traitlets.List(traitlets.Unicode()).tag(sync=True)
    heads = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    current = traitlets.Int(-1, min=-1).tag(sync=True)
    label = traitlets.Unicode("Files").tag(sync=True)
    empty = traitlets.Unicode("Nothing here.").tag(sync=True)

    def listen(self, **actions: Callable[[int], object]) -> None:
        """Have functions called with a number when a person does something.

        Parameters
        ----------
        **actions : callable
            ``tick`` (a row), ``open`` (a row), ``trail`` (a place on the way), ``up``, ``page`` (±1).
        """

        def told(_: Any, content: Any, __: Any) -> None:
            if not isinstance(content, dict):
                return
            action, number = actions.get(str(content.get("do"))), content.get("number", 0)
            if action is not None and isinstance(number, int):
                action(number)

        self.on_msg(told)
