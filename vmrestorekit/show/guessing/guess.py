"""Guess first, then see: questions about moments of a timeline."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from html import escape

import ipywidgets as widgets
import numpy as np
import traitlets

from vmrestorekit.restore.timeline import IN_CACHE, IN_FLIGHT, Timeline
from vmrestorekit.show.controls import button, row
from vmrestorekit.show.guessing.past import Past
from vmrestorekit.show.guessing.questions import (
    QUESTION_KINDS,
    READERS,
    Question,
    QuestionError,
    draw_questions,
)
from vmrestorekit.show.look import Look
from vmrestorekit.show.theme import styled
from vmrestorekit.show.units import blocks

__all__ = ["Guess"]


class Guess(widgets.VBox):  # type: ignore[misc]
    """Ask about moments of a timeline; tell what is right once it was guessed.

    The browser is sent the answer and its explanation after the guess, not before.

    Parameters
    ----------
    timeline : Timeline
    questions : int
        How many, at least 1.
    seed : int
        At least 0; the same seed asks the same questions.
    kinds : collection of str
        Which kinds: ``"hit_or_miss"`` (is a block in the read cache, on its way, or neither?),
        ``"which_goes"`` (which block is evicted?), ``"what_next"`` (where does a read get its bytes from?).
    width : int or str
        Pixels, or a CSS length.

    Attributes
    ----------
    moment : int
        Row of the event that answered the last guess, -1 before the first; ``traitlets.dlink((guess,
        "moment"), (stepper, "index"))`` takes a `Stepper` of this timeline alone there.

    Raises
    ------
    ValueError
        If an argument is none of these, or the timeline offers fewer questions.
    """

    moment = traitlets.Int(-1)

    def __init__(
        self,
        timeline: Timeline,
        questions: int = 5,
        seed: int = 0,
        kinds: Collection[str] = tuple(QUESTION_KINDS),
        *,
        width: int | str = "100%",
    ) -> None:
        if isinstance(width, bool) or not isinstance(width, int | str):
            raise QuestionError(f"width: expected pixels or a CSS length, got {width!r}")
        self._questions = draw_questions(timeline, questions, seed, kinds)
        self.timeline = timeline
        self._answers: list[str] = []
        self._place, self._asked, self._status = (
            widgets.HTML(layout={"margin": "0", "min_width": "0"}) for _ in range(3)
        )
        self.options = widgets.RadioButtons(
            options=[],
            description="Answer",
            tooltip="Choose what you think is right",
            layout={"width": "auto"},
            style={"description_width": "70px"},
        )
        self.guess_button = button("Guess", "Guess what is chosen, and see what is right", self._guess)
        self.next_button = button("Next", "Go to the next question", self.next)
        super().__init__(layout={"width": f"{width}px" if isinstance(width, int) else width})
        buttons = row([self.guess_button, self.next_button])
        self.children = [Look(), self._place, self._asked, self.options, buttons, self._status]
        self._at = 0
        self._ask()

    # --- what a program or a test can do without looking ------------------------------------------------

    @property
    def question(self) -> Question:
        """The question that is shown."""
        return self._questions[self._at]

    @property
    def answers(self) -> tuple[str, ...]:
        """What was guessed, in the order of the questions."""
        return tuple(self._answers)

    @property
    def score(self) -> int:
        """How many of the guesses are right."""
        return sum(
            answer == question.answer()
            for answer, question in zip(self._answers, self._questions, strict=False)
        )

    @property
    def score_line(self) -> str:
        """The score in words, such as ``'3 of 5 right'``."""
        return f"{self.score} of {len(self._questions)} right"

    def guess(self, answer: str) -> bool:
        """Guess an option of the question; return whether it is right. The first guess counts.

        Raises
        ------
        QuestionError
            If it is no option, or the question was answered before.
        """
        question = self.question
        if answer not in question.options:
            raise QuestionError(f"guess: expected one of {', '.join(question.options)}, got {answer!r}")
        if self._is_answered:
            raise QuestionError(f"guess: expected one guess for each question, got {answer!r} as another")
        self._answers.append(answer)
        self.options.value = answer
        self.options.disabled = True
        is_right = answer == question.answer()
        verdict = "✓ Right." if is_right else f"✗ Wrong: you guessed {answer}, right is {question.answer()}."
        self._announce(f"{verdict} {question.explanation()}")
        self._tell_place()
        self.moment = question.index
        return is_right

    def next(self) -> bool:
        """Go to the next question, once this one is answered; return whether it did."""
        if not self._is_answered:
            self._announce("Guess first: choose an answer and press Guess.")
        elif self._at + 1 == len(self._questions):
            self._announce(f"That was the last question: {self.score_line}.")
        else:
            self._at += 1
            self._ask()
            return True
        return False

    # --- showing ----------------------------------------------------------------------------------------

    @property
    def _is_answered(self) -> bool:
        return len(self._answers) > self._at

    @property
    def _place_line(self) -> str:
        return f"Question {self._at + 1} of {len(self._questions)}"

    def _guess(self) -> None:
        if self._is_answered:
            self._announce("This question is answered; press Next for another one.")
        elif self.options.value is None:
            self._announce("Choose an answer first, then press Guess.")
        else:
            self.guess(self.options.value)

    def _ask(self) -> None:
        question = self.question
        facts = "".join(f"<li>{escape(fact)}</li>" for fact in _known(self.timeline, question))
        self._asked.value = styled(f"<p><b>{escape(question.text)}</b></p>Just before:<ul>{facts}</ul>")
        with self.options.hold_sync():  # new options choose the first of them until told otherwise
            self.options.options = question.options
            self.options.value = None
            self.options.disabled = False
        self._tell_place()
        self._announce(f"{self._place_line}: choose an answer and press Guess.")

    def _tell_place(self) -> None:
        self._place.value = styled(f'<h4>{self._place_line}<span class="soft">{self.score_line}</span></h4>')

    def _announce(self, text: str) -> None:
        self._status.value = styled(f'<p role="status" aria-live="polite">{escape(text)}</p>')


# --- what is known just before a moment, from the events before it ----------------------------------------


def _known(timeline: Timeline, question: Question) -> Iterable[str]:
    past = Past(timeline, question.index)
    if question.kind == "which_goes":
        return [_read_cache(past), *map(past.in_cache, question.blocks)]
    if question.kind == "what_next":
        return [_stored(past), _written(past), _relocation(past)]
    return [_read_cache(past), _first_set(past), _arrival(past), _demand(past), _relocation(past)]


def _read_cache(past: Past) -> str:
    plan = past.timeline.plan
    held, coming = (np.count_nonzero(past.flags & flag) for flag in (IN_CACHE, IN_FLIGHT))
    evicted, purged = past.rows("evict").size, past.rows("purge").size
    return (
        f"Read cache: {plan.cache_slots:,} slots. Blocks in it: {held:,}, on their way: {coming:,}, "
        f"evicted so far by {plan.eviction.upper()}: {evicted:,}, purged so far: {purged:,}."
    )


def _first_set(past: Past) -> str:
    first_set = past.timeline.plan.first_set
    first_set = first_set[past.timeline.stored[first_set]]
    came, place = past.last("staged")[first_set] >= 0, np.flatnonzero(first_set == past.block)
    its = f"{blocks(past.block, 1)} is number {place[0] + 1:,}" if place.size else "the block is not in it"
    return f"First set: {len(first_set):,} blocks, {np.count_nonzero(came):,} came so far; {its}."


def _arrival(past: Past) -> str:
    came = past.last("staged")[past.block]
    if came < 0:
        return "The block has not come into the read cache so far."
    others = np.count_nonzero(past.named("staged")[1] > came)
    return f"The block last came into the read cache at {past.time(came)}; {others:,} came after it."


def _demand(past: Past) -> str:
    asked = int(past.last("cache_hit", "cache_wait", "cache_miss")[past.block])
    if asked < 0:
        return "Nobody asked for it so far."
    reader = READERS[past.timeline.events["detail"][asked]]
    return f"It was last asked for at {past.time(asked)}, by {reader}."


def _relocation(past: Past) -> str:
    if past.timeline.plan.mode == "live_mount":
        return "A live mount has no relocation."
    there, length, place = past.relocation()
    its = f"; the block is number {place:,} of the sequence" if place else ""
    pivot = past.rows("use_destination")
    then = f" Since {past.time(pivot[0])} the VM uses the destination only." if pivot.size else ""
    return f"Relocation: {there:,} of {length:,} blocks are on the destination{its}.{then}"


def _stored(past: Past) -> str:
    stored = past.timeline.stored[past.block]
    return "The backup copy stores the block." if stored else "The backup copy stores nothing there: a hole."


def _written(past: Past) -> str:
    written, applied = (past.last(kind)[past.block] for kind in ("written", "applied"))
    if written < 0:
        return "The VM has not written to it."
    then = f"; applied to the destination at {past.time(applied)}" if applied > written else ""
    return f"The VM last wrote to it at {past.time(written)}{then}."
