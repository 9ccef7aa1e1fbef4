"""What the data agent waits for beside its plan: the boot, the power switch, parts that end by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmrestorekit.lab.guests.units import USE_BEGINS_LINE
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.running_guest import UnexpectedLineError

if TYPE_CHECKING:
    from vmrestorekit.lab.restore.data_agent import DataAgent

__all__ = ["HOST_ENDED", "watch_boot", "watch_host", "watch_media_agent", "watch_power"]

HOST_ENDED = "the host of the virtual machine has ended; 'vmrestorekit lab resume' goes on with the restore"
_EVER_S = 1e9


async def watch_boot(agent: DataAgent) -> None:
    """Note the end of the boot, which the virtual machine prints on its console."""
    await agent.launched.wait()
    try:
        await agent.host.guest.wait_for(agent.options.boot_done_line, _EVER_S, failing=USE_BEGINS_LINE)
    except UnexpectedLineError:
        agent.report.say(
            "The line that tells the end of the boot was lost on the console; it is noted late, when the "
            "machine's own client begins."
        )
    except LabError:
        return  # it has ended; `watch_host` knows whether that is right
    await agent.note("boot_done", "booted")
    agent.report.say(f"Booted, {agent.since('launched')} after the launch.")
    agent.booted.set()


async def watch_power(agent: DataAgent) -> None:
    """End the host when the virtual machine has switched itself off and its restore is complete."""
    await agent.host.powered_off()
    agent.powered_off.set()
    if not agent.released.is_set():
        agent.report.say("The virtual machine has switched itself off; its restore goes on without it.")
    await agent.released.wait()
    if not agent.is_quitting:
        await agent.quit()


async def watch_host(agent: DataAgent) -> None:
    """Fail when the host ends by itself."""
    try:
        await agent.host.guest.wait_for_end(None)
    except LabError as error:
        if not agent.is_quitting:
            raise LabError(f"{HOST_ENDED} ({error})") from error
    if not agent.is_quitting:
        raise LabError(HOST_ENDED)


async def watch_media_agent(agent: DataAgent) -> None:
    """Start a media agent that is ours again as soon as it ends."""
    while (process := agent.link.process) is not None:
        await process.ended()
        if agent.released.is_set():
            return
        agent.report.say("The media agent has ended; starting it again.")
        await agent.link.ensure()
