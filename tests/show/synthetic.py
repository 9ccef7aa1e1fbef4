"""Plausible timelines made by hand from the contract of `Timeline`, without the engine.

A small bookkeeper keeps every event consistent with the state it leads to: only what was staged is served,
only what is relocated is purged, and so on. Times are made up; nothing here says how long a restore takes.
"""

from __future__ import annotations

import random

import numpy as np
import polars as pl

from vmrestorekit.plan import LaunchRule, RestorePlan
from vmrestorekit.restore.events import CAUSES, EVENTS_SCHEMA, KIND_MEANING
from vmrestorekit.restore.summary import summarise, time_of
from vmrestorekit.restore.timeline import Timeline

BLOCK = 64 * 1024
MS = 1_000_000
SECOND = 1_000_000_000


class _Book:
    def __init__(self, blocks: int, seed: int, slots: int) -> None:
        self.random = random.Random(seed)
        self.blocks, self.slots = blocks, slots
        self.stored = np.array([self.random.random() < 0.9 for _ in range(blocks)])
        self.rows: list[tuple[int, str, str, int, int, int, int]] = []
        self.now = 0
        self.request = 0
        self.cached: dict[int, bool] = {}  # block -> was served
        self.relocated: set[int] = set()
        self.purged: set[int] = set()
        self.written: set[int] = set()

    def add(self, kind: str, block: int = -1, count: int = 0, request: int = -1, detail: int = 0) -> None:
        self.rows.append((self.now, kind, KIND_MEANING[kind][0], block, count, request, detail))

    def wait(self, nanoseconds: float) -> None:
        self.now += int(nanoseconds)

    def make_room(self) -> None:
        while len(self.cached) >= self.slots:
            block = next(iter(self.cached))
            self.add("evict", block, 1, detail=int(not self.cached.pop(block)))

    def stage(self, block: int, cause: str, request: int = -1, lasts: float = 32 * MS) -> None:
        if block in self.cached or not self.stored[block]:
            return
        self.make_room()
        self.add("fetch", block, 1, request, CAUSES.index(cause))
        self.wait(lasts)
        self.add("staged", block, 1, request, CAUSES.index(cause))
        self.cached[block] = False

    def serve(self, block: int, request: int, reader: int) -> None:
        if block in self.cached:
            self.add("cache_hit", block, 1, request, reader)
        else:
            self.add("cache_miss", block, 1, request, reader)
            if block in self.purged and reader == 0:
                self.add("refetch_after_purge", block, 1, request, reader)
            self.stage(block, CAUSES[reader], request)
        self.wait(0.7 * MS)
        self.add("serve", block, 1, request, reader)
        self.cached[block] = True

    def vm_read(self, block: int, count: int = 1, on_its_way: bool = False) -> None:
        request, started = self.request, self.now
        self.request += 1
        self.add("vm_read", block, count, request, count * BLOCK - 4096 * (count == 1))
        for each in range(block, block + count):
            if each in self.written:
                self.wait(0.2 * MS)
                self.add("read_write_cache", each, 1, request, BLOCK)
            elif each in self.relocated:
                self.wait(0.2 * MS)
                self.add("read_destination", each, 1, request, BLOCK)
            elif on_its_way and self.stored[each] and each not in self.cached:
                self.make_room()
                self.add("fetch", each, 1, -1, CAUSES.index("first_set"))
                self.wait(MS)
                self.add("cache_wait", each, 1, request, 0)
                self.wait(9 * MS)
                self.add("staged", each, 1, -1, CAUSES.index("first_set"))
                self.cached[each] = False
                self.wait(0.7 * MS)
                self.add("serve", each, 1, request, 0)
                self.cached[each] = True
            elif self.stored[each]:
                self.serve(each, request, 0)
        self.add("vm_done", block, count, request, self.now - started)
        self.wait(self.random.random() * 20 * MS)

    def vm_other(self, kind: str, block: int = -1, count: int = 0) -> None:
        request = self.request
        self.request += 1
        self.add(kind, block, count, request, count * BLOCK)
        if kind == "vm_write":
            self.wait(0.3 * MS)
            self.add("written", block, count, request, 0)
            self.written.update(range(block, block + count))
        self.add("vm_done", block, count, request, 300_000 if kind == "vm_write" else 0)
        self.wait(5 * MS)

    def step_of_the_vm(self) -> None:
        block = self.random.randrange(self.blocks - 2)
        draw = self.random.random()
        if draw < 0.12:
            self.vm_other("vm_write", block, 1 + (draw < 0.04))
        elif draw < 0.14:
            self.vm_other("vm_flush")
        elif draw < 0.15:
            self.vm_other("vm_discard", block, 1)
        else:
            self.vm_read(block, 1 + (draw < 0.5), on_its_way=draw < 0.3)


def _boot(book: _Book, plan: RestorePlan) -> None:
    if plan.mode == "live_mount":
        book.add("select_vm")
    book.add("export_file_system")
    book.add("mount_file_system")
    if plan.mode != "live_mount":
        book.add("set_up_data_flow")
    book.add("indicate_vm_profile")
    book.add("determine_first_set", count=plan.first_set.size)
    ahead = plan.first_set[: plan.first_set.size * 2 // 3]
    for block in ahead:
        book.stage(int(block), "first_set", lasts=4 * SECOND / max(1, ahead.size))
    book.add("launch_vm", detail=len(book.cached))
    for block in plan.first_set:
        if book.random.random() < 0.7:
            book.vm_read(int(block), on_its_way=True)
        else:
            book.step_of_the_vm()
    book.add("boot_done")


def _timeline(book: _Book, plan: RestorePlan) -> Timeline:
    events = pl.DataFrame([(*row, -1) for row in book.rows], schema=EVENTS_SCHEMA, orient="row")
    to_boot = (time_of(events, "boot_done") or 0) - (time_of(events, "launch_vm") or 0)
    metrics = summarise(events, plan, local_boot_ns=to_boot * 2 // 3)
    return Timeline(events, metrics, plan, None, "made-by-hand", "boot-1", book.stored)


def plan_of(blocks: int, mode: str, slots: int, expiry_ns: int | None = None) -> RestorePlan:
    first_set = np.random.default_rng(1).permutation(blocks)[: max(4, blocks // 8)].astype(np.int32)
    return RestorePlan(
        (blocks * BLOCK,),
        mode=mode,
        first_set=first_set,
        launch=LaunchRule("head_start", head_start_ns=1),
        cache_bytes=slots * BLOCK,
        expiry_ns=expiry_ns,
    )


def instant_restore(blocks: int = 48, *, slots: int | None = None, seed: int = 7) -> Timeline:
    slots = slots or max(8, blocks // 3)
    plan = plan_of(blocks, "instant_restore", slots)
    book = _Book(blocks, seed, slots)
    _boot(book, plan)
    book.add("indicate_pre_relocation")
    book.stage(0, "pre_relocation")
    book.stage(1, "pre_relocation")
    book.add("read_from_media", 2, 1, book.request, CAUSES.index("vm_read"))
    book.add("lose_media_agent", detail=0)
    book.cached.clear()
    book.add("take_over", detail=1)
    book.add("start_relocation")
    book.add("indicate_relocation_in_progress")
    for number, start in enumerate(range(0, blocks, 8)):
        _relocate(book, start, min(8, blocks - start), book.request + 1000 + number, number)
    _complete(book)
    return _timeline(book, plan)


def _relocate(book: _Book, start: int, count: int, request: int, number: int) -> None:
    book.add("relocation_read", start, count, request, count * BLOCK)
    for block in range(start, start + count):
        if book.stored[block]:
            if block not in book.cached and block % 3 == 0:
                book.stage(block, "relocation_staging", lasts=5 * MS)
            book.serve(block, request, 1)
    book.wait(2 * MS)
    book.add("relocated", start, count, request, count * BLOCK)
    book.relocated.update(range(start, start + count))
    if number % 4 == 1:
        book.add("infer_run", start, count)
    for block in range(start, start + count):
        if block in book.cached and block % 5:
            del book.cached[block]
            book.purged.add(block)
            book.add("purge", block, 1, detail=number % 2)
    if (
        number % 3 == 2
    ):  # asked for again although it was purged: not how a host routes, but the event must show
        block = min(book.purged)
        book.relocated.discard(block)
        book.vm_read(block)
        book.relocated.add(block)
    for _ in range(3):
        book.step_of_the_vm()


def _complete(book: _Book) -> None:
    book.add("finish_relocation")
    book.add("apply_writes", detail=len(book.written) * BLOCK)
    for block in sorted(book.written):
        book.wait(MS)
        book.add("applied", block, 1, detail=BLOCK)
    book.written.clear()
    book.add("use_destination")
    book.add("unmount_file_system")
    book.add("indicate_relocation_completed")
    book.add("empty_read_cache", count=len(book.cached))
    book.cached.clear()
    book.add("de_associate")
    for _ in range(5):
        book.vm_read(book.random.randrange(book.blocks))


def live_mount(blocks: int = 48, *, slots: int | None = None, seed: int = 11) -> Timeline:
    slots = slots or max(8, blocks // 3)
    plan = plan_of(blocks, "live_mount", slots, expiry_ns=3600 * SECOND)
    book = _Book(blocks, seed, slots)
    _boot(book, plan)
    for _ in range(30):
        book.step_of_the_vm()
    book.vm_other("vm_discard", 3, 1)
    book.add("warn_of_expiry", detail=60 * SECOND)
    book.add("extend_expiry", detail=7200 * SECOND)
    for _ in range(10):
        book.step_of_the_vm()
    book.add("expire", detail=2)
    book.add("power_down")
    book.add("strand")
    book.add("empty_read_cache", count=len(book.cached))
    book.add("unmount_file_system")
    book.add("de_associate")
    return _timeline(book, plan)


def long_timeline(events: int = 200_000, blocks: int = 4_000) -> Timeline:
    """Return an instant restore with its middle repeated until it has so many events."""
    once = instant_restore(blocks)
    copies, span = -(-events // len(once)), once.end_ns + 1
    frames = [once.events.with_columns(pl.col("time_ns") + n * span) for n in range(copies)]
    return Timeline(pl.concat(frames), once.metrics, once.plan, None, once.vm, once.boot, once.stored)
