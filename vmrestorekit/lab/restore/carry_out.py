"""Carry out a restore or live mount, from the beginning or from where a killed one had come to."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPError

from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.restore.agent_link import AgentLink, AgentSockets, agent_process, connect_agent
from vmrestorekit.lab.restore.data_agent import DataAgent, RestoreOptions
from vmrestorekit.lab.restore.folder import RestoreFolder
from vmrestorekit.lab.restore.host import run_host
from vmrestorekit.lab.restore.host_chain import HostSettings
from vmrestorekit.lab.restore.images import let_go_of_copy
from vmrestorekit.lab.restore.requests import take_requests
from vmrestorekit.lab.restore.watch import HOST_ENDED, watch_boot, watch_host, watch_media_agent, watch_power

__all__ = ["carry_out", "expect_resumable", "serve_arguments"]


@contextlib.asynccontextmanager
async def carry_out(
    folder: RestoreFolder,
    options: RestoreOptions,
    *,
    report: Report | None = None,
    sockets: AgentSockets | None = None,
    recording: Path | None = None,
) -> AsyncIterator[DataAgent]:
    """Carry out a restore while the context lasts; at its end the virtual machine loses its power.

    Parameters
    ----------
    folder : RestoreFolder
        Says what to restore, and how far that has come.
    options : RestoreOptions
    report : Report, optional
    sockets : AgentSockets, optional
        A media agent that runs already; default: one of our own, as the folder says.
    recording : Path, optional
        Where the recording is saved at the end; default: ``recording`` in the folder.

    Raises
    ------
    LabError
        If something fails that cannot be waited for; the folder says what to go on with.
    """
    report = report or Report()
    problem: BaseException | None = None
    try:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(folder.in_use())
            expect_resumable(folder)
            short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmrestorekit-")))
            link = await stack.enter_async_context(_media_agent(folder, sockets, short, report))
            await _expect_same_disks(folder, link)
            settings = HostSettings(
                **{**folder.state.machine, "extra": tuple(folder.state.machine.get("extra", ()))}
            )
            host = await stack.enter_async_context(run_host(folder, link.sockets.nbd, settings))
            agent = DataAgent(folder, link, host, options, short, report)
            await stack.enter_async_context(take_requests(folder.path, agent.requests()))
            await stack.enter_async_context(_recorded(link, recording or folder.path / "recording", report))
            async with asyncio.TaskGroup() as tasks:
                jobs = [agent.carry_out(), agent.troubles.watch()]
                jobs += [watch(agent) for watch in (watch_host, watch_boot, watch_power, watch_media_agent)]
                running = [tasks.create_task(job) for job in jobs]
                yield agent
                agent.is_quitting = True
                for task in running:
                    task.cancel()
    except BaseExceptionGroup as group:
        problem = _first(group)
    except (QMPError, EOFError, ConnectionError) as error:  # before anything else was under way
        problem = error
    if isinstance(problem, ExecuteError):
        raise LabError(f"QEMU refused what was asked of it: {problem}") from problem
    if isinstance(problem, QMPError | EOFError | ConnectionError):
        raise LabError(HOST_ENDED) from problem
    if problem is not None:  # out here: inside, it would be raised from the group that it is part of
        raise problem


def expect_resumable(folder: RestoreFolder) -> None:
    """Check that there is something to carry out.

    Raises
    ------
    LabError
        If there is not. A live mount that crashed has lost what it wrote, and is let go of.
    """
    if folder.plan.mode != "live_mount" or folder.state.phase == "prepared":
        return
    if folder.state.phase != "expired":
        folder.discard_write_caches()
        let_go_of_copy(folder)
        folder.update(phase="expired")
    raise LabError(
        f"{folder.path}: this live mount has ended, and what it wrote is discarded; mount the copy again"
    )


async def _expect_same_disks(folder: RestoreFolder, link: AgentLink) -> None:
    """Refuse now what the host would wait for in vain: disks that the media agent does not have."""
    status, plan = await link.status(), folder.plan
    theirs = tuple(status.get("disk_bytes", plan.disk_bytes)), status.get("block_bytes", plan.block_bytes)
    if theirs != (plan.disk_bytes, plan.block_bytes):
        raise LabError(
            f"expected a backup of disks of {plan.disk_bytes} bytes in blocks of {plan.block_bytes}, as the "
            f"plan is for, got one of {theirs[0]} in blocks of {theirs[1]}"
        )


@contextlib.asynccontextmanager
async def _media_agent(
    folder: RestoreFolder, sockets: AgentSockets | None, short: Path, report: Report
) -> AsyncIterator[AgentLink]:
    """Connect to the media agent that is there, or to one that we start."""
    own = AgentSockets(short / "nbd", short / "control")
    if folder.state.phase == "released":
        yield AgentLink(own, folder.plan_path, report)  # nobody is needed any more
    elif sockets is not None:
        async with connect_agent(sockets, folder.plan_path, report) as link:
            yield link
    else:
        arguments = serve_arguments(folder.state.serve, own)
        async with (
            agent_process(arguments, folder.path / "media-agent.log") as process,
            connect_agent(own, folder.plan_path, report, process) as link,
        ):
            yield link


def serve_arguments(serve: dict[str, Any], sockets: AgentSockets) -> list[str]:
    """Return the arguments of ``vmrestorekit lab serve`` for what a folder says about its media agent."""
    arguments = ["--socket", str(sockets.nbd), "--control", str(sockets.control)]
    if serve.get("copy") is not None:
        arguments += [serve["source"][0], "--copy", str(serve["copy"])]
        if serve.get("user"):
            arguments += ["--user", serve["user"]]
    else:
        for image in serve["source"]:
            arguments += ["--image", image]
        arguments += ["--block-kib", str(serve["block_bytes"] // 1024)]
    if serve.get("media"):
        arguments += ["--media", serve["media"]]
    return [*arguments, *serve.get("extra", ())]


@contextlib.asynccontextmanager
async def _recorded(link: AgentLink, folder: Path, report: Report) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if link.is_connected:
            try:
                await link.save_recording(folder)
                report.say(f"The recording is in {folder}.")
            except LabError as error:
                report.say(f"The recording could not be saved: {error}.")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first thing that went wrong: what came after is mostly its consequence."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
