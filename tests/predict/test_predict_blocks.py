"""Block arithmetic against slow oracles in plain Python."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_boots import BLOCK, MILLISECOND, boot_of, manifest_of

from vmrestorekit.predict.cache_blocks import CACHE_BLOCKS_SCHEMA, cache_block_scores, staging_order
from vmrestorekit.predict.observed import PredictError, blocks_covered, blocks_read

ranges = st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 20_000)), max_size=12)


@given(ranges, st.sampled_from([512, 4096, 65536]), st.booleans())
def test_ranges_are_cut_into_the_blocks_they_touch_or_cover(byte_ranges, block_bytes, whole):
    expected = []
    for row, (offset, length) in enumerate(byte_ranges):
        for block in range(70_000 // block_bytes + 1):
            start, end = block * block_bytes, (block + 1) * block_bytes
            covers = offset <= start and end <= offset + length
            touches = offset < end and start < offset + length
            if length and (covers if whole else touches):
                expected.append((row, block))
    offset, length = np.array(byte_ranges, np.int64).reshape(-1, 2).T
    row, block = blocks_covered(offset, length, block_bytes, whole=whole)
    assert list(zip(row.tolist(), block.tolist(), strict=True)) == expected


DISK_BLOCKS = 8
requests = st.lists(
    st.tuples(
        st.integers(0, 30).map(lambda tick: tick * MILLISECOND // 2),
        st.sampled_from(["read", "write", "discard"]),
        st.integers(0, 1),
        st.integers(0, 2 * DISK_BLOCKS - 1),
        st.integers(1, 8),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(requests, st.integers(0, 12))
def test_a_block_counts_as_read_unless_it_was_written_before_or_the_boot_was_over(half_blocks, done):
    rows = [
        (issued, op, disk, first * 2048, min(count, 2 * DISK_BLOCKS - first) * 2048)
        for issued, op, disk, first, count in half_blocks
    ]
    disks = (manifest_of([1] * DISK_BLOCKS), manifest_of([2] * DISK_BLOCKS))
    done_ns = done * MILLISECOND
    expected = {}
    for issued, op, disk, offset, length in sorted(rows):
        if op != "read" or issued > done_ns:
            continue
        for block in range(DISK_BLOCKS):
            start, end = block * BLOCK, (block + 1) * BLOCK
            own = any(
                other[1] != "read"
                and other[2] == disk
                and other[3] <= start
                and end <= other[3] + other[4]
                and other[0] + MILLISECOND <= issued
                for other in rows
            )
            if offset < end and start < offset + length and not own:
                first, count = expected.get((disk, block), (issued, 0))
                expected[disk, block] = (first, count + 1)
    found = blocks_read(boot_of(disks, rows, boot_done_ns=done_ns))
    assert {(row[0], row[1]): row[2:] for row in found.iter_rows()} == expected


def test_after_the_mark_counts_only_when_asked_for():
    boot = boot_of(
        manifest_of([1, 2]), [(5, "read", 0, 0, BLOCK), (50, "read", 0, BLOCK, BLOCK)], boot_done_ns=9
    )
    assert blocks_read(boot)["block"].to_list() == [0]
    assert blocks_read(boot, until="end")["block"].to_list() == [0, 1]


def test_a_boot_that_never_ended_is_refused():
    boot = boot_of(manifest_of([1]), [(5, "read", 0, 0, BLOCK)], boot_done_ns=None)
    with pytest.raises(PredictError, match="synthetic, boot-1: expected a mark 'boot_done_ns'"):
        blocks_read(boot)
    assert blocks_read(boot, until="end").height == 1


def test_until_says_what_it_accepts():
    with pytest.raises(PredictError, match="'boot_done' or 'end', got 'noon'"):
        blocks_read(boot_of(manifest_of([1]), []), until="noon")


probabilities = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), min_size=1, max_size=40)


@given(st.data(), probabilities, st.sampled_from([4096, 16384, 65536]))
def test_cache_blocks_sum_up_what_lies_in_them(data, probability, block_bytes):
    size = len(probability)
    times = data.draw(st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=size, max_size=size))
    content = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    scores = pl.DataFrame(
        {"probability": probability, "first_read_ns": times},
        schema={"probability": pl.Float64, "first_read_ns": pl.Float64},
    )
    found = cache_block_scores(scores, manifest_of(content).blocks, block_bytes, threshold=0.5)
    per_block = block_bytes // BLOCK
    assert found.height == math.ceil(size / per_block)
    for number, row in enumerate(found.iter_rows(named=True)):
        inside = range(number * per_block, min((number + 1) * per_block, size))
        assert row["probability"] == max(probability[at] for at in inside)
        assert row["stored"] == any(content[at] for at in inside)
        likely = [times[at] for at in inside if probability[at] >= 0.5 and times[at] is not None]
        most_probable = max(inside, key=lambda at: probability[at])
        assert row["first_read_ns"] == (min(likely) if likely else times[most_probable])


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.001, 0.2, 0.201, 0.6, 0.602, 1.0]),
            st.one_of(st.none(), st.integers(0, 5).map(float)),
            st.booleans(),
        ),
        max_size=30,
    ),
    st.one_of(st.none(), st.integers(0, 12)),
)
def test_likely_blocks_are_staged_by_time_and_the_others_by_probability(blocks, most):
    frame = pl.DataFrame(blocks, schema=CACHE_BLOCKS_SCHEMA, orient="row")
    order = staging_order(frame, most, threshold=0.5).tolist()

    def time(at):
        return math.inf if blocks[at][1] is None else blocks[at][1]

    def rounded(at):
        return round(blocks[at][0], 2)

    candidates = [at for at, (probability, _, stored) in enumerate(blocks) if stored and probability > 0]
    chosen = sorted(candidates, key=lambda at: (-rounded(at), time(at), at))[:most]
    likely = [at for at in chosen if blocks[at][0] >= 0.5]
    rest = [at for at in chosen if blocks[at][0] < 0.5]
    assert order == sorted(likely, key=lambda at: (time(at), -rounded(at), at)) + rest


@pytest.mark.parametrize("block_bytes", [0, 2048, 5000])
def test_a_cache_block_is_a_power_of_two_of_4_kib_or_more(block_bytes):
    scores = pl.DataFrame({"probability": [0.0], "first_read_ns": [None]})
    with pytest.raises(PredictError, match=f"power of two of at least 4096, got {block_bytes}"):
        cache_block_scores(scores, manifest_of([1]).blocks, block_bytes)
