"""The rules of the live media agent and the engine agree, event for event and to the nanosecond.

The rest of the world (virtual machine, relocation, link, modes) is that of the slow model of the clockwork in
``tests/restore``; its media agent, dispatcher and backup device are replaced by those of the lab.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, assume, given, settings

sys.path.append(str(Path(__file__).parents[1] / "restore"))

import simpy_model
from scenarios import Scenario, scenarios
from simpy_client import Client
from simpy_client import Part as ClientPart
from simpy_devices import FETCHED, LAST_NUMBER, PURGE, Agenda, Link
from simpy_host import VirtualMachine
from test_engine_against_simpy import Event, by_instant, first_difference, rows

from vmrestorekit.lab.media.device import Channels
from vmrestorekit.lab.media.rules import AgentRules, Fetch, Medium, Part
from vmrestorekit.plan import PlanError, RestorePlan, Weights
from vmrestorekit.restore.simulate import simulate_trace

EXAMPLES = int(os.environ.get("VMRESTOREKIT_EXAMPLES", "100"))  # of each mode


class AgendaLog:
    """Lets the rules write into the slow model's events."""

    def __init__(self, agenda: Agenda) -> None:
        self.agenda = agenda

    def append(
        self,
        at_ns: int,
        kind: str,
        block: int = -1,
        count: int = 0,
        request: int = -1,
        detail: int = 0,
        cause: int = -1,
    ) -> int:
        assert at_ns == self.agenda.now
        assert cause < len(self.agenda.events)
        self.agenda.note(0, kind, block, count, request, detail)
        return len(self.agenda.events) - 1


def extents_of(scenario: Scenario) -> npt.NDArray[np.int64] | None:
    """Where each chunk starts and ends: what its blocks take, if nothing else is said."""
    if scenario.chunk is None or scenario.chunk_extents is not None:
        return scenario.chunk_extents
    numbers = range(scenario.chunk.max(initial=-1) + 1)
    addresses = [scenario.address[scenario.chunk == number] for number in numbers]
    size = scenario.plan.block_bytes
    extents = [(of_chunk.min(), of_chunk.max() + size) for of_chunk in addresses]
    return np.array(extents, np.int64).reshape(-1, 2)


class LabAgent:
    """The lab's rules and device in the place of the slow model's media agent and dispatcher."""

    number, in_service = 0, True

    def __init__(self, agenda: Agenda, scenario: Scenario) -> None:
        self.agenda, self.scenario = agenda, scenario
        self.link = Link(agenda, scenario.hardware.link)
        self.channels = Channels(scenario.hardware.backup_device)
        size = scenario.plan.block_bytes
        medium = Medium(size, scenario.address, scenario.chunk, extents_of(scenario))
        self.rules = AgentRules(
            medium, scenario.hardware.backup_device.channels, scenario.plan, AgendaLog(agenda)
        )
        self.clients: list[Client] = []
        self.readers: dict[Part, ClientPart] = {}

    # what the slow model's coordinator asks of its media agent

    def associate(self, client: Client) -> None:
        client.agent = self  # type: ignore[assignment]
        self.clients = [client]
        self.rules.indicate_vm_profile(self.agenda.now, self.scenario.plan)

    def de_associate(self, client: Client) -> None:
        client.agent = None
        self.clients = []

    def receive(self, parts: list[ClientPart]) -> None:
        if not parts:
            return
        number, reader = parts[0].number, parts[0].reader
        wanted = [(part.block, part.size) for part in parts]
        asked, hits = self.rules.arrive(self.agenda.now, number, reader, wanted, None, -1)
        self.readers |= dict(zip(asked, parts, strict=True))
        for part in hits:
            self._transmit(part)
        self._make_purges_due()

    def mark(self, client: Client, block: int, trigger: int) -> None:
        """The rules have done it when they were told that the block is on the destination."""

    def look_at_runs(self, client: Client) -> None:
        self.rules.look_at_runs(self.agenda.now)
        self._make_purges_due()

    def relocated(self, blocks: list[int]) -> None:
        self.rules.relocated(self.agenda.now, blocks)
        self._make_purges_due()

    def cut_off(self, client: Client) -> None:
        self.rules.stop(self.agenda.now)
        self._make_purges_due()

    def empty_cache(self, client: Client) -> int:
        return self.rules.cache.empty()

    # what there is of the outside world

    def dispatch(self) -> None:
        for fetch in self.rules.dispatch(self.agenda.now):
            self._start(fetch)

    def _start(self, fetch: Fetch) -> None:
        channel, cost = self.channels.take(fetch.address, fetch.end - fetch.address)
        schedule = self.clients[0].schedule
        schedule.begin_operation()

        def complete() -> None:
            self.channels.release(channel)
            if schedule.expired:
                self.rules.drop(self.agenda.now, fetch)
            else:
                self._complete(fetch)
            schedule.end_operation()

        number = LAST_NUMBER if fetch.request < 0 else fetch.request
        self.agenda.add_later(cost, (FETCHED, 0, number, fetch.block), complete)

    def _complete(self, fetch: Fetch) -> None:
        to_send, in_vain = self.rules.completed(self.agenda.now, fetch, {})
        assert not in_vain
        for part in to_send:
            self._transmit(part)
        self._make_purges_due()
        for client in self.clients:
            client.staged_of_first_set |= self.rules.staged_first_set
            client.after_fetch()

    def _transmit(self, part: Part) -> None:
        reader = self.readers[part]
        schedule = reader.client.schedule
        self.link.hand_over(schedule, part.request, part.block, part.size, lambda: self._arrive(part))

    def _arrive(self, part: Part) -> None:
        reader = self.readers.pop(part)
        if reader.client.schedule.expired:
            self.rules.lose(self.agenda.now, part)
            self._make_purges_due()
            return
        self.rules.sent(self.agenda.now, part)
        self._make_purges_due()
        reader.client.outstanding.remove(reader)
        reader.received()
        reader.client.after_serving()

    def _make_purges_due(self) -> None:
        for block in self.rules.purger.due:
            key = (PURGE, 0, 0, block)
            if not self.agenda.is_due(key):
                self.agenda.add(key, lambda block=block: self._purge(block))

    def _purge(self, block: int) -> None:
        self.rules.notes.now = self.agenda.now
        self.rules.purger.purge(block)


class Relocated(set[int]):
    """The blocks on the destination; the agent hears of each."""

    def __init__(self, agent: LabAgent) -> None:
        super().__init__()
        self.agent = agent

    def update(self, blocks: list[int]) -> None:  # type: ignore[override]
        super().update(blocks)
        self.agent.relocated(blocks)


class Told(Client):
    """A client whose changes of mode the agent is told of, as by a data agent."""

    lab_agent: LabAgent

    @property
    def relocating(self) -> bool:
        return self.__dict__["relocating"]

    @relocating.setter
    def relocating(self, value: bool) -> None:
        self.__dict__["relocating"] = value
        if value:
            self.lab_agent.rules.indicate_relocation(self.lab_agent.agenda.now)

    @property
    def pre_relocation_mode(self) -> bool:
        return self.__dict__["pre_relocation_mode"]

    @pre_relocation_mode.setter
    def pre_relocation_mode(self, value: bool) -> None:
        self.__dict__["pre_relocation_mode"] = value
        if value:
            self.lab_agent.rules.indicate_pre_relocation(self.lab_agent.agenda.now)

    @property
    def relocation_finished(self) -> bool:
        return self.__dict__["relocation_finished"]

    @relocation_finished.setter
    def relocation_finished(self, value: bool) -> None:
        self.__dict__["relocation_finished"] = value
        # it finds out by itself
        assert self.lab_agent.rules.stager.finished or not value


class Coordinator(simpy_model.Coordinator):
    """Asks the lab's rules whether staging can go no further."""

    def launch_if_staging_can_go_no_further(self) -> None:
        if self.launch_is_due or self.plan.mode == "full_restore" or self.client.agent is None:
            return
        if self.client.agent.rules.has_staged_enough:  # type: ignore[attr-defined]
            self.make_launch_due()


def run_with_the_lab_s_agent(scenario: Scenario) -> list[tuple[int, str, int, int, int, int]]:
    agenda = Agenda()
    storm = simpy_model.Storm(agenda, scenario.plan, simpy_model.MediaAgents(), scenario.hardware)
    restore = simpy_model.Restore(
        *(scenario.trace, scenario.plan, scenario.address, scenario.chunk),
        chunk_extents=scenario.chunk_extents,
    )
    client = simpy_model._client(agenda, 0, restore, scenario.stored, list(range(scenario.plan.blocks)))
    agent = LabAgent(agenda, scenario)
    client.__class__, client.lab_agent = Told, agent  # type: ignore[attr-defined]
    client.relocated = Relocated(agent)
    storm.agents, storm.dispatchers = [agent], [agent]  # type: ignore[list-item]
    machine = VirtualMachine(scenario.trace, scenario.hardware, client)
    storm.add(Coordinator(machine, scenario.hardware), 0, None)
    agenda.run(storm.dispatch)
    assert_nothing_is_left(agent.rules)
    return [event[:-1] for event in agenda.events]


def assert_nothing_is_left(rules: AgentRules) -> None:
    assert not rules.queue.waiting
    assert not rules.queue.in_flight
    assert rules.queue.idle_channels == rules.queue.channels
    assert all(copy.pins == 0 for copy in rules.cache.copies.values())
    assert rules.cache.used == len(rules.cache.policy.blocks()) == len(rules.cache.copies)
    assert rules.cache.peak <= rules.cache.slots


@pytest.mark.parametrize("mode", ["instant_restore", "live_mount", "full_restore"])
def test_the_live_rules_and_the_engine_agree(mode: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(scenario=scenarios(modes=(mode,)))
    def agree(scenario: Scenario) -> None:
        if scenario.plan.priorities == "weighted":  # which it refuses
            plan = scenario.plan.replace(priorities="as_claimed", weights=Weights())
            scenario = dataclasses.replace(scenario, plan=plan)
        try:
            timeline = simulate_trace(
                *(scenario.trace, scenario.plan, scenario.hardware, scenario.address),
                *(scenario.chunk, scenario.chunk_extents),
            )
        except ValueError:  # it expires before its launch
            assume(False)
        theirs: list[Event] = by_instant(rows(timeline.events))
        ours: list[Event] = by_instant(run_with_the_lab_s_agent(scenario))
        assert ours == theirs, first_difference(ours, theirs)

    agree()


def test_weighted_priorities_are_refused() -> None:
    plan = RestorePlan((1 << 20,), priorities="weighted")
    medium = Medium(plan.block_bytes, np.arange(plan.blocks, dtype=np.int64) * plan.block_bytes)
    with pytest.raises(PlanError, match="weighted ones need to know which reads are the relocation's"):
        AgentRules(medium, 1, plan, AgendaLog(Agenda()))
