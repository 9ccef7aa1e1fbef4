"""Evidence: sums over sources, each of which can be left out again; SYNTHETIC numbers."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrestorekit.predict.evidence import Evidence, EvidenceTable, Part

SOURCES = "abcd"
HIGHEST_KEY = 6
ASKED = np.arange(HIGHEST_KEY + 2, dtype=np.uint64)  # the last is in no table, and 0 is no key

# few values, whose sums round, are drawn faster than any
SHARES = (0.0, 1.0, 0.1, 0.3, 0.7, 1e-9, 1.3e-12)
ROW = st.tuples(st.integers(0, HIGHEST_KEY), st.sampled_from(SHARES), st.sampled_from((None, *SHARES)))
PIECES = st.lists(st.tuples(st.sampled_from(SOURCES), st.lists(ROW, max_size=5)), max_size=6)


def columns(rows):
    key, rate, when = zip(*rows, strict=True) if rows else ((), (), ())
    return (
        np.array(key, np.uint64),
        np.array(rate, np.float32),
        np.array([np.nan if at is None else at for at in when], np.float32),
    )


def table_of(pieces):
    return EvidenceTable.of((source, *columns(rows)) for source, rows in pieces)


def answers(table, without=()):
    return table.without(without)[table.rows(ASKED)]


def computed_slowly(pieces):
    """Sources, mean of their mean rates, mean of their mean times, of each key."""
    found = np.full((ASKED.size, 3), np.nan)
    for key in ASKED.tolist():
        rates, times = [], []
        for source in SOURCES:
            own = [row for name, rows in pieces if name == source for row in rows if row[0] == key]
            if key and own:
                rates.append(np.mean([rate for _, rate, _ in own]))
                seen = [when for _, _, when in own if when is not None]
                times += [np.mean(seen)] if seen else []
        found[key] = len(rates), np.mean(rates or [np.nan]), np.mean(times or [np.nan])
    return found


def assert_same(found, expected):
    np.testing.assert_array_equal(found[:, 0], expected[:, 0])
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], rtol=0, atol=1e-6, equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(PIECES, st.randoms(use_true_random=False))
def test_a_table_holds_means_over_sources_of_the_means_of_each_in_any_order(pieces, drawn: random.Random):
    expected = computed_slowly(pieces)
    assert_same(answers(table_of(pieces)), expected)
    shuffled = [(source, drawn.sample(rows, len(rows))) for source, rows in pieces]
    drawn.shuffle(shuffled)
    assert_same(answers(table_of(shuffled)), expected)


@settings(max_examples=80, deadline=None)
@given(PIECES, st.sets(st.sampled_from(SOURCES)))
def test_to_leave_sources_out_is_never_to_have_had_them(pieces, left_out):
    table = table_of(pieces)
    before = table.without()
    found = answers(table, left_out)
    expected = answers(table_of([piece for piece in pieces if piece[0] not in left_out]))
    assert_same(found, expected)
    # what rounding leaves of those who are gone must not tell that they were there
    np.testing.assert_array_equal(found[expected == 0], 0)
    assert not (found < 0).any()
    np.testing.assert_array_equal(table.without(), before)


def test_a_trace_of_rounding_is_no_evidence():
    gone = {"a": 0.6, "b": 1.7e-9, "c": 0.8}
    table = table_of(
        [*((source, [(1, rate, rate)]) for source, rate in gone.items()), ("d", [(1, 0.0, 0.0)])]
    )
    left = float(table.totals[0, 1])
    for rate in gone.values():
        left -= float(np.float32(rate))
    assert left > 0
    np.testing.assert_array_equal(answers(table, gone)[1], [1, 0, 0])


def test_a_source_counts_once_however_many_blocks_it_has():
    table = table_of(
        [("a", [(5, 1.0, 0.5), (5, 0.0, None)]), ("a", [(5, 0.5, 0.1)]), ("b", [(5, 0.0, None)])]
    )
    np.testing.assert_allclose(answers(table)[5], [2, 0.25, 0.3], rtol=1e-6)
    np.testing.assert_allclose(answers(table, {"b"})[5], [1, 0.5, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(answers(table, {"a"})[5], [1, 0, np.nan])
    np.testing.assert_array_equal(answers(table, ["a", "b", "nobody"])[5], [0, np.nan, np.nan])


def test_unknown_keys_and_no_key_have_the_row_past_the_last():
    table = table_of([("a", [(0, 1.0, 0.5), (3, 1.0, 0.5)])])
    assert table.known.tolist() == [3]
    assert table.rows(np.array([0, 3, 2**64 - 1, 4], np.uint64)).tolist() == [1, 0, 1, 1]
    np.testing.assert_array_equal(table.without()[1], [0, np.nan, np.nan])


@pytest.mark.parametrize("pieces", [[], [("a", [])], [("a", [(0, 1.0, 0.0)])]])
def test_a_table_of_nothing_answers_that_it_knows_nothing(pieces):
    for found in (answers(table_of(pieces)), answers(table_of(pieces), {"a"})):
        np.testing.assert_array_equal(found, np.tile([0, np.nan, np.nan], (ASKED.size, 1)))


def test_evidence_keeps_kinds_of_keys_apart():
    def part(source, file, name, rate):
        keys = {"file": np.array([file], np.uint64), "name": np.array([name], np.uint64)}
        return Part(source, keys, np.array([rate], np.float32), np.array([rate], np.float32))

    evidence = Evidence.of(iter([part("a", 1, 9, 1.0), part("b", 2, 9, 0.5)]), ["file", "name"])
    rows = evidence.rows({"file": np.array([1, 9], np.uint64), "name": np.array([1, 9], np.uint64)})
    every, fewer = evidence.without(), evidence.without({"b"})
    np.testing.assert_array_equal(every["file"][rows["file"]], [[1, 1, 1], [0, np.nan, np.nan]])
    np.testing.assert_array_equal(every["name"][rows["name"]], [[0, np.nan, np.nan], [2, 0.75, 0.75]])
    np.testing.assert_array_equal(fewer["name"][rows["name"]], [[0, np.nan, np.nan], [1, 1, 1]])
