"""The form for guesses without a browser."""

import pytest
from test_stepper import every_widget

from vmrestorekit.show.guessing.guess_form import GuessForm

ANSWERS = ["yes", "no"]


@pytest.fixture
def form():
    return GuessForm(first=("Is it?", ANSWERS), many=("How many?", range(101)))


def status(form):
    return form._status.value


def test_nothing_is_guessed_at_first(form):
    assert form.guesses == {}
    assert "0 of 2" in status(form)
    assert form.controls["first"].value is None


def test_controls_guess(form):
    form.controls["first"].value = "no"
    form.controls["many"].value = 7
    assert form.guesses == {"first": "no", "many": 7}
    assert "2 of 2" in status(form)
    form.controls["first"].value = "yes"
    assert form.guesses["first"] == "yes"


def test_the_middle_of_a_slider_counts_only_if_somebody_says_so(form):
    assert "many" not in form.guesses
    form.guess("many", form.controls["many"].value)
    assert form.guesses == {"many": 50}


def test_tells_what_became_of_the_guesses(form):
    form.guess("first", "no")
    told = form.tell(first="yes", many=90)
    assert [mark for mark, _ in told.lines] == ["✗", "…"]
    assert "Is it? yes. You guessed: no." in repr(told)
    assert "You did not guess" in repr(told)
    form.guess("many", 81)
    assert [mark for mark, _ in form.tell(first="no", many=90).lines] == ["✓", "✓"]
    form.guess("many", 79)
    assert form.tell(many=90).lines[0][0] == "✗"
    assert 'role="status"' in told._repr_html_()


def test_a_number_has_its_unit_and_a_long_question_is_not_asked_again():
    long = "How many per cent of a disk does a machine read until it has booted?"
    form = GuessForm(share=(long, range(101), "%"), many=("How many?", range(11)))
    assert form.controls["share"].description == "Guess (%)"
    form.guess("share", 40)
    told = form.tell(share=18, many=3)
    assert told.lines == (
        ("✗", "1 · 18 %. You guessed: 40 %."),
        ("…", "2 · How many? 3. (You did not guess.)"),
    )


def test_what_the_page_shows_is_escaped():
    form = GuessForm(first=("Is a < b?", ["<yes>", "no"]))
    assert "a &lt; b" in form.children[1].value
    assert "&lt;yes&gt;" in form.tell(first="<yes>")._repr_html_()


def test_every_control_has_a_label_and_a_tooltip(form):
    for widget in every_widget(form):
        if hasattr(widget, "description") and type(widget).__name__ != "HTML":
            assert widget.description, widget
            assert widget.tooltip, widget


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ({}, "questions: expected at least one, got none"),
        ({"q": "Is it?"}, "q: expected a question, its options and perhaps a unit"),
        ({"q": ("How many?", range(5), "%", "s")}, "q: expected a question, its options and perhaps a unit"),
        ({"q": ("How many?", range(5), 3)}, "q: expected a unit as a text, and with a range only, got 3"),
        ({"q": ("Is it?", ANSWERS, "%")}, "q: expected a unit as a text, and with a range only"),
        ({"q": ("", ANSWERS)}, "q: expected a question, got ''"),
        ({"q": ("Is it?", ["yes"])}, "q: expected at least two different options"),
        ({"q": ("Is it?", ["yes", "yes"])}, "q: expected at least two different options"),
        ({"q": ("Is it?", "yes")}, "q: expected at least two different options"),
    ],
)
def test_questions_that_are_none_are_refused(questions, message):
    with pytest.raises(ValueError, match=message):
        GuessForm(**questions)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"second": "yes"}, "tell: expected one of first, many, got 'second'"),
        ({"first": "perhaps"}, "tell first: expected one of 'yes', 'no', got 'perhaps'"),
        ({"many": 101}, "tell many: expected a whole number from 0 to 100, got 101"),
        ({"many": 1.5}, "tell many: expected a whole number"),
        ({"many": "7"}, "tell many: expected a whole number"),
    ],
)
def test_answers_that_are_none_are_refused(form, answer, message):
    with pytest.raises(ValueError, match=message):
        form.tell(**answer)
