"""The cache alone against libCacheSim: LRU replay, and the exact miss-ratio curve."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from runner import Row, compare, median_seconds

from vmrestorekit.restore.replay import miss_ratio_curve, replay_cache

REQUESTS, BLOCKS, CAPACITY, SEED = 5_000_000, 1_000_000, 100_000, 20231023
HASH_POWERS = {"default": 24, "14": 14, "17": 17, "20": 20}
REQUEST = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])


def zipf_accesses() -> np.ndarray[Any, np.dtype[np.int32]]:
    """SYNTHETIC: independent draws, the k-th most popular block with a probability like 1/k."""
    rng = np.random.default_rng(SEED)
    share = np.cumsum(1 / np.arange(1, BLOCKS + 1))
    popularity = np.searchsorted(share, rng.random(REQUESTS) * share[-1])
    return rng.permutation(BLOCKS)[popularity].astype(np.int32)


def libcachesim_lru(path: Path, hash_power: int, hits: dict[str, int]) -> Callable[[], Callable[[], None]]:
    """Prepare a run of libCacheSim's LRU, reader and cache included, so that only the replay is timed."""
    try:
        import libcachesim
    except ImportError as error:
        raise OSError("benchmark: expected the peer libCacheSim; pip install '.[test]'") from error

    def prepare() -> Callable[[], None]:
        parameters = libcachesim.ReaderInitParam(ignore_obj_size=True)
        reader = libcachesim.TraceReader(str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE, parameters)
        cache = libcachesim.LRU(CAPACITY, hashpower=hash_power)

        def replay() -> None:
            hits[f"hash {hash_power}"] = REQUESTS - round(cache.process_trace(reader)[0] * REQUESTS)

        return replay

    return prepare


def bench_cache() -> list[Row]:
    """LRU replay in million requests a second, and the curve of all sizes in seconds against one run."""
    accesses = zipf_accesses()
    hits: dict[str, int] = {}

    def our_replay() -> None:
        hits["ours"] = replay_cache(accesses, CAPACITY).hits

    def our_curve() -> None:
        curve = miss_ratio_curve(accesses)["miss_ratio"]
        hits["curve"] = REQUESTS - round(curve[CAPACITY - 1] * REQUESTS)

    our_replay(), our_curve()  # compiled now
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "zipf.bin"
        requests = np.zeros(REQUESTS, REQUEST)
        requests["id"], requests["size"], requests["next"] = accesses, 1, -1
        requests.tofile(path)
        seconds = median_seconds(
            {"ours": lambda: our_replay, "curve": lambda: our_curve}
            | {name: libcachesim_lru(path, power, hits) for name, power in HASH_POWERS.items()}
        )
    if len(set(hits.values())) != 1:
        raise AssertionError(f"expected the same hits from all, got {hits}")
    best = min(("14", "17", "20"), key=lambda name: seconds[name])
    rate = {name: REQUESTS / 1e6 / taken for name, taken in seconds.items()}
    replay = "LRU replay, 5 M requests, 1 M blocks, M/s: libCacheSim"
    return [
        compare(f"{replay} default", rate["ours"], rate["default"], ">= 12"),
        compare(f"{replay} best hash size", rate["ours"], rate[best], ">= 6"),
        compare(
            "exact miss-ratio curve, s: libCacheSim, one size, best hash size",
            seconds["curve"],
            seconds[best],
            "<= 1.5",
        ),
    ]
