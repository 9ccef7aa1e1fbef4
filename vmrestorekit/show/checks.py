"""Arguments of charts and widgets: one sentence for what cannot be shown."""

from __future__ import annotations

from collections.abc import Sequence

from vmrestorekit.restore.timeline import Timeline

__all__ = ["css_length", "expect_one_of", "expect_timeline"]


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


def expect_one_of(what: str, value: object, accepted: Sequence[str]) -> None:
    """Raise a sentence that lists what is accepted, unless `value` is among it.

    Raises
    ------
    ValueError
    """
    if value not in accepted:
        raise ValueError(f"{what}: expected one of {', '.join(map(repr, accepted))}, got {value!r}")


def css_length(width: int | str) -> str:
    """Return a width as CSS: a number counts pixels.

    Raises
    ------
    ValueError
        If it is neither a positive number of pixels nor a length such as ``'100%'``.
    """
    if isinstance(width, int) and not isinstance(width, bool) and width > 0:
        return f"{width}px"
    if isinstance(width, str) and width.rstrip("%pxemrvwch").replace(".", "", 1).isdigit():
        return width
    raise ValueError(
        f"width: expected a number of pixels above 0 or a CSS length such as '100%', got {width!r}"
    )
