"""The order of staging depends on the device; SYNTHETIC probabilities and times."""

from __future__ import annotations

import functools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_boots import boot_of, manifest_of

from vmrestorekit.predict.by_name import NoPrediction
from vmrestorekit.predict.cache_blocks import CACHE_BLOCKS_SCHEMA, staging_order
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.ordering import StagingDevice, expected_stall_ns, least_stall_order
from vmrestorekit.predict.planning import make_plan

BLOCK = 65536
SECOND = 10**9
SLOW = StagingDevice(bandwidth=BLOCK)  # a block a second


def scores_of(*rows: tuple[float, float]) -> pl.DataFrame:
    """Blocks with these probabilities and expected times in seconds, all stored."""
    return pl.DataFrame(
        [(probability, time * SECOND, True) for probability, time in rows],
        schema=CACHE_BLOCKS_SCHEMA,
        orient="row",
    )


def test_what_is_staged_in_time_costs_nothing():
    scores = scores_of((1, 1), (1, 2), (1, 3))
    assert expected_stall_ns(np.array([0, 1, 2]), scores, BLOCK, SLOW) == 0


def test_what_is_under_way_costs_the_rest_of_its_fetch():
    scores = scores_of((1, 0.25), (0.5, 1.75))
    # the first one is 0.75 s late; the second is then asked for at 2.5 s, and was there at 2 s
    assert expected_stall_ns(np.array([0, 1]), scores, BLOCK, SLOW) == pytest.approx(0.75 * SECOND)


def test_what_is_not_staged_costs_a_fetch_with_its_probability():
    device = StagingDevice(bandwidth=BLOCK, positioning_ns=SECOND // 2)
    scores = scores_of((0.4, 1))
    nothing = np.array([], np.int32)
    assert expected_stall_ns(nothing, scores, BLOCK, device) == pytest.approx(0.4 * 1.5 * SECOND)


@pytest.mark.parametrize("order", [[1], [0, 1]])
def test_what_is_demanded_holds_up_staging_once(order):
    scores = scores_of((1, 0), (1, 0.5))
    # the first is demanded for 1 s; meanwhile the second is not fetched, so that half a second of it is left
    assert expected_stall_ns(np.array(order), scores, BLOCK, SLOW) == pytest.approx(1.5 * SECOND)


def test_a_head_start_is_time_to_stage():
    scores = scores_of((1, 0), (1, 0))
    late = expected_stall_ns(np.array([0, 1]), scores, BLOCK, SLOW)
    head_start = StagingDevice(bandwidth=BLOCK, head_start_ns=2 * SECOND)
    assert late > 0
    assert expected_stall_ns(np.array([0, 1]), scores, BLOCK, head_start) == 0


def test_a_slow_device_stages_no_long_shots_in_front_of_what_is_certain():
    # a dozen blocks that are hardly ever read are expected before those that always are
    rows = [(0.06, 0.5)] * 12 + [(1.0, 1.0)] * 6
    order = least_stall_order(scores_of(*rows), None, BLOCK, SLOW)
    assert set(order[:6]) == set(range(12, 18))


def test_where_there_is_time_for_all_long_shots_are_staged_by_their_times():
    # what is certain is needed so late that it can wait
    rows = [(0.06, 0.5)] * 12 + [(1.0, 5.0)] * 100
    device = StagingDevice(bandwidth=40 * BLOCK)
    scores = scores_of(*rows)
    order = least_stall_order(scores, None, BLOCK, device)
    assert set(order[:12]) == set(range(12))
    assert expected_stall_ns(order, scores, BLOCK, device) == 0
    assert expected_stall_ns(staging_order(scores), scores, BLOCK, device) > 0


def test_dear_positioning_puts_neighbours_together():
    # needed in an order that jumps to and fro on the medium
    places = [0, 10, 1, 11, 2, 12, 3, 13, 4, 14]
    times = dict(zip(places, np.arange(10) * 0.05 + 2, strict=True))
    scores = scores_of(*[(1.0, times[at]) if at in times else (0.0, 0.0) for at in range(15)])
    tape = StagingDevice(bandwidth=100 * BLOCK, positioning_ns=SECOND)
    order = least_stall_order(scores, None, BLOCK, tape)
    assert np.count_nonzero(np.diff(order) != 1) == 1
    assert staging_order(scores).tolist() == places


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 60)), min_size=1, max_size=30),
    st.integers(0, 40),
    st.integers(1, 10**9),
    st.integers(0, 10**10),
    st.integers(0, 10**10),
)
def test_it_is_the_same_blocks_in_no_worse_an_order(rows, most, bandwidth, positioning_ns, head_start_ns):
    scores, device = scores_of(*rows), StagingDevice(bandwidth, positioning_ns, head_start_ns)
    order = least_stall_order(scores, most, BLOCK, device)
    usual = staging_order(scores, most)
    assert sorted(order) == sorted(usual)
    stall, usual_stall = (expected_stall_ns(each, scores, BLOCK, device) for each in (order, usual))
    assert stall <= usual_stall


@pytest.mark.parametrize("device", [SLOW, StagingDevice(10**9, 10**6)])
def test_holes_are_not_staged(device):
    scores = scores_of(*[(1.0, 1.0)] * 5).with_columns(stored=pl.Series([False] + [True] * 4))
    assert 0 not in least_stall_order(scores, None, BLOCK, device)


@pytest.mark.parametrize("name", ["bandwidth", "positioning_ns", "head_start_ns"])
def test_devices_that_make_no_sense(name):
    with pytest.raises(PredictError, match=f"device: expected {name} of at least"):
        StagingDevice(**{"bandwidth": 1, name: -1})


class TestPlansForADevice:
    """A predictor that is sure of two blocks of 64, and gives the others a chance of one in a hundred."""

    @pytest.fixture
    def plan_for(self):
        manifest = manifest_of(range(1, 64 * 16 + 1))

        class Made(NoPrediction):
            def _score_blocks(self, manifest, disk):
                chance = np.full(manifest.blocks.height, 0.01)
                chance[:32] = 1.0
                return pl.DataFrame({"probability": chance, "first_read_ns": 1e9 * np.arange(chance.size)})

        fitted = Made().fit(boot_of(manifest, []))
        return functools.partial(make_plan, fitted, manifest)

    def test_without_a_device_a_quarter_more_than_expected(self, plan_for):
        assert plan_for().first_set.size == int(1.25 * (2 + 62 * 0.01)) + 1

    def test_with_one_all_that_have_a_chance_the_likely_first(self, plan_for):
        first_set = plan_for(device=SLOW).first_set
        assert first_set.size == 64
        assert set(first_set[:2]) == {0, 1}

    def test_but_no_more_than_there_is_room_in_the_cache(self, plan_for):
        assert plan_for(device=SLOW, cache_bytes=20 * BLOCK).first_set.size == 12

    def test_a_budget_is_a_budget(self, plan_for):
        assert plan_for(device=SLOW, budget_bytes=5 * BLOCK).first_set.size == 5
