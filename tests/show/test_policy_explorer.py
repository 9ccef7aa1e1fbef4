"""The policy explorer without a browser: its states against slow readable models, sentences, controls."""

import itertools
import random
import sys
import time
from pathlib import Path

import ipywidgets
import numpy as np
import polars as pl
import pytest
from test_stepper import every_widget

sys.path.insert(0, str(Path(__file__).parents[1] / "restore"))
from slow_policies import SLOW

from vmrestorekit.restore import policies as compiled
from vmrestorekit.restore.eviction import EVICTION_POLICIES
from vmrestorekit.restore.replay import block_accesses, replay_cache
from vmrestorekit.show.policy import pictures as policy_pictures
from vmrestorekit.show.policy import steps as policy_steps
from vmrestorekit.show.policy.explorer import PolicyExplorer
from vmrestorekit.show.policy.reasons import POLICY_NAMES, tell_step
from vmrestorekit.show.policy.steps import draw_accesses

EVERY = tuple(EVICTION_POLICIES)
SEEDS = range(25)


def drawn(seed):
    """Accesses and slots that are different enough to reach every branch."""
    draw = random.Random(seed)
    length, blocks = draw.choice([20, 60, 200]), draw.choice([5, 9, 14, 30])
    return draw_accesses(seed, length, blocks), draw.choice([1, 2, 3, 4, 6, 11, 16])


def of_slow(name, slow):
    """The slow model's state in the words of a `CacheState`."""
    if name == "s3fifo":
        return {"main": slow.main, "small": slow.small, "ghost_small": slow.ghost}
    if name == "arc":
        return {"main": slow.t2, "small": slow.t1, "ghost_small": slow.b1, "ghost_main": slow.b2}
    return {"main": slow.order}


# --- the states are those of the policy, and an independent model agrees --------------------------------


def test_queues_are_numbered_as_the_compiled_policies_have_them():
    numbers = (compiled.MAIN, compiled.SMALL, compiled.GHOST_SMALL, compiled.GHOST_MAIN)
    assert numbers == tuple(range(1, 1 + len(policy_steps._QUEUES)))
    assert policy_steps._QUEUES == ("main", "small", "ghost_small", "ghost_main")


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_state_is_that_of_the_slow_model(name, seed):
    accesses, capacity = drawn(seed)
    slow = SLOW[name](capacity)
    for at, step in enumerate(policy_steps.policy_steps(name, accesses, capacity)):
        block = accesses[at]
        if name == "belady":
            later = [i for i in range(at + 1, len(accesses)) if accesses[i] == block]
            slow.next_use[block] = later[0] if later else 2**62
        assert step.hit == (block in slow.blocks())
        if step.hit:
            slow.hit(block)
        else:
            slow.miss(block)
            victim = slow.evict(block, lambda _: True) if len(slow.blocks()) == capacity else None
            assert step.evicted == victim
            slow.insert(block)
        assert set(step.after.held) == slow.blocks()
        if name == "belady":
            for held, next_use in step.after.next_use.items():
                assert slow.next_use[held] == (2**62 if next_use is None else next_use)
            continue
        for queue, blocks in of_slow(name, slow).items():
            assert step.after.queues[queue] == tuple(blocks), (queue, at)
        if name in ("clock", "sieve"):
            assert {held for held, bit in step.after.visits.items() if bit} == slow.bit
        if name == "s3fifo":
            assert step.after.visits == {held: slow.visits[held] for held in slow.blocks()}
        if name == "sieve" and step.after.hand is not None:
            assert slow.order[slow.hand] == step.after.hand
        if name == "arc":
            assert step.after.target == slow.target


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seed", SEEDS)
def test_hits_are_those_of_the_replay(name, seed):
    accesses, capacity = drawn(seed)
    steps = policy_steps.policy_steps(name, accesses, capacity)
    assert steps[-1].hits == replay_cache(accesses, capacity, name).hits
    for before, step in itertools.pairwise(steps):
        assert step.before == before.after


# --- the reasons are true -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seed", SEEDS)
def test_reasons_say_what_is_so(name, seed):
    accesses, capacity = drawn(seed)
    for step in policy_steps.policy_steps(name, accesses, capacity):
        told, victim = tell_step(name, step), step.evicted
        assert told.startswith(f"Access {step.access + 1} asks for block {step.block}: ")
        assert ("hit" in told.split(":")[1]) == step.hit
        assert "  " not in told
        if victim is None:
            assert " goes: " not in told
            continue
        assert f"lock {victim}" in told
        assert "goes" in told
        past = accesses[: step.access]
        last = max(at for at, block in enumerate(past) if block == victim)
        if name == "lru":
            assert f"at access {last + 1}," in told
            assert all(
                max(at for at, block in enumerate(past) if block == held) >= last for held in step.before.held
            )
        if name == "fifo":
            assert step.before.queues["main"][0] == victim
            assert ("was not used since" in told) == (last == step.evicted_came)
        if name == "belady":
            later = [at for at in range(step.access, len(accesses)) if accesses[at] == victim]
            assert (f"at access {later[0] + 1}," in told) if later else ("never used again" in told)
        if name == "s3fifo" and "oldest of the small queue" in told:
            assert "ghost list" in told or capacity == 1
            assert capacity == 1 or victim in step.room.queues["ghost_small"]
        if name == "s3fifo" and "main queue whose" in told:
            assert victim not in step.room.queues["ghost_small"]
        if name == "arc":
            ghosts = "ghost_small" if "oldest of T1" in told else "ghost_main"
            assert step.room.queues[ghosts][-1] == victim
            if "above its target" in told:
                assert len(step.asked.queues["small"]) > step.asked.target


def test_every_kind_of_reason_comes_up():
    said = {name: "" for name in EVERY}
    for name in EVERY:
        for seed in range(60):
            accesses, capacity = drawn(seed)
            said[name] += " ".join(
                tell_step(name, step) for step in policy_steps.policy_steps(name, accesses, capacity)
            )
    for name, words in {
        "fifo": ["does not help it", "was not used since"],
        "clock": ["Every block has its bit set", "were older", "was older", "its bit is not set"],
        "sieve": ["begins at the oldest", "begins at block", "passes blocks", "the hand is back at it"],
        "s3fifo": ["used at least twice", "used only once", "ghost list remembers", "the counter falls",
                   "nothing was evicted so far", "first to fall to 0", "stays at 3"],
        "arc": ["grows from", "shrinks from", "above its target", "not more than its target",
                "T1 (used once) is empty", "comes back to T2", "moves from T1 to T2"],
        "belady": ["never used again", "farthest away"],
    }.items():  # fmt: skip
        for word in words:
            assert word in said[name], (name, word)


# --- the widget -----------------------------------------------------------------------------------------


@pytest.fixture
def explorer():
    return PolicyExplorer(draw_accesses(3, 60, 9), 4, ("lru", "s3fifo"))


def test_steps_and_goes_back(explorer):
    assert explorer.index == -1
    assert "The cache is empty" in explorer.sentence
    explorer.step_button.click()
    assert explorer.index == 0
    assert "Access 1 asks for block" in explorer.columns[0].sentence
    explorer.back_button.click()
    assert not explorer.back()
    explorer.slider.value = 59
    assert explorer.index == 59
    assert not explorer.step()
    assert "last access" in explorer._place.value


def test_map_columns_and_table_follow_one_another(explorer):
    explorer.index = 20
    assert explorer.map.cell == 20
    assert "10 of 21 hit" in explorer.columns[0]._heading.value
    assert "<td>10</td>" in explorer._totals.value
    explorer.map.cell = explorer.map.columns + 7  # LRU's row
    assert explorer.index == explorer.slider.value == 7
    assert explorer.map.cell == explorer.map.columns + 7
    assert "Access 8" in explorer.columns[1].sentence


def test_arrow_keys_walk_over_the_pages(explorer):
    explorer.index = 39
    explorer.map.cell = 40
    assert (explorer.index, explorer.map.columns) == (40, 20)
    explorer.map.cell = 1
    explorer.map.cell = 0
    assert explorer.index == 40
    explorer.index = 45
    explorer.map.cell = explorer.map.columns  # a row below
    assert explorer.index == 40
    explorer.map.cell = explorer.map.columns - 1
    assert (explorer.index, explorer.map.columns) == (39, 40)


def test_nothing_is_told_of_later_accesses(explorer):
    explorer.index = 3
    assert explorer.map.svg.count(">M<") + explorer.map.svg.count(">H<") == 4 * 3


def test_slots_and_policies_can_be_changed(explorer):
    explorer.index = 30
    explorer.slots.value = 7
    assert explorer.capacity == 7
    assert explorer.columns[0].steps[-1].hits == replay_cache(explorer.accesses, 7, "lru").hits
    explorer.shown["arc"].value = True
    assert explorer.policies == ("lru", "s3fifo", "arc")
    explorer.shown["lru"].value = explorer.shown["s3fifo"].value = False
    explorer.shown["arc"].value = False
    assert explorer.policies == ("arc",)
    assert explorer.shown["arc"].value
    assert "has to stay" in explorer._place.value
    assert explorer.index == 30


def test_plays_to_the_end(explorer):
    explorer.index = 57
    explorer.play()
    assert explorer.play_button.value
    for tick in range(1, 5):
        explorer._ticker.value = tick
    assert explorer.index == 59
    assert not explorer.playing


def test_table_and_chart(explorer):
    table = explorer.table()
    assert table.height == 120
    assert table.filter(policy="lru")["hits"][-1] == replay_cache(explorer.accesses, 4, "lru").hits
    assert table.filter(pl.col("hit"))["evicted"].null_count() == table["hit"].sum()
    assert "vega-lite" in explorer.chart().to_json()


# --- guessing -------------------------------------------------------------------------------------------


def sent(explorer):
    """Everything that the browser is told as text."""
    texts = [each.value for each in every_widget(explorer) if isinstance(each, ipywidgets.HTML)]
    return "\n".join([*texts, explorer.map.svg, explorer.map.text])


def first_eviction(column):
    return next(step for step in column.steps if step.evicted is not None)


def test_who_goes_is_hidden_until_it_was_guessed():
    explorer = PolicyExplorer(draw_accesses(3, 60, 9), 4, ("lru",), guess=True)
    column = explorer.columns[0]
    step = first_eviction(column)
    explorer.index = step.access
    assert "Which block goes?" in column.sentence
    assert f"lock {step.evicted} goes" not in sent(explorer)
    assert ">✕<" not in column._picture.value
    assert {block for _, block in column.choice.options} == set(step.asked.held)
    assert column.choice.value is None
    column.guess_button.click()
    assert column.guesses == 0
    column.choice.value = step.evicted
    column.guess_button.click()
    assert (column.right, column.guesses) == (1, 1)
    assert column.sentence.startswith("✓ Right. ")
    assert f"Block {step.evicted} goes" in sent(explorer)
    assert "1 of 1 guesses right" in column._heading.value
    with pytest.raises(ValueError, match="guess: expected an access at which LRU evicts"):
        column.guess(step.evicted)


def test_a_wrong_guess_counts_and_step_shows_without_one():
    explorer = PolicyExplorer(draw_accesses(3, 60, 9), 4, ("lru", "fifo"), guess=True)
    column, other = explorer.columns
    step = first_eviction(column)
    explorer.index = step.access
    with pytest.raises(ValueError, match="guess: expected a block in the cache"):
        column.guess(99)
    wrong = next(block for block in step.asked.held if block != step.evicted)
    assert not column.guess(wrong)
    assert column.sentence.startswith(f"✗ Not block {wrong}. ")
    assert "Which block goes?" in other.sentence
    assert explorer.step()
    assert explorer.index == step.access
    assert " goes: " in other.sentence
    assert other.guesses == 0
    explorer.step()
    assert explorer.index == step.access + 1


def test_playing_stops_at_a_guess():
    explorer = PolicyExplorer(draw_accesses(3, 60, 9), 4, ("lru",), guess=True)
    explorer.play()
    for tick in range(1, 60):
        explorer._ticker.value = tick
    assert explorer.index == first_eviction(explorer.columns[0]).access
    assert not explorer.playing


# --- accessibility, speed -------------------------------------------------------------------------------


def test_every_control_has_a_text(explorer):
    kinds = (
        ipywidgets.Button,
        ipywidgets.ToggleButton,
        ipywidgets.Checkbox,
        ipywidgets.IntSlider,
        ipywidgets.Dropdown,
    )
    controls = [widget for widget in every_widget(explorer) if isinstance(widget, kinds)]
    assert len(controls) > 15
    assert all(control.tooltip for control in controls)
    assert all(control.description for control in controls)


def test_each_step_is_announced_once_for_each_policy(explorer):
    explorer.index = 12
    for column in explorer.columns:
        assert column._status.value.count('<p role="status" aria-live="polite">') == 1
    assert 'aria-label="LRU: list, used longest ago' in explorer.columns[0]._picture.value


def test_a_recorded_boot_is_shown_and_answers_quickly(packaged_corpus):
    accesses = block_accesses(packaged_corpus.boots[0].trace, 1 << 20)[:240]
    explorer = PolicyExplorer(accesses, 16, EVERY)
    started = time.perf_counter()
    for index in range(0, 240, 6):
        explorer.slider.value = index
    assert (time.perf_counter() - started) / 40 < 0.1


# --- bad arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([],), "accesses: expected 1 to 240 block numbers in one dimension"),
        ((np.zeros(241, int),), r"accesses: expected 1 to 240 block numbers .*got int64 of shape \(241,\)"),
        (([0.5],), "got float64"),
        (([1, -2],), "accesses: expected block numbers from 0 on, got -2 at place 1"),
        (([1], 0), "capacity: expected a whole number from 1 to 16, got 0"),
        (([1], 2.0), "capacity: .* got 2.0"),
        (([1], 2, ("mru",)), "policies: expected some of fifo, .*, got 'mru'"),
        (([1], 2, ()), r"policies: expected at least one of fifo, .*, none twice, got \(\)"),
        (([1], 2, ("lru", "lru")), "none twice"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=said) as caught:
        PolicyExplorer(*arguments)
    assert "\n" not in str(caught.value)


def test_bad_starts_and_draws():
    with pytest.raises(ValueError, match="start: expected an access from -1 to 1, got 2"):
        PolicyExplorer([1, 2], start=2)
    with pytest.raises(ValueError, match="length: expected a whole number of at least 1, got 0"):
        draw_accesses(1, 0)
    with pytest.raises(ValueError, match="policies: expected some of"):
        policy_steps.policy_steps("mru", (1,), 1)


def test_one_policy_by_its_name():
    assert PolicyExplorer([1, 2, 1], 1, "fifo", width=500).policies == ("fifo",)


def test_names_and_pictures_are_there_for_every_policy():
    assert tuple(POLICY_NAMES) == tuple(policy_pictures._QUEUES) == EVERY
