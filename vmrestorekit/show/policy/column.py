"""One eviction policy within the explorer: what it keeps, what it does, and a guess at who goes."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets as widgets

from vmrestorekit.restore.eviction import EVICTION_POLICIES
from vmrestorekit.show.controls import button
from vmrestorekit.show.policy.pictures import policy_picture
from vmrestorekit.show.policy.reasons import POLICY_NAMES, tell_step
from vmrestorekit.show.policy.steps import PolicyStep, policy_steps
from vmrestorekit.show.theme import styled

__all__ = ["PolicyColumn"]


class PolicyColumn(widgets.VBox):  # type: ignore[misc]
    """A view of one policy; `show` is told the access, and whether who goes is to be guessed first.

    Attributes
    ----------
    steps : tuple of PolicyStep
    sentence : str
        What happens now.
    right, guesses : int
        Guesses that were right, and all.
    """

    def __init__(
        self, policy: str, accesses: tuple[int, ...], capacity: int, guessed: Callable[[], object]
    ) -> None:
        self.policy, self.name, self.capacity = policy, POLICY_NAMES[policy], capacity
        self.steps = policy_steps(policy, accesses, capacity)
        self.sentence, self.right, self.guesses = "", 0, 0
        self.revealed: set[int] = set()
        self._guessed, self._at = guessed, -1
        self._heading, self._status, self._picture = (
            widgets.HTML(layout={"margin": "0", "min_width": "0"}) for _ in range(3)
        )
        self.choice = widgets.Dropdown(
            options=[],
            description="Who goes?",
            tooltip=f"The block that {self.name} evicts next",
            layout={"width": "210px"},
            style={"description_width": "85px"},
        )
        self.guess_button = button(
            "Guess", "Guess this block, and see who goes", self._guess_choice, width="80px"
        )
        self._guess_row = widgets.HBox([self.choice, self.guess_button])
        super().__init__(
            [self._heading, self._status, self._guess_row, self._picture],
            layout={"flex": "1 1 430px", "min_width": "0"},
        )

    def _guess_choice(self) -> None:
        if self.choice.value is not None:
            self.guess(self.choice.value)

    def hidden_at(self, index: int) -> bool:
        """Tell whether a block goes at an access that nobody has seen go."""
        return index >= 0 and self.steps[index].evicted is not None and index not in self.revealed

    def guess(self, block: int) -> bool:
        """Guess the block that goes; return whether it is right. Only the first guess counts.

        Raises
        ------
        ValueError
            If there is nothing to guess, or the cache does not hold the block.
        """
        if not self.hidden_at(self._at):
            raise ValueError(
                f"guess: expected an access at which {self.name} evicts a block that was not shown"
            )
        step = self.steps[self._at]
        if block not in step.asked.held:
            held = ", ".join(map(str, sorted(step.asked.held)))
            raise ValueError(f"guess: expected a block in the cache ({held}), got {block!r}")
        is_right = block == step.evicted
        self.guesses += 1
        self.right += is_right
        self.revealed.add(self._at)
        self.show(self._at, hide=True, remark="✓ Right. " if is_right else f"✗ Not block {block}. ")
        self._guessed()
        return is_right

    def show(self, index: int, *, hide: bool, remark: str = "") -> None:
        """Show the state right after an access, -1 for before the first.

        Parameters
        ----------
        index : int
        hide : bool
            Ask who goes, if a block goes and it was not seen yet, and show the state before.
        remark : str
            Said first.
        """
        self._at = index
        step = self.steps[index] if index >= 0 else None
        asks = hide and self.hidden_at(index)
        if step is None:
            self.sentence, state = (
                f"The cache is empty: {EVICTION_POLICIES[self.policy]}.",
                self.steps[0].before,
            )
        else:
            self.sentence = remark + tell_step(self.policy, step, hide_victim=asks)
            state = step.asked if asks else step.after
        self._status.value = styled(f'<p role="status" aria-live="polite">{escape(self.sentence)}</p>')
        self._heading.value = styled(f"<h4>{escape(self.name)}{self._score(step)}</h4>")
        self._picture.value = styled(
            policy_picture(self.policy, state, None if asks else step, self.capacity)
        )
        self._ask(step if asks else None)

    def _ask(self, step: PolicyStep | None) -> None:
        """Offer the blocks that may go, in the order of their numbers, or nothing."""
        with self.choice.hold_sync():  # new options choose the first of them until told otherwise
            self.choice.options = [] if step is None else [(f"block {b}", b) for b in sorted(step.asked.held)]
            self.choice.value = None
        self._guess_row.layout.display = "none" if step is None else "flex"

    def _score(self, step: PolicyStep | None) -> str:
        hits = "" if step is None else f"{step.hits} of {step.access + 1} hit"
        guesses = f" · {self.right} of {self.guesses} guesses right" if self.guesses else ""
        return f'<span class="soft">{hits}{guesses}</span>'
