"""Eviction policies against slow readable models, with pins and purges; libCacheSim; brute force."""

from __future__ import annotations

import dataclasses
import functools
import os
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slow_policies import SLOW, Slow

from vmrestorekit.restore import eviction, policies
from vmrestorekit.restore.eviction import EVICTION_POLICIES, EvictionPolicy, PolicyError, new_policy
from vmrestorekit.restore.replay import block_accesses, miss_ratio_curve, replay_cache
from vmrestorekit.traces.corpus import Corpus
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata

ONLINE = [name for name in EVICTION_POLICIES if name != "belady"]
BLOCKS = 12
ids_lists = st.lists(st.integers(0, BLOCKS - 1), max_size=80)


def test_names_and_numbers_agree() -> None:
    assert tuple(EVICTION_POLICIES) == policies.POLICY_NAMES
    assert eviction._IN_CACHE == (policies.MAIN, policies.SMALL)
    for code, name in enumerate(policies.POLICY_NAMES):
        assert new_policy(name, 1, 1).caches["policy"][0] == code


# --- the contract, step by step -------------------------------------------------------------------------


@dataclasses.dataclass
class TwoCaches:
    """One cache that asks the compiled policy and the slow one, and insists that they agree."""

    name: str
    capacity: int

    def __post_init__(self) -> None:
        self.fast = EvictionPolicy(self.name, BLOCKS, self.capacity)
        self.slow: Slow = SLOW[self.name](self.capacity)
        self.on_the_way: list[int] = []
        self.pinned: set[int] = set()
        self.unserved: set[int] = set()
        self.clock = 0

    def may_go(self, block: int, for_staging: bool) -> bool:
        return block not in self.pinned and not (for_staging and block in self.unserved)

    def tell_next_use(self, block: int, at: int) -> None:
        if self.name == "belady":
            self.fast.next_use(block, at)
            self.slow.next_use[block] = at  # type: ignore[attr-defined]

    def access(self, block: int, next_use: int, for_staging: bool) -> None:
        """A demand, or a stager's fetch, that begins; it ends when the block is delivered."""
        if block in self.on_the_way:
            return
        if block in self.fast.blocks():
            if not for_staging:
                self.tell_next_use(block, next_use)
                self.fast.hit(block)
                self.slow.hit(block)
            return
        incoming = None
        if not for_staging:
            incoming = block
            self.fast.miss(block)
            self.slow.miss(block)
        if len(self.fast.blocks()) + len(self.on_the_way) == self.capacity:
            evictable = sum(self.may_go(held, for_staging) for held in self.slow.blocks())
            assert self.fast.evictable(for_staging=for_staging) == evictable
            victim = self.fast.evict(incoming, for_staging=for_staging)
            assert victim == self.slow.evict(incoming, lambda held: self.may_go(held, for_staging))
            assert (victim is None) == (evictable == 0)
            if victim is None:
                return
        self.on_the_way.append(block)

    def deliver(self, next_use: int) -> None:
        if self.on_the_way:
            block = self.on_the_way.pop(0)
            self.tell_next_use(block, next_use)
            self.fast.insert(block)
            self.slow.insert(block)

    def hold(self, block: int, pinned: bool, served: bool) -> None:
        self.fast.hold(block, pinned=pinned, served=served)
        for blocks, belongs in ((self.pinned, pinned), (self.unserved, not served)):
            (blocks.add if belongs else blocks.discard)(block)

    def purge(self, block: int) -> None:
        if block not in self.on_the_way:
            self.fast.remove(block)
            self.slow.remove(block)


blocks = st.integers(0, BLOCKS - 1)
steps = st.one_of(
    st.tuples(st.just("access"), blocks, st.integers(0, 99), st.just(False)),
    st.tuples(st.just("access"), blocks, st.integers(0, 99), st.booleans()),
    st.tuples(st.just("deliver"), st.integers(0, 99)),
    st.tuples(st.just("deliver"), st.integers(0, 99)),
    st.tuples(st.just("hold"), blocks, st.booleans(), st.booleans()),
    st.tuples(st.just("hold"), blocks, st.just(False), st.just(True)),
    st.tuples(st.just("purge"), blocks),
)


@pytest.mark.parametrize("name", EVICTION_POLICIES)
@given(st.integers(1, 10), st.lists(steps, max_size=120))
@settings(max_examples=60, deadline=None)
def test_each_step_is_that_of_the_slow_model(name: str, capacity: int, todo: list[tuple[Any, ...]]) -> None:
    walk(TwoCaches(name, capacity), todo)


@pytest.mark.parametrize("name", EVICTION_POLICIES)
def test_each_step_of_long_walks_is_that_of_the_slow_model(name: str) -> None:
    """Drawn at once: step by step, hypothesis seldom comes to where histories are full and much is pinned."""
    for seed in range(12):
        draw = random.Random(seed)
        capacity = draw.choice([1, 3, 5, 8, 10])
        rarely = draw.choice([0.02, 0.1])
        todo: list[tuple[Any, ...]] = []
        for _ in range(600):
            # from 0 to 2 more often, so that there are hits
            block = draw.choice([draw.randrange(BLOCKS), draw.randrange(3)])
            next_use = draw.randrange(6)
            if draw.random() < rarely:
                todo.append(("purge", block))
            elif draw.random() < 0.2:
                todo.append(("hold", block, draw.random() < 0.3, draw.random() < 0.5))
            elif draw.random() < 0.4:
                todo.append(("deliver", next_use))
            else:
                todo.append(("access", block, next_use, draw.random() < 0.2))
        walk(TwoCaches(name, capacity), todo)


def walk(caches: TwoCaches, todo: list[tuple[Any, ...]]) -> None:
    for what, *details in todo:
        getattr(caches, what)(*details)
        assert caches.fast.blocks() == caches.slow.blocks()
        assert len(caches.fast.blocks()) + len(caches.on_the_way) <= caches.capacity


def replay_slowly(name: str, ids: list[int], capacity: int) -> int:
    slow, hits = SLOW[name](capacity), 0
    for at, block in enumerate(ids):
        later = [i for i in range(at + 1, len(ids)) if ids[i] == block]
        if name == "belady":
            slow.next_use[block] = later[0] if later else len(ids)
        if block in slow.blocks():
            hits += 1
            slow.hit(block)
            continue
        slow.miss(block)
        if len(slow.blocks()) == capacity:
            slow.evict(block, lambda _: True)
        slow.insert(block)
    return hits


@pytest.mark.parametrize("name", EVICTION_POLICIES)
@given(ids_lists, st.integers(1, 14))
@settings(max_examples=60, deadline=None)
def test_replay_has_the_hits_of_the_slow_model(name: str, ids: list[int], capacity: int) -> None:
    result = replay_cache(ids, capacity, name)
    assert result.hits == replay_slowly(name, ids, capacity)
    assert result.hits + result.misses == result.accesses == len(ids)
    assert result.miss_ratio == (result.misses / len(ids) if ids else 0)


@given(ids_lists, st.integers(1, 14))
@settings(max_examples=60, deadline=None)
def test_the_kernel_for_lru_alone_and_the_common_one_agree(ids: list[int], capacity: int) -> None:
    common = policies.replay(
        new_policy("lru", BLOCKS, capacity).caches, np.array(ids, np.int32), np.empty(0, np.int64)
    )
    assert replay_cache(ids, capacity, "lru").hits == common


def test_pinned_blocks_stay_and_stagers_leave_alone_what_was_not_served() -> None:
    policy = EvictionPolicy("lru", 10, 3)
    for block in (0, 1, 2):
        policy.insert(block)
    policy.hold(0, pinned=True)
    policy.hold(1, served=False)
    assert policy.evictable(for_staging=True) == 1
    assert policy.evict(for_staging=True) == 2
    assert policy.evict(for_staging=True) is None
    assert policy.evict() == 1
    assert policy.evict() is None
    policy.hold(0)
    assert policy.evict() == 0
    assert policy.blocks() == set()


# --- the optimum ----------------------------------------------------------------------------------------


def most_hits(ids: tuple[int, ...], capacity: int) -> int:
    """Try every choice of what to evict."""

    @functools.cache
    def best(at: int, held: frozenset[int]) -> int:
        if at == len(ids):
            return 0
        block = ids[at]
        if block in held:
            return 1 + best(at + 1, held)
        if len(held) < capacity:
            return best(at + 1, held | {block})
        return max(best(at + 1, held - {victim} | {block}) for victim in held)

    return best(0, frozenset())


@given(st.lists(st.integers(0, 5), max_size=14).map(tuple), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_nothing_beats_belady(ids: tuple[int, ...], capacity: int) -> None:
    assert replay_cache(ids, capacity, "belady").hits == most_hits(ids, capacity)


@pytest.mark.parametrize("capacity", [1, 10, 100, 700])
def test_belady_has_at_least_the_hits_of_every_other_policy(capacity: int) -> None:
    ids = synthetic(20_000, 2_000, seed=1)
    hits = {name: replay_cache(ids, capacity, name).hits for name in EVICTION_POLICIES}
    assert max(hits.values()) == hits["belady"]
    assert len(set(hits.values())) > 3 or capacity == 1


# --- the miss-ratio curve -------------------------------------------------------------------------------


@given(ids_lists)
@settings(max_examples=100, deadline=None)
@example([])
def test_the_curve_is_lru_at_every_size(ids: list[int]) -> None:
    curve = miss_ratio_curve(ids, block_bytes=4096)
    assert curve["cache_blocks"].to_list() == list(range(1, len(set(ids)) + 1))
    assert curve["cache_bytes"].to_list() == [4096 * size for size in curve["cache_blocks"]]
    for size, ratio in zip(curve["cache_blocks"], curve["miss_ratio"], strict=True):
        assert ratio == replay_cache(ids, size, "lru").miss_ratio
    assert (curve["miss_ratio"].diff().drop_nulls() <= 0).all()


@pytest.mark.parametrize("distinct", [3, 700, 3_000, 40_000])
def test_the_curve_of_a_long_trace_whose_times_are_renumbered(distinct: int) -> None:
    ids = synthetic(400_000, distinct, seed=2)
    curve = miss_ratio_curve(ids)["miss_ratio"].to_numpy()
    assert len(curve) == len(np.unique(ids))
    for size in {1, 2, 63, 512, len(curve) // 2, len(curve) - 1, len(curve)} & set(range(1, len(curve) + 1)):
        assert curve[size - 1] == replay_cache(ids, size, "lru").miss_ratio


# --- libCacheSim ----------------------------------------------------------------------------------------

CLASS_NAMES = {
    "fifo": "FIFO",
    "lru": "LRU",
    "clock": "Clock",
    "sieve": "Sieve",
    "s3fifo": "S3FIFO",
    "arc": "ARC",
    "belady": "Belady",
}
REQUEST = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "cloudPhysicsIO.oracleGeneral.bin"
SHARED_REQUESTS, SHARED_BLOCKS = 113_872, 48_974


@pytest.fixture(scope="module")
def libcachesim() -> ModuleType:
    try:
        import libcachesim
    except ImportError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"libCacheSim has to be there: {error}")
        pytest.skip(f"libCacheSim is not installed (pip install '.[test]'): {error}")
    return libcachesim


def synthetic(requests: int, distinct: int, seed: int) -> np.ndarray:
    """SYNTHETIC accesses: half of them Zipf, the rest in sequential sweeps, as block I/O has them."""
    rng = np.random.default_rng(seed)
    skewed = rng.permutation(distinct)[np.minimum(rng.zipf(1.2, requests), distinct) - 1]
    sweep = (np.arange(requests) // 3 + distinct // 3) % distinct
    return np.where(rng.random(requests) < 0.5, skewed, sweep).astype(np.int32)


def assert_same_hits(library: ModuleType, ids: np.ndarray, path: Path) -> None:
    """For every policy at five sizes; with less than 20 slots libCacheSim's S3-FIFO admits nothing new."""
    requests = np.zeros(len(ids), REQUEST)
    requests["id"], requests["size"] = ids, 1
    following = pl.DataFrame({"id": ids, "at": np.arange(len(ids))}).select(
        pl.col("at").shift(-1).over("id").fill_null(-1)
    )
    requests["next"] = following["at"].to_numpy()
    requests.tofile(path)
    distinct = len(np.unique(ids))
    sizes = [max(int(share * distinct), 20) for share in (0.005, 0.02, 0.1, 0.3, 0.7)]
    ours, theirs = {}, {}
    for name, class_name in CLASS_NAMES.items():
        for size in sizes:
            reader = library.TraceReader(
                str(path),
                library.TraceType.ORACLE_GENERAL_TRACE,
                library.ReaderInitParam(ignore_obj_size=True),
            )
            cache = getattr(library, class_name)(size, hashpower=16)
            misses = round(cache.process_trace(reader)[0] * len(ids))
            theirs[name, size] = len(ids) - misses
            ours[name, size] = replay_cache(ids, size, name).hits
    assert ours == theirs
    assert len(set(ours.values())) > len(sizes)


def test_hits_are_those_of_libcachesim_on_the_cloudphysics_trace(
    libcachesim: ModuleType, tmp_path: Path
) -> None:
    if not SHARED.is_file():
        pytest.skip("the cloudPhysicsIO trace is not at hand (../shared/data); the synthetic one is compared")
    ids = np.fromfile(SHARED, REQUEST)["id"].astype(np.int64)
    assert (len(ids), len(np.unique(ids))) == (SHARED_REQUESTS, SHARED_BLOCKS)
    assert_same_hits(libcachesim, ids, tmp_path / "trace.bin")


def test_hits_are_those_of_libcachesim_on_a_synthetic_trace_of_that_size(
    libcachesim: ModuleType, tmp_path: Path
) -> None:
    ids = synthetic(SHARED_REQUESTS, SHARED_BLOCKS, seed=3)
    assert_same_hits(libcachesim, ids, tmp_path / "trace.bin")


@pytest.mark.parametrize("block_bytes", [4096, 65536])
def test_hits_are_those_of_libcachesim_on_recorded_boots(
    libcachesim: ModuleType, packaged_corpus: Corpus, block_bytes: int, tmp_path: Path
) -> None:
    for machine in packaged_corpus.values():
        ids = block_accesses(machine.boots[-1].trace, block_bytes)
        assert_same_hits(libcachesim, ids, tmp_path / "trace.bin")


# --- what is replayed -----------------------------------------------------------------------------------


def test_the_reads_of_a_trace_are_cut_into_blocks_over_all_disks() -> None:
    rows = [
        (0, 1, 0, "read", 4000, 200),  # the end of block 0 and the beginning of block 1
        (1, 2, 0, "write", 0, 4096),
        (2, 3, 1, "read", 4096, 4096),  # the first disk has 2 blocks and a bit
        (3, 4, 0, "flush", 0, 0),
        (4, 5, 0, "read", 8192, 100),
    ]
    trace = ReadTrace(
        pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row"),
        TraceMetadata("vm", "boot", (8292, 8192), {}, "test", "none", {}),
    )
    assert block_accesses(trace, 4096).tolist() == [0, 1, 4, 2]
    assert block_accesses(trace, 4096, ops=("write",)).tolist() == [0]
    assert replay_cache(trace, 2, block_bytes=16384).hits == 1  # blocks 0, 1, 0
    assert miss_ratio_curve(trace, block_bytes=16384)["miss_ratio"].to_list() == [1.0, 2 / 3]
    assert replay_cache(trace, 2, block_bytes=8192).hits == 0


@pytest.mark.parametrize("name", ["lru", "sieve", "belady"])
def test_any_numbers_will_do_as_blocks(name: str) -> None:
    ids = synthetic(5_000, 300, seed=4).astype(np.int64)
    hits = replay_cache(ids, 50, name).hits
    sparse = ids * 10**12 - 7
    frozen = ids.astype(np.int32)
    frozen.flags.writeable = False
    for same in (sparse, frozen, pl.Series(ids), ids.tolist(), ids.astype(np.uint64), ids[::-1][::-1]):
        assert replay_cache(same, 50, name).hits == hits
    assert not frozen.flags.writeable


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: replay_cache([1, 2], 0), "capacity_blocks: expected at least 1, got 0"),
        (lambda: replay_cache([1, 2], 1, "mru"), "policy: expected one of fifo, lru, .*, got 'mru'"),
        (lambda: replay_cache([0.5], 1), "block numbers in one dimension, got float64"),
        (lambda: replay_cache([[1]], 1), r"got int64 of shape \(1, 1\)"),
        (lambda: EvictionPolicy("lru", 0, 4), "blocks: expected at least 1, got 0"),
        (lambda: EvictionPolicy("lru", 4, 2).insert(4), "block: expected one from 0 to 3, got 4"),
        (lambda: EvictionPolicy("lru", 4, 2).hit(1), "block 1: expected one that is in the cache"),
        (lambda: EvictionPolicy("lru", 4, 2).miss(-1), "block: expected one from 0 to 3, got -1"),
    ],
)
def test_bad_input_is_one_clear_sentence(wrong: Any, sentence: str) -> None:
    with pytest.raises(PolicyError, match=sentence) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_a_block_size_that_is_no_power_of_two_is_refused(packaged_corpus: Corpus) -> None:
    with pytest.raises(PolicyError, match="block_bytes: expected a power of two, got 5000"):
        miss_ratio_curve(packaged_corpus.boots[0].trace, block_bytes=5000)
