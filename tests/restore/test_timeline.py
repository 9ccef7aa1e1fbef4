"""Where every block is at any instant, told from events."""

from __future__ import annotations

import pytest
from hand_made import Event, timeline_of
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrestorekit.restore import timeline as tl

BLOCKS = 300
EFFECTS = {
    "fetch": (tl.IN_FLIGHT, 0),
    "staged": (tl.IN_CACHE, tl.IN_FLIGHT | tl.PURGED),
    "serve": (tl.SERVED, 0),
    "evict": (0, tl.IN_CACHE),
    "purge": (tl.PURGED, tl.IN_CACHE),
    "written": (tl.WRITTEN, 0),
    "relocated": (tl.RELOCATED, 0),
    "applied": (tl.RELOCATED, tl.WRITTEN),
    "empty_read_cache": (0, tl.IN_CACHE | tl.IN_FLIGHT),
    "power_down": (0, tl.WRITTEN),
    "vm_read": (0, 0),
}
ABOUT_ALL = ("empty_read_cache", "power_down")


@st.composite
def drawn_events(draw: st.DrawFn, longest: int) -> list[Event]:
    kinds = draw(st.lists(st.sampled_from(list(EFFECTS)), max_size=60))
    events = []
    for time, kind in enumerate(kinds):
        first = draw(st.integers(0, BLOCKS - longest))
        count = 0 if kind in ABOUT_ALL else draw(st.integers(1, longest))
        events.append((time, kind, -1 if kind in ABOUT_ALL else first, count))
    return events


def replayed(events: list[Event], holes: list[int]) -> list[int]:
    """Flags of each block, event by event and block by block."""
    flags = [0 if block in holes else tl.STORED for block in range(BLOCKS)]
    for _, kind, first, count in events:
        sets, clears = EFFECTS[kind]
        for block in range(BLOCKS) if kind in ABOUT_ALL else range(first, first + count):
            flags[block] = flags[block] & ~clears | sets
    return flags


@pytest.mark.parametrize("longest", [2, 290])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_state_at_is_what_replaying_every_event_gives(data: st.DataObject, longest: int) -> None:
    events = data.draw(drawn_events(longest))
    timeline = timeline_of(events, BLOCKS, holes=[3, 4, 299])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tl, "_SNAPSHOT_EVERY", 8)
        for at in range(-1, len(events)):
            assert timeline.state_at(at).flags.tolist() == replayed(events[: at + 1], [3, 4, 299])


def test_snapshots_of_many_blocks_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tl, "_SNAPSHOT_EVERY", 2)
    monkeypatch.setattr(tl, "_SNAPSHOT_BYTES", 5 * BLOCKS)
    events = [(time, "written", time, 1) for time in range(100)]
    timeline = timeline_of(events, BLOCKS)
    assert timeline.state_at(59).count(tl.WRITTEN) == 60
    # one before the first event, and five
    assert sum(snapshot.nbytes for snapshot in timeline._snapshots) == 6 * BLOCKS


def test_of_a_chunk_that_is_read_only_what_comes_is_in_flight() -> None:
    # of the chunk's blocks, 0 to 5, 2 is in the cache and 4 finds no slot; the fetch of 9 never completes
    events = [
        (0, "staged", 2, 1),
        (1, "fetch", 0, 6),
        (2, "fetch", 9, 1),
        (3, "staged", 0, 2, -1, 0, 1),
        (3, "staged", 3, 1, -1, 0, 1),
        (3, "staged", 5, 1, -1, 0, 1),
    ]
    timeline = timeline_of(events, 10)

    def blocks_at(row: int, flag: int) -> list[int]:
        return [block for block, flags in enumerate(timeline.state_at(row).flags) if flags & flag]

    assert blocks_at(2, tl.IN_FLIGHT) == [0, 1, 3, 5, 9]
    assert blocks_at(4, tl.IN_FLIGHT) == [5, 9]
    assert blocks_at(5, tl.IN_FLIGHT) == [9]
    assert blocks_at(5, tl.IN_CACHE) == [0, 1, 2, 3, 5]
