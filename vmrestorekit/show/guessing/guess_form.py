"""A few questions that a reader answers before the answer is worked out, and what became of the guesses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets as widgets

from vmrestorekit.show.look import Look
from vmrestorekit.show.theme import styled

__all__ = ["GuessForm", "GuessFormError", "Told"]

_CLOSE = 0.1  # of the range: a number so near counts as right
_LONG = 40  # letters: a longer question is not asked again with its answer


class GuessFormError(ValueError):
    """A question or an answer that cannot be; the message says what was expected and what came."""


@dataclasses.dataclass(frozen=True)
class Told:
    """The answers to the questions, each with what was guessed.

    Attributes
    ----------
    lines : tuple of (mark, sentence)
        ``"✓"`` right, ``"✗"`` wrong, ``"…"`` not guessed.
    """

    lines: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return "\n".join(f"{mark} {sentence}" for mark, sentence in self.lines)

    def _repr_html_(self) -> str:
        colours = {"✓": "#009E73", "✗": "#D55E00", "…": "#0072B2"}
        rows = (
            f'<p style="border-left:4px solid {colours[mark]};padding:4px 12px;margin:4px 0">'
            f"<b>{mark}</b> {escape(sentence)}</p>"
            for mark, sentence in self.lines
        )
        return f'<div role="status">{"".join(rows)}</div>'


class GuessForm(widgets.VBox):  # type: ignore[misc]
    """Ask; tell what is right only once the notebook has found it out.

    Parameters
    ----------
    **questions : (str, sequence of str), (str, range) or (str, range, str)
        Name -> the question and its options, or the numbers among which it asks for one, and their unit.

    Raises
    ------
    ValueError
        If there is no question, or one has no text, or fewer than two different options.
    """

    def __init__(self, **questions: tuple[str, Sequence[str] | range] | tuple[str, range, str]) -> None:
        if not questions:
            raise GuessFormError("questions: expected at least one, got none")
        self._guessed: dict[str, Any] = {}
        self.controls: dict[str, Any] = {}
        self._texts: dict[str, str] = {}
        self._units: dict[str, str] = {}
        rows: list[Any] = [Look()]
        for number, (name, asked) in enumerate(questions.items(), 1):
            text, options, unit = _checked(name, asked)
            control = _slider(text, options, unit) if isinstance(options, range) else _radio(text, options)
            control.observe(lambda change, name=name: self._note(name, change["new"]), "value")
            self.controls[name], self._texts[name], self._units[name] = control, text, unit
            rows += [widgets.HTML(styled(f"<b>{number} · {escape(text)}</b>")), control]
        self._status = widgets.HTML()
        super().__init__([*rows, self._status], layout={"grid_gap": "2px"})
        self._announce()

    @property
    def guesses(self) -> dict[str, Any]:
        """What was guessed so far, by the name of the question."""
        return dict(self._guessed)

    def guess(self, name: str, value: Any) -> None:
        """Guess, as by the controls.

        Raises
        ------
        ValueError
            If there is no such question, or no such option.
        """
        self._expect_possible("guess", name, value)
        self.controls[name].value = value
        self._note(name, value)  # the middle of a slider is a guess, too, if somebody says so

    def tell(self, **answers: Any) -> Told:
        """Say what is right, and what had been guessed.

        Parameters
        ----------
        **answers
            Name of a question -> its right option, or number.

        Raises
        ------
        ValueError
            If there is no such question, or an answer is none of its options.
        """
        lines = []
        for name, answer in answers.items():
            self._expect_possible("tell", name, answer)
            guess, number = self._guessed.get(name), list(self.controls).index(name) + 1
            text, unit = self._texts[name], self._units[name]
            asked = f"{text} " if len(text) <= _LONG else ""
            told = f"{number} · {asked}{_with_unit(answer, unit)}."
            if guess is None:
                lines.append(("…", f"{told} (You did not guess.)"))
                continue
            is_right = guess == answer
            if not isinstance(answer, str):
                control = self.controls[name]
                is_right = abs(guess - answer) <= _CLOSE * (control.max - control.min)
            lines.append(("✓" if is_right else "✗", f"{told} You guessed: {_with_unit(guess, unit)}."))
        return Told(tuple(lines))

    def _expect_possible(self, what: str, name: str, value: Any) -> None:
        if name not in self.controls:
            raise GuessFormError(f"{what}: expected one of {', '.join(self.controls)}, got {name!r}")
        control = self.controls[name]
        if isinstance(control, widgets.RadioButtons):
            if value not in control.options:
                expected = ", ".join(map(repr, control.options))
                raise GuessFormError(f"{what} {name}: expected one of {expected}, got {value!r}")
        elif isinstance(value, bool | str) or value != int(value) or not control.min <= value <= control.max:
            raise GuessFormError(
                f"{what} {name}: expected a whole number from {control.min} to {control.max}, got {value!r}"
            )

    def _note(self, name: str, value: Any) -> None:
        if value is not None:
            self._guessed[name] = value
            self._announce()

    def _announce(self) -> None:
        done, of = len(self._guessed), len(self.controls)
        said = "Commit yourself; the answers come further down." if done < of else "Now read on and see."
        self._status.value = styled(
            f'<p role="status" aria-live="polite" style="min-height:0">{done} of {of} guessed. {said}</p>'
        )


def _with_unit(value: Any, unit: str) -> str:
    return f"{value} {unit}" if unit else str(value)


def _checked(name: str, asked: Any) -> tuple[str, Sequence[str] | range, str]:
    try:
        text, options, *units = asked
        (unit,) = units or [""]
    except (TypeError, ValueError):
        raise GuessFormError(
            f"{name}: expected a question, its options and perhaps a unit, got {asked!r}"
        ) from None
    if not isinstance(text, str) or not text.strip():
        raise GuessFormError(f"{name}: expected a question, got {text!r}")
    if isinstance(options, str) or len(set(options)) < max(2, len(options)):
        raise GuessFormError(f"{name}: expected at least two different options, got {options!r}")
    if not isinstance(unit, str) or (unit and not isinstance(options, range)):
        raise GuessFormError(f"{name}: expected a unit as a text, and with a range only, got {unit!r}")
    return text, options, unit


def _radio(text: str, options: Sequence[str]) -> Any:
    return widgets.RadioButtons(
        options=list(options),
        value=None,
        description="Guess",
        tooltip=text,
        layout={"width": "max-content"},
        style={"description_width": "60px"},
    )


def _slider(text: str, numbers: range, unit: str) -> Any:
    return widgets.IntSlider(
        value=numbers[len(numbers) // 2],
        min=numbers[0],
        max=numbers[-1],
        step=numbers.step,
        description=f"Guess ({unit})" if unit else "Guess",
        tooltip=text,
        layout={"width": "min(100%, 520px)"},
        style={"description_width": "initial" if unit else "60px"},
    )
