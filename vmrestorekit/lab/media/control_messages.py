"""What can be said to a media agent through its control socket, and what it answers; no sockets here.

A message is a JSON object: ``{"do": …}`` with one of the names in `AgentControl.MESSAGES`. Blocks are those
of the plan; times (``at_ns``) are CLOCK_MONOTONIC nanoseconds. Answers are ``{"ok": true, …}`` or
``{"ok": false, "error": "one sentence"}``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from vmrestorekit.lab.media.event_log import save_timeline
from vmrestorekit.lab.media.media_agent import MediaAgent
from vmrestorekit.lab.programs import LabError
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import KINDS

__all__ = ["LINE_BYTES", "AgentControl", "Answer", "ControlError"]

LINE_BYTES = 1 << 20
Answer = dict[str, Any]
_log = logging.getLogger(__name__)
_INT32, _INT64 = 1 << 31, 1 << 63
_SHOWN = 60  # characters of what came that an error repeats


class ControlError(LabError):
    """A message that cannot be carried out; the sentence says what was expected and what came."""


def _plain(name: str) -> Callable[[AgentControl, dict[str, Any]], Awaitable[Answer]]:
    """Return what calls the agent's method of that name, which takes nothing and returns nothing."""

    async def carry_out(control: AgentControl, message: dict[str, Any]) -> Answer:
        _expect_nothing_more(message)
        waiting = getattr(control.agent, name)()
        if waiting is not None:
            await waiting
        return {}

    return carry_out


class AgentControl:
    """Carries out messages on an agent, whoever sent them."""

    def __init__(self, agent: MediaAgent) -> None:
        self.agent = agent

    async def answer(self, line: bytes) -> Answer:
        """Carry out one line; what goes wrong is an answer, too."""
        try:
            name, message = _parse(line.rstrip(b"\r\n"))
            carry_out = self.MESSAGES.get(name)
            if carry_out is None:
                raise ControlError(f"do: expected one of {', '.join(self.MESSAGES)}, got {_shown(name)}")
            answer = await carry_out(self, message)
        except (ValueError, OSError) as error:
            _log.warning("refused a control message: %s", error)
            return {"ok": False, "error": _one_line(error)}
        except Exception as error:  # a mistake of ours must not cost the connection
            _log.exception("a control message failed")
            return {"ok": False, "error": f"the media agent failed: {_one_line(error)}"}
        if name not in ("note", "status"):  # those come often and change nothing
            _log.info("control message %s", name, extra={"control": name})
        return {"ok": True} | answer

    async def _vm_profile(self, message: dict[str, Any]) -> Answer:
        folder = _take(message, "plan", str)
        _expect_nothing_more(message)
        plan = await asyncio.to_thread(RestorePlan.load, folder)
        self.agent.indicate_vm_profile(plan)
        return {"first_set": len(plan.first_set)}

    async def _relocated(self, message: dict[str, Any]) -> Answer:
        ranges = _take(message, "ranges", list)
        _expect_nothing_more(message)
        for each in ranges:
            good = isinstance(each, list) and len(each) == 2 and all(type(number) is int for number in each)
            if not good or each[0] < 0 or each[1] < 1 or sum(each) > _INT32:
                raise ControlError(
                    f"ranges: expected pairs of a first block and a count of at least 1, got {_shown(each)}"
                )
        self.agent.relocated([(first, count) for first, count in ranges])
        return {}

    async def _note(self, message: dict[str, Any]) -> Answer:
        kind = _take(message, "kind", str)
        if kind not in KINDS:
            raise ControlError(
                f"kind: expected a kind of event (vmrestorekit.restore.events), got {_shown(kind)}"
            )
        numbers = {
            "block": _take_whole(message, "block", -1, _INT32),
            "count": _take_whole(message, "count", 0, _INT32),
            "request": _take_whole(message, "request", -1, _INT32),
            "detail": _take_whole(message, "detail", 0, _INT64),
        }
        at_ns = _take_whole(message, "at_ns", 0, _INT64) if "at_ns" in message else None
        _expect_nothing_more(message)
        self.agent.note(kind, at_ns=at_ns, **numbers)
        return {}

    async def _status(self, message: dict[str, Any]) -> Answer:
        _expect_nothing_more(message)
        return {"status": self.agent.status()}

    async def _timeline(self, message: dict[str, Any]) -> Answer:
        folder = Path(_take(message, "path", str))
        _expect_nothing_more(message)
        timeline = self.agent.timeline()
        await asyncio.to_thread(save_timeline, timeline, folder)
        return {"path": str(folder), "events": len(timeline)}

    async def _fault(self, message: dict[str, Any]) -> Answer:
        faults: dict[str, Any] = {}
        if "slow" in message:
            slow = message.pop("slow")
            if type(slow) not in (int, float) or not 1 <= slow <= 1e6:
                raise ControlError(f"slow: expected a factor from 1 to 1000000, got {_shown(slow)}")
            faults["slow"] = float(slow)
        for name in ("error", "corrupt"):
            if name in message:
                faults[name] = self._blocks(name, _take(message, name, list))
        _expect_nothing_more(message)
        if not faults:
            raise ControlError(
                "fault: expected slow (a factor), error or corrupt (lists of blocks), got none"
            )
        self.agent.fault(**faults)
        _log.warning("the emulated device has a fault: %s", _shown(faults), extra={"fault": faults})
        return {}

    def _blocks(self, name: str, blocks: list[Any]) -> list[int]:
        there = len(self.agent.source.layout.address)
        for block in blocks:
            if type(block) is not int or not 0 <= block < there:
                raise ControlError(f"{name}: expected blocks from 0 to {there - 1}, got {_shown(block)}")
        return blocks

    MESSAGES: ClassVar[Mapping[str, Callable[[AgentControl, dict[str, Any]], Awaitable[Answer]]]] = {
        "vm_profile": _vm_profile,
        "launched": _plain("launched"),
        "pre_relocation": _plain("pre_relocation"),
        "relocation_in_progress": _plain("relocation_in_progress"),
        "relocated": _relocated,
        "relocation_cancelled": _plain("relocation_cancelled"),
        "relocation_completed": _plain("relocation_completed"),
        "expire": _plain("expire"),
        "note": _note,
        "status": _status,
        "timeline": _timeline,
        "fault": _fault,
    }


def _parse(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError: of JSON and of UTF-8
        raise ControlError(
            f"message: expected a JSON object on a line, got {_shown(line)}: {error}"
        ) from error
    if not isinstance(message, dict):
        raise ControlError(f"message: expected a JSON object on a line, got {_shown(message)}")
    return _take(message, "do", str), message


def _take(message: dict[str, Any], name: str, kind: type) -> Any:
    """Remove an entry from a message and return it."""
    if name not in message:
        raise ControlError(f"message: expected an entry {name!r}, got none")
    value = message.pop(name)
    if not isinstance(value, kind):
        what = "a text" if kind is str else "a list"
        raise ControlError(f"{name}: expected {what}, got {_shown(value)}")
    return value


def _take_whole(message: dict[str, Any], name: str, default: int, bound: int) -> int:
    value = message.pop(name, default)
    if type(value) is not int or not -bound <= value < bound:
        raise ControlError(
            f"{name}: expected a whole number of {bound.bit_length()} bits, got {_shown(value)}"
        )
    return value


def _expect_nothing_more(message: Mapping[str, Any]) -> None:
    if message:
        raise ControlError(f"message: expected nothing more, got {', '.join(map(_shown, message))}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
