"""When fetches start, in the slow model (`simpy_model`): rules 6 and 12 of `docs/clockwork.md`."""

from __future__ import annotations

from simpy_client import Client, Cursor, Fetch
from simpy_devices import BackupDevice
from simpy_media_agent import (
    FIRST_SET,
    PRE_STAGING,
    RELOCATION_READ,
    RELOCATION_STAGING,
    VM_READ,
    MediaAgent,
)

from vmrestorekit.plan import RestorePlan

STAGING = 2  # rule 6, weighted: the class after the reads of machines (0) and of relocations (1)


class Dispatcher:
    """Rule 6 for one backup device and its media agents."""

    def __init__(
        self, plan: RestorePlan, device: BackupDevice, agents: list[MediaAgent], round_robin: bool
    ) -> None:
        self.priorities, self.device, self.agents = plan.priorities, device, agents
        self.round_robin = round_robin  # of step 4, else the lowest machine first
        self.last_client = self.last_agent = -1

    def dispatch(self) -> None:
        """Start what can be started."""
        while self._step():
            pass

    def _step(self) -> bool:
        for agent in self.agents:
            for client in agent.clients:
                self._refill(agent, client)
        if not self.device.has_idle_channel:
            return False
        if self.priorities == "weighted":
            return self._start_weighted()
        return self._deal_with_head() or self._start_low_priority()

    # step 1

    def _refill(self, agent: MediaAgent, client: Client) -> None:
        """Rule 6.1: only fetches of the running relocation's staging count, demanded or not."""
        depth = client.plan.stage_depth or self.device.spec.channels
        equal = self.priorities == "equal"
        counted = (FIRST_SET, PRE_STAGING, RELOCATION_STAGING) if equal else (RELOCATION_STAGING,)
        while agent.cache.slots_for_stagers > 0:
            fetches = [fetch for fetch in agent.queue + agent.in_flight if fetch.client is client]
            if sum(fetch.cause in counted for fetch in fetches) >= depth:
                return
            if equal and self._next_of_first_set(agent, client) is not None:
                fetch = self._give(agent, client, FIRST_SET)
            elif self._refills_for_relocation(client) and self._next_of_relocation(agent, client) is not None:
                fetch = self._give(agent, client, self._cause_of_relocation(client))
            else:
                return
            agent.join_queue(fetch)

    def _refills_for_relocation(self, client: Client) -> bool:
        if self.priorities == "equal":
            return client.relocating or client.pre_relocation_mode
        return self.priorities == "as_claimed" and client.relocating

    # step 3

    def _deal_with_head(self) -> bool:
        """Rule 6.3: start the head that joined first, or take it back."""
        heads = [(agent.queue[0].joined, agent) for agent in self.agents if agent.queue]
        for _, agent in sorted(heads, key=lambda head: head[0]):
            fetch = agent.queue[0]
            if agent.can_start(fetch):
                agent.queue.remove(fetch)
                agent.start(fetch)
                return True
            if not agent.is_demanded(fetch):
                agent.queue.remove(fetch)
                self._cursor(fetch.client, fetch.cause).take_back(fetch.position)
                fetch.client.ahead -= set(fetch.blocks)
                return True
        return False

    # step 4

    def _start_low_priority(self) -> bool:
        """Rule 6.4: without a slot no cursor moves."""
        if self.priorities == "equal":
            return False
        fetch = self._next_low_priority([agent for agent in self.agents if not agent.queue])
        if fetch is None:
            return False
        self._start_staging(fetch)
        return True

    def _start_staging(self, fetch: Fetch) -> int:
        agent = fetch.client.agent
        assert agent is not None
        self.last_client = fetch.client.number
        return agent.start(fetch)

    def _next_low_priority(self, agents: list[MediaAgent]) -> Fetch | None:
        """Rules 6.4 and 12: first all first sets, then all relocation cursors."""
        found = self._who_is_next(agents)
        return None if found is None else self._give(*found)

    def _who_is_next(self, agents: list[MediaAgent]) -> tuple[MediaAgent, Client, int] | None:
        asked = sorted(
            ((client.number, agent, client) for agent in agents for client in agent.clients),
            key=lambda entry: (self.round_robin and entry[0] <= self.last_client, entry[0]),
        )
        for _, agent, client in asked:
            if self._next_of_first_set(agent, client) is not None:
                return agent, client, FIRST_SET
        for _, agent, client in asked:
            runs_low = client.relocating and self.priorities != "as_claimed"
            before = client.pre_relocation_mode and not client.relocating
            if (runs_low or before) and self._next_of_relocation(agent, client) is not None:
                return agent, client, self._cause_of_relocation(client)
        return None

    # weighted

    def _start_weighted(self) -> bool:
        """Rules 6 and 12: the agents give one fetch each, beginning behind the one that gave the last."""
        for agent in sorted(self.agents, key=lambda agent: (agent.number <= self.last_agent, agent.number)):
            if self._start_by_turns(agent):
                self.last_agent = agent.number
                return True
        return False

    def _start_by_turns(self, agent: MediaAgent) -> bool:
        """Rule 6, weighted: pass the turn on until a class starts a fetch."""
        reads = [
            [fetch for fetch in agent.queue if fetch.cause == cause] for cause in (VM_READ, RELOCATION_READ)
        ]
        looked_at_in_vain = 0
        while looked_at_in_vain < 3:
            if agent.balance[agent.turn] <= 0:
                looked_at_in_vain = 0
                self._pass_turn_on(agent)
                continue
            if agent.turn == STAGING:
                has_something = self._who_is_next([agent]) is not None
            else:
                has_something = bool(reads[agent.turn])
            if not has_something:
                looked_at_in_vain += 1
                agent.balance[agent.turn] = 0
                self._pass_turn_on(agent)
                continue
            if agent.turn == STAGING:
                staging = self._next_low_priority([agent])
                assert staging is not None
                agent.balance[STAGING] -= self._start_staging(staging)
                return True
            fetch = reads[agent.turn][0]
            if not agent.can_start(fetch):
                return False
            agent.queue.remove(fetch)
            agent.balance[agent.turn] -= agent.start(fetch)
            return True
        return False

    def _pass_turn_on(self, agent: MediaAgent) -> None:
        plan = agent.plan
        blocks = min(max(plan.fetch_bytes, plan.stage_fetch_bytes) // plan.block_bytes, agent.cache.slots)
        weights = (plan.weights.vm_reads, plan.weights.relocation_reads, plan.weights.staging)
        agent.turn = (agent.turn + 1) % 3
        agent.balance[agent.turn] += weights[agent.turn] * blocks * plan.block_bytes // 100

    # cursors

    def _cursor(self, client: Client, cause: int) -> Cursor:
        return client.first_set_cursor if cause == FIRST_SET else client.relocation_cursor

    def _cause_of_relocation(self, client: Client) -> int:
        return RELOCATION_STAGING if client.relocating else PRE_STAGING

    def _next_of_first_set(self, agent: MediaAgent, client: Client) -> int | None:
        return self._next_block(agent, client, client.first_set_cursor)

    def _next_of_relocation(self, agent: MediaAgent, client: Client) -> int | None:
        """Rule 6, of cursors: nothing while too much of what it gave was not sent to anyone."""
        if self._may_be_ahead(client) <= 0:
            return None
        return self._next_block(agent, client, client.relocation_cursor)

    def _next_block(self, agent: MediaAgent, client: Client, cursor: Cursor) -> int | None:
        """Rule 6, of cursors: one that cannot have a slot, or whose machine has finished, does not move."""
        if client.relocation_finished or client.schedule.expired or not agent.cache.slots_for_stagers:
            return None
        return cursor.next_block(lambda block: agent.may_stage(client, block))

    def _may_be_ahead(self, client: Client) -> int:
        return client.plan.stage_ahead_limit // client.plan.block_bytes - len(client.ahead)

    def _give(self, agent: MediaAgent, client: Client, cause: int) -> Fetch:
        """Rule 6, of cursors: the next block and its neighbours in the list, in number and on the medium."""
        size, address = client.plan.block_bytes, client.copy.address
        most = min(client.plan.stage_fetch_bytes // size, agent.cache.slots_for_stagers)
        if cause != FIRST_SET:
            most = min(most, self._may_be_ahead(client))

        def may_follow(given: list[int], block: int) -> bool:
            return (
                block == given[-1] + 1
                and address[block] == address[given[-1]] + size
                and agent.may_stage(client, block)
                and client.copy.content[block] not in client.contents(given)
            )

        cursor = self._cursor(client, cause)
        position = cursor.position
        blocks = cursor.give(may_follow, most)
        if cause != FIRST_SET:
            client.ahead |= set(blocks)
        return Fetch(client, blocks, cause, position=position)
