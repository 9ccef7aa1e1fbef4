"""The read cache of the slow model (`simpy_model`): rule 5 of `docs/clockwork.md`.

What the cache holds are contents (rule 12). With one virtual machine the content of a block is its number.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

from slow_policies import SLOW


@dataclasses.dataclass
class Held:
    """A content in the cache: for which machine it came, the block there, and whether it was served."""

    machine: int
    block: int
    content: int
    served: bool = False


class ReadCache:
    """Rule 5: slots, pins, and who may have which slot."""

    def __init__(self, slots: int, policy: str) -> None:
        self.slots = slots
        self.policy = SLOW[policy](slots)
        self.held: dict[int, Held] = {}
        self.in_flight: set[int] = set()
        self.pins: Counter[int] = Counter()

    def __contains__(self, content: int) -> bool:
        return content in self.held

    @property
    def free(self) -> int:
        return self.slots - len(self.held) - len(self.in_flight)

    def demand_may_evict(self, content: int) -> bool:
        return content in self.held and not self.pins[content]

    def stager_may_evict(self, content: int) -> bool:
        return self.demand_may_evict(content) and self.held[content].served

    @property
    def slots_for_demand(self) -> int:
        return self.free + sum(self.demand_may_evict(content) for content in self.held)

    @property
    def slots_for_stagers(self) -> int:
        return self.free + sum(self.stager_may_evict(content) for content in self.held)

    def make_room(self, count: int, incoming: int, may_evict: Callable[[int], bool]) -> list[Held]:
        """Evict in the policy's order until `count` slots are free; return what went."""
        gone = []
        while self.free < count:
            victim = self.policy.evict(incoming, may_evict)
            assert victim is not None, "room was promised that there is not"
            gone.append(self.held.pop(victim))
        return gone

    def reserve(self, content: int) -> None:
        assert self.free > 0, "more slots are taken than there are"
        assert content not in self.held
        assert content not in self.in_flight
        self.in_flight.add(content)

    def release(self, content: int) -> None:
        """Give back the slot of what does not enter after all."""
        self.in_flight.remove(content)

    def enter(self, content: int, held: Held) -> None:
        self.in_flight.remove(content)
        self.held[content] = held
        self.policy.insert(content)

    def drop(self, content: int) -> Held:
        """Purge a content, or drop it with all of its machine."""
        self.policy.remove(content)
        return self.held.pop(content)
