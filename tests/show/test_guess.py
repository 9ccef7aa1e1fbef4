"""The questions without a browser: what is sent to it before and after a guess, buttons, links."""

import dataclasses
import json

import ipywidgets
import polars as pl
import pytest
import traitlets
from test_stepper import every_widget

import vmrestorekit
from vmrestorekit.restore.events import EVENTS_SCHEMA
from vmrestorekit.show.guessing import guess as module
from vmrestorekit.show.guessing.guess import Guess
from vmrestorekit.show.guessing.questions import QUESTION_KINDS, QuestionError, draw_questions
from vmrestorekit.show.look import Look
from vmrestorekit.show.restore.stepper import Stepper


def status(guess):
    """The announcement as it is in the page."""
    return guess._status.value


def sent(guess):
    """Everything that the browser is told of all child widgets, without the numbers of their models."""
    widgets = list(every_widget(guess))
    models = [
        model
        for each in widgets
        for model in (each, each.layout, getattr(each, "style", None))
        if isinstance(model, ipywidgets.Widget)
    ]
    text = json.dumps([model.get_state() for model in models], default=repr)
    for number, model in enumerate(models):
        text = text.replace(model.model_id, f"model {number}")
    return text


def wrong(question):
    return next(option for option in question.options if option != question.answer())


def play(guess, answers):
    """Guess by the keyboard's way: choose, press Guess, press Next."""
    for answer in answers:
        guess.options.value = answer
        guess.guess_button.click()
        guess.next_button.click()


def test_is_public():
    assert vmrestorekit.Guess is Guess


def test_asks_what_was_drawn(restore):
    guess = Guess(restore, 4, 2)
    for number, question in enumerate(draw_questions(restore, 4, 2)):
        assert guess.question == question
        assert guess.options.options == question.options
        assert question.text in guess._asked.value
        assert f"Question {number + 1} of 4" in status(guess)
        assert guess.options.value is None
        play(guess, [question.options[0]])


# --- nothing leaks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeline", ["restore", "mount"])
def test_what_the_browser_is_told_does_not_depend_on_the_answer(timeline, request, monkeypatch):
    timeline = request.getfixturevalue(timeline)
    for seed in range(3):
        questions = draw_questions(timeline, 6, seed)
        told = []
        for answer in (lambda each: each.answer(), wrong):
            changed = tuple(
                dataclasses.replace(each, _answer=answer(each), _explanation=f"{answer(each)}: because")
                for each in questions
            )
            monkeypatch.setattr(module, "draw_questions", lambda *_, changed=changed: changed)
            told.append(Guess(timeline, 6, seed))
        assert sent(told[0]) == sent(told[1])
        assert repr(told[0].question) == repr(told[1].question)
        for guess in told:  # the test sees a difference where there is one
            guess.guess(questions[0].options[0])
        assert sent(told[0]) != sent(told[1])


def test_the_explanation_is_told_after_the_guess_only(restore):
    guess = Guess(restore, 6, 1)
    for question in draw_questions(restore, 6, 1):
        told = json.dumps(question.explanation())[1:-1]
        assert told not in sent(guess)
        assert guess.moment < question.index
        guess.options.value = question.options[-1]  # chosen, but not guessed yet
        assert told not in sent(guess)
        guess.guess_button.click()
        assert told in sent(guess)
        assert guess.moment == question.index
        guess.next_button.click()


def test_the_moment_is_not_sent(restore):
    assert "moment" not in Guess(restore).get_state()


@pytest.mark.parametrize("timeline", ["restore", "mount"])
def test_what_is_known_comes_from_the_events_before(timeline, request):
    timeline = request.getfixturevalue(timeline)
    for kind in QUESTION_KINDS:
        for question in draw_questions(timeline, 2, 0, [kind]):
            last = timeline.events.row(question.index, named=True)
            last["kind"] = {"hit_or_miss": "cache_hit"}.get(kind, last["kind"])
            event = pl.DataFrame([last], schema=EVENTS_SCHEMA)
            until = pl.concat([timeline.events.head(question.index), event])
            ended = dataclasses.replace(timeline, events=until)
            assert list(module._known(ended, question)) == list(module._known(timeline, question))


# --- guessing -----------------------------------------------------------------------------------------


def test_right_and_wrong_are_told_and_counted(restore):
    guess = Guess(restore, 3, 5)
    questions = draw_questions(restore, 3, 5)
    assert (guess.score, guess.answers, guess.score_line) == (0, (), "0 of 3 right")
    assert guess.guess(questions[0].answer())
    assert "✓ Right." in status(guess)
    assert guess.next()
    assert not guess.guess(wrong(questions[1]))
    assert f"✗ Wrong: you guessed {wrong(questions[1])}, right is {questions[1].answer()}." in status(guess)
    assert (guess.score, guess.score_line) == (1, "1 of 3 right")
    assert "1 of 3 right" in guess._place.value
    assert guess.answers == (questions[0].answer(), wrong(questions[1]))


def test_by_the_keyboard_to_the_end(restore):
    guess = Guess(restore)
    answers = [question.answer() for question in draw_questions(restore)]
    play(guess, answers)
    assert guess.answers == tuple(answers)
    assert guess.score_line == "5 of 5 right"
    assert "That was the last question: 5 of 5 right." in status(guess)
    assert not guess.next()


def test_buttons_say_what_is_missing(restore):
    guess = Guess(restore)
    first = guess.question
    guess.guess_button.click()
    assert "Choose an answer first" in status(guess)
    guess.options.value = first.options[0]
    guess.next_button.click()
    assert "Guess first" in status(guess)
    assert guess.question is first
    guess.guess_button.click()
    assert guess.options.disabled
    guess.guess_button.click()
    assert "is answered" in status(guess)
    assert guess.answers == (first.options[0],)
    guess.next_button.click()
    assert not guess.options.disabled


def test_only_the_first_guess_counts(restore):
    guess = Guess(restore)
    guess.guess(guess.question.options[0])
    with pytest.raises(QuestionError, match="expected one guess for each question, got"):
        guess.guess(guess.question.options[1])
    assert len(guess.answers) == 1


def test_what_is_no_option(restore):
    guess = Guess(restore, 1, 0, ["hit_or_miss"])
    with pytest.raises(QuestionError, match="guess: expected one of hit, wait, miss, got 'maybe'"):
        guess.guess("maybe")
    assert guess.answers == ()


# --- with a stepper -----------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [traitlets.link, traitlets.dlink])
def test_a_stepper_goes_to_the_moment(restore, link):
    guess, stepper = Guess(restore), Stepper(restore)
    link((guess, "moment"), (stepper, "index"))
    assert stepper.index == -1
    for question in draw_questions(restore):
        guess.guess(question.options[0])
        assert stepper.index == question.index
        assert stepper.time_ns == restore.times[question.index]
        stepper.step()  # a look at what follows changes nothing here
        assert guess.answers[-1] == question.options[0]
        guess.next()


# --- accessibility ------------------------------------------------------------------------------------


def test_every_control_has_a_text(restore):
    controls = [
        widget
        for widget in every_widget(Guess(restore))
        if not isinstance(widget, (ipywidgets.Box, ipywidgets.HTML, Look))
    ]
    assert len(controls) == 3
    assert all(control.description and control.tooltip for control in controls)


def test_each_turn_is_announced(restore):
    guess = Guess(restore)
    seen = []
    for act in (guess.next, lambda: guess.guess(guess.question.options[0]), guess.next):
        act()
        assert status(guess).count('<p role="status" aria-live="polite">') == 1
        seen.append(status(guess))
    assert len(set(seen)) == 3


def test_uses_no_output_widgets(restore):
    kinds = {type(widget).__name__ for widget in every_widget(Guess(restore))}
    assert kinds == {"Guess", "HTML", "Look", "RadioButtons", "HBox", "Button"}


# --- bad arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("restore",), r"timeline: expected a Timeline, as simulate\(\) returns it, got str"),
        ((None,), "timeline: expected a Timeline"),
    ],
)
def test_what_is_no_timeline(arguments, said):
    with pytest.raises(ValueError, match=said):
        Guess(*arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"questions": 0}, "questions: expected a whole number of at least 1, got 0"),
        ({"questions": 10_000}, r"questions: expected at most \d+, as this timeline offers no more"),
        ({"seed": 1.5}, "seed: expected a whole number of at least 0, got 1.5"),
        ({"kinds": ("hits",)}, r"kinds: expected some of hit_or_miss, .*got \('hits',\)"),
        ({"width": None}, "width: expected pixels or a CSS length, got None"),
    ],
)
def test_bad_arguments(restore, arguments, said):
    with pytest.raises(QuestionError, match=said):
        Guess(restore, **arguments)


def test_width(restore):
    assert Guess(restore, width=640).layout.width == "640px"
    assert Guess(restore, width="80%").layout.width == "80%"
