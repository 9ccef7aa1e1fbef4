"""What a chart or a widget is given: one sentence for what cannot be shown."""

from __future__ import annotations

from vmrestorekit.restore.timeline import Timeline

__all__ = ["expect_timeline"]


def expect_timeline(name: str, timeline: object) -> Timeline:
    """Return the timeline, if it is one and has an event.

    Raises
    ------
    ValueError
    """
    if not isinstance(timeline, Timeline):
        raise ValueError(
            f"{name}: expected a Timeline, as simulate() returns it, got {type(timeline).__name__}"
        )
    if len(timeline) == 0:
        raise ValueError(f"{name}: expected a Timeline of at least one event, got an empty one")
    return timeline
