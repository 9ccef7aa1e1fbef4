"""What the data agent sees on the console of a machine that boots."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vmrestorekit.lab.guests.units import BOOT_DONE_LINE, USE_BEGINS_LINE
from vmrestorekit.lab.restore.watch import watch_boot
from vmrestorekit.lab.running_guest import Guest


def watched(console: str, tmp_path) -> tuple[list[str], list[str], bool]:
    """What is noted and said when a console prints this, and whether the machine counts as booted."""
    noted: list[str] = []
    said: list[str] = []

    async def watch() -> bool:
        guest = Guest(cast(Any, None), cast(Any, None))
        reader = asyncio.StreamReader()
        reader.feed_data(console.encode())
        reader.feed_eof()

        async def note(kind: str, name: str = "") -> None:
            noted.append(kind)

        agent = SimpleNamespace(
            launched=asyncio.Event(),
            booted=asyncio.Event(),
            host=SimpleNamespace(guest=guest),
            options=SimpleNamespace(boot_done_line=BOOT_DONE_LINE),
            report=SimpleNamespace(say=said.append),
            note=note,
            since=lambda name: "1 s",
        )
        agent.launched.set()
        await asyncio.gather(guest._read_console(reader, tmp_path / "log"), watch_boot(cast(Any, agent)))
        return agent.booted.is_set()

    return noted, said, asyncio.run(watch())


@pytest.mark.parametrize("first", ["", "login: "])
def test_the_end_of_a_boot_is_noted(first, tmp_path):
    noted, said, booted = watched(f"{first}{BOOT_DONE_LINE}\n{USE_BEGINS_LINE}\n", tmp_path)
    assert (noted, booted) == (["boot_done"], True)
    assert not any("was lost" in each for each in said)


def test_a_boot_whose_line_was_lost_is_noted_when_its_client_begins(tmp_path):
    noted, said, booted = watched(f"login: \n{USE_BEGINS_LINE}\n", tmp_path)
    assert (noted, booted) == (["boot_done"], True)
    assert "was lost on the console; it is noted late" in said[0]


def test_a_machine_that_ends_while_it_boots_has_not_booted(tmp_path):
    assert watched("panic\n", tmp_path) == ([], [], False)
