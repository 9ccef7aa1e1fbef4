"""The rules by which a media agent works, without input, output and clock.

Rules 4, 5, 6 and 8 of ``docs/clockwork.md``, carried out by the same compiled steps as the simulation.
Whoever uses them tells what happens and when (a read came, a fetch completed, a transmission arrived, a
message came) and carries out what they answer: parts to be sent, fetches to be started. Times never go back.
After everything that happens at an instant, `purge_due` and then `dispatch` are called.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from vmrestorekit.lab.media.cache import PRESENT, Log, Part
from vmrestorekit.lab.media.fetch_queue import Fetch
from vmrestorekit.lab.media.parts import PartServer
from vmrestorekit.lab.media.purging import BY_INDICATION
from vmrestorekit.lab.media.staging import FIRST_SET, PRE_RELOCATION, RELOCATION_STAGING, Medium
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.runs import RunDetector

__all__ = ["AgentRules", "Fetch", "Medium", "Part"]


class AgentRules(PartServer):
    """What a media agent with one virtual machine does.

    Parameters
    ----------
    medium : Medium
        Where the blocks lie.
    channels : int
        Of the backup device.
    plan : RestorePlan
        What to go by until `indicate_vm_profile`; nothing is staged before that.
    log : Log
        Where events go.

    Raises
    ------
    PlanError
        If the plan is one that cannot be carried out by a media agent: one with weighted priorities.
    """

    def __init__(self, medium: Medium, channels: int, plan: RestorePlan, log: Log) -> None:
        super().__init__(medium, channels, plan, log)
        self.follow(plan)
        self._walk(plan.replace(first_set=[]))

    def follow(self, plan: RestorePlan) -> None:
        """Go by another plan, without staging for it."""
        self.queue.follow(plan)  # it may refuse
        if (plan.cache_slots, plan.eviction) != (self.cache.slots, self.cache.policy.policy):
            self.cache.resize(plan.cache_slots, plan.eviction)
        self.plan = plan
        self._straight = plan.misses == "straight"
        self._fetch_blocks = min(plan.fetch_bytes // plan.block_bytes, plan.cache_slots)
        self.purger.follow(plan)

    def warm_up(self) -> None:
        """Load what is compiled, which takes seconds, before anybody waits for it."""
        self.cache.policy.evictable()
        RunDetector([0, 1]).read(0)

    # messages

    def indicate_vm_profile(self, now: int, plan: RestorePlan) -> None:
        """Begin to stage a plan's first set, in its order, with the next `dispatch`."""
        self.notes.now = now
        self.follow(plan)
        self._walk(plan)

    def explain_first_set(self, event: int) -> None:
        """Say which event is the cause of staging the first set."""
        self.queue.reasons[FIRST_SET] = event

    def _walk(self, plan: RestorePlan) -> None:
        self.stager.follow(plan)
        self._first_set = frozenset(self.stager.first_set)
        self.staged_first_set = {block for block in self._first_set if self.cache.place_of(block) == PRESENT}
        self._left_to_relocate = sum(
            not self.stager.relocated[block] for block in self.stager.sequence.tolist()
        )
        if self.stager.relocating:
            self.purger.begin(self.purger.indication)

    def indicate_pre_relocation(self, now: int, event: int = -1) -> None:
        """Begin to stage along the relocation sequence, at low priority."""
        self.notes.now = now
        self.stager.pre_relocation = True
        self.queue.reasons[PRE_RELOCATION] = event

    def indicate_relocation(self, now: int, event: int = -1) -> None:
        """The relocation runs: stage for it, and look for its reads."""
        self.notes.now = now
        self.stager.relocating = True
        self.queue.reasons[RELOCATION_STAGING] = event
        self.purger.begin(event)
        self._finish_if_all_is_relocated()

    def relocated(self, now: int, blocks: Iterable[int], event: int = -1) -> None:
        """Blocks are on the destination; after the last one, no more is staged or tracked."""
        self.notes.now = now
        for block in blocks:
            if not self.stager.relocated[block]:
                self.stager.relocated[block] = 1
                self._left_to_relocate -= bool(self.medium.stored[block])
            if self.plan.purge.by_indication:
                self.purger.mark(block, BY_INDICATION, event)
        self._finish_if_all_is_relocated()

    def _finish_if_all_is_relocated(self) -> None:
        if self.stager.relocating and self._left_to_relocate == 0:
            self.finish_relocation()

    def finish_relocation(self) -> None:
        """No more staging, no more tracking."""
        self.stager.relocating = False
        self.stager.finished = True
        self.purger.end()

    def cancel_relocation(self, now: int) -> None:
        """The relocation is given up: staging for it stops, and begins anew if it runs again."""
        self.notes.now = now
        self.stager.pre_relocation = self.stager.relocating = False
        self.stager.sequence_at = 0
        self.purger.end()

    def look_at_runs(self, now: int) -> None:
        """Purge by period: to be called every `period_ns` while the relocation runs."""
        self.notes.now = now
        self.purger.look_at_runs()

    def stop(self, now: int) -> None:
        """Start nothing any more; whoever waits, waits in vain."""
        self.notes.now = now
        self.queue.stopped = True
        self.finish_relocation()
        for part in [part for copy in self.cache.copies.values() for part in copy.waiting]:
            self.abandon(now, part)
        self.queue.drop_waiting()

    # after everything

    def dispatch(self, now: int) -> list[Fetch]:
        """Start what can be started; return it."""
        self.notes.now = now
        return self.queue.dispatch()

    def purge_due(self, now: int) -> None:
        """Purge what is due at this instant."""
        if self.purger.due:
            self.notes.now = now
            self.purger.purge_due()

    # launch

    @property
    def staged_to_launch(self) -> int:
        """How many blocks of the first set have to be staged for a launch by share."""
        return math.ceil(self.plan.launch.share * len(self.stager.first_set))

    @property
    def has_staged_enough(self) -> bool:
        """Whether a launch by share is due: enough is staged, or staging can go no further."""
        return len(self.staged_first_set) >= self.staged_to_launch or (
            not self.queue.staging_waits and self.queue.idle_channels > 0
        )
