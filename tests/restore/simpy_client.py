"""What the media agent of the slow model (`simpy_model`) knows of one virtual machine, its client."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from simpy_devices import LAST_NUMBER, Action, Schedule, do_nothing

from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.events import READERS

if TYPE_CHECKING:
    from simpy_media_agent import MediaAgent


@dataclasses.dataclass(eq=False)
class Copy:
    """The backup copy: of each block whether and where it is stored, its chunk, and its content."""

    stored: list[bool]
    address: list[int]
    chunk: list[int] | None  # only if whole chunks have to be read
    content: list[int]
    chunk_extents: list[tuple[int, int]] | None = None  # on the medium, if chunks are more than their blocks

    def blocks_of(self, content: int) -> list[int]:
        return [block for block, other in enumerate(self.content) if other == content and self.stored[block]]


@dataclasses.dataclass(eq=False)
class Part:
    """Rule 4: a reader's need of one block of the logical source."""

    client: Client
    number: int
    place: int  # among the parts of its request
    reader: int
    block: int
    size: int
    received: Action

    @property
    def content(self) -> int:
        return self.client.copy.content[self.block]


@dataclasses.dataclass(eq=False)
class Fetch:
    """One fetch from the backup device: neighbouring blocks for a reader or for staging."""

    client: Client
    blocks: list[int]
    cause: int
    number: int = LAST_NUMBER  # of the reader's request
    position: int = -1  # of a stager's cursor, where it gave the first block
    straight: bool = False  # past the cache
    joined: int = -1  # how many fetches of all agents had joined a queue before
    along: list[int] = dataclasses.field(default_factory=list)  # more blocks of a whole chunk
    is_lost: bool = False  # its media agent has gone away

    @property
    def request(self) -> int:
        """The number as events show it."""
        return -1 if self.number == LAST_NUMBER else self.number

    @property
    def incoming(self) -> int:
        """The content of its first block."""
        return self.client.copy.content[self.blocks[0]]

    @property
    def contents(self) -> list[int]:
        """What it brings, as far as it is known yet."""
        return [self.client.copy.content[block] for block in [*self.blocks, *self.along]]


class Cursor:
    """Rule 6: walks a list of blocks and never looks back, unless a block is taken back."""

    def __init__(self, blocks: list[int]) -> None:
        self.blocks, self.position = blocks, 0

    def next_block(self, wanted: Callable[[int], bool]) -> int | None:
        """Pass over what is not wanted, and stand before the next block that is."""
        while self.position < len(self.blocks):
            if wanted(self.blocks[self.position]):
                return self.blocks[self.position]
            self.position += 1
        return None

    def give(self, may_follow: Callable[[list[int], int], bool], most: int) -> list[int]:
        """Give the block it stands before, and what follows as long as it may; at most so many in all."""
        given = [self.blocks[self.position]]
        self.position += 1
        while len(given) < most and self.position < len(self.blocks):
            following = self.blocks[self.position]
            if not may_follow(given, following):
                break
            given.append(following)
            self.position += 1
        return given

    def take_back(self, position: int) -> None:
        self.position = min(self.position, position)


@dataclasses.dataclass(eq=False)
class Run:
    """Rule 8: an open run of reads; `trigger` is that of its last `infer_run`."""

    start: int
    length: int = 1
    trigger: int | None = None

    @property
    def expected(self) -> int:
        return self.start + self.length


class RunTracker:
    """Rule 8: at most eight open runs along the relocation sequence, the last extended one last."""

    def __init__(self, sequence: list[int]) -> None:
        self.position_of = {block: position for position, block in enumerate(sequence)}
        self.runs: list[Run] = []

    def see(self, block: int) -> Run:
        """Extend or open a run; return it."""
        position = self.position_of[block]
        expecting = [run for run in self.runs if run.expected == position]
        if expecting:
            run = expecting[-1]
            self.runs.remove(run)
            run.length += 1
        else:
            run = Run(position)
        self.runs = [*self.runs, run][-8:]
        return run


class Client:
    """One virtual machine, as its media agent sees it."""

    def __init__(self, schedule: Schedule, plan: RestorePlan, copy: Copy) -> None:
        self.schedule, self.plan, self.copy = schedule, plan, copy
        chosen = [] if plan.mode == "full_restore" else plan.first_set
        self.first_set = [int(block) for block in chosen if copy.stored[block]]
        self.sequence = [int(block) for block in plan.sequence if copy.stored[block]]
        if len(self.sequence) != sum(copy.stored):
            raise ValueError(
                f"expected a sequence of all {sum(copy.stored)} stored blocks, got {len(self.sequence)}"
            )
        self.agent: MediaAgent | None = None
        self.pre_relocation_mode = self.relocating = self.relocation_finished = False
        self.relocated: set[int] = set()
        self.outstanding: list[Part] = []  # parts that have not arrived at the reader
        self.demand_of_vm: list[tuple[int, int]] = []  # when, bytes
        self.after_fetch: Action = do_nothing
        self.after_serving: Action = do_nothing
        self.forget()

    @property
    def number(self) -> int:
        return self.schedule.machine

    def forget(self) -> None:
        """Rule 12: what is lost with a media agent."""
        self.first_set_cursor = Cursor(self.first_set)
        self.relocation_cursor = Cursor(self.sequence)
        self.runs = RunTracker(self.sequence)
        self.ahead: set[int] = set()  # given by the relocation cursor, not sent to anyone since
        self.marks: set[int] = set()
        self.staged_of_first_set: set[int] = set()

    def ask(self, number: int, reader: int, parts: list[tuple[int, int, Action]]) -> None:
        """Rule 4: the parts of one request (block, bytes, what to do then) arrive, in their order."""
        arriving = [Part(self, number, place, reader, *part) for place, part in enumerate(parts)]
        self.outstanding += arriving
        if reader == READERS.index("vm"):
            self.demand_of_vm += [(self.schedule.now, part.size) for part in arriving]
        if self.agent is not None:
            self.agent.receive(arriving)

    def contents(self, blocks: list[int]) -> list[int]:
        return [self.copy.content[block] for block in blocks]
