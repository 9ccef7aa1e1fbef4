"""Any sequence of backups, interruptions, synthetic copies and expiries gives back what was there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_helpers import BLOCK, SETTINGS, stored_files, write_image

from vmrestorekit.backup import (
    BackupStore,
    StoreError,
    create_copy,
    expire_copies,
    export_copy,
    synthesise_full,
    verify_store,
)
from vmrestorekit.backup.index import count_links

MACHINES = ("web", "db")
SEEDS = st.integers(0, 6)  # few contents, so that blocks become equal within a machine and across them


class Interruption(BaseException):
    """As of a user's Ctrl-C."""


class StoreMachine(RuleBasedStateMachine):
    """Holds what each copy has to give back, and compares."""

    @initialize(blocks=st.lists(SEEDS, min_size=8, max_size=20), tail=st.sampled_from([0, 512, 2048]))
    def begin(self, blocks: list[int], tail: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="store-states-"))
        self.store = BackupStore.create(self.folder / "store", BLOCK)
        self.blocks = {vm: list(blocks) for vm in MACHINES}
        self.tail = tail
        self.expected: dict[int, list[bytes]] = {}
        for vm in MACHINES:
            (self.folder / f"{vm}.toml").write_text(f"name = '{vm}'\n")

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.store.close()
            shutil.rmtree(self.folder)

    def image(self, vm: str) -> Path:
        return write_image(self.folder / f"{vm}.img", self.blocks[vm], self.tail)

    def back_up(self, vm: str, kind: str, chosen: int, streams: int, stop_at: int | None) -> None:
        calls = 0

        def progress(done: int, total: int) -> None:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise Interruption

        image, configuration = self.image(vm), self.folder / f"{vm}.toml"
        try:
            copy = create_copy(
                *(self.store, vm, [image]),
                kind=kind,
                configuration=[configuration],
                settings=SETTINGS[chosen],
                streams=streams,
                progress=progress,
            )
        except StoreError:
            assert kind != "full"
            assert all(copy.vm != vm for copy in self.store.copies())
        else:
            self.expected[copy.number] = [image.read_bytes(), configuration.read_bytes()]

    @rule(vm=st.sampled_from(MACHINES), changes=st.dictionaries(st.integers(0, 19), SEEDS, max_size=6))
    def use(self, vm: str, changes: dict[int, int]) -> None:
        for block, seed in changes.items():
            if block < len(self.blocks[vm]):
                self.blocks[vm][block] = seed

    @rule(vm=st.sampled_from(MACHINES), grow=st.booleans())
    def resize(self, vm: str, grow: bool) -> None:
        self.blocks[vm] = (
            [*self.blocks[vm], 5] if grow else self.blocks[vm][: max(4, len(self.blocks[vm]) - 1)]
        )

    @rule(
        vm=st.sampled_from(MACHINES),
        kind=st.sampled_from(["full", "incremental", "incremental", "differential"]),
        chosen=st.integers(0, len(SETTINGS) - 1),
        streams=st.integers(1, 3),
    )
    def create(self, vm: str, kind: str, chosen: int, streams: int) -> None:
        self.back_up(vm, kind, chosen, streams, None)

    @rule(
        vm=st.sampled_from(MACHINES),
        kind=st.sampled_from(["full", "incremental"]),
        chosen=st.integers(0, len(SETTINGS) - 1),
        streams=st.integers(1, 3),
        stop_at=st.integers(1, 4),
    )
    def interrupt(self, vm: str, kind: str, chosen: int, streams: int, stop_at: int) -> None:
        try:
            self.back_up(vm, kind, chosen, streams, stop_at)
        except Interruption:
            assert [attempt.vm for attempt in self.store.attempts()].count(vm) == 1

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), rewrite=st.booleans(), chosen=st.integers(0, len(SETTINGS) - 1))
    def synthesise(self, data: st.DataObject, rewrite: bool, chosen: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.expected)))
        copy = synthesise_full(self.store, number, rewrite=rewrite, settings=SETTINGS[chosen])
        assert copy.parent is None
        assert (copy.counts["new_blocks"] > 0) <= rewrite
        self.expected[copy.number] = self.expected[number]

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        numbers = data.draw(st.sets(st.sampled_from(sorted(self.expected)), min_size=1))
        needed = {
            copy.parent
            for copy in self.store.copies()
            if copy.number not in numbers and copy.parent in numbers
        }
        if needed:
            with pytest.raises(StoreError, match="is the parent of"):
                expire_copies(self.store, sorted(numbers))
        else:
            expire_copies(self.store, sorted(numbers))
            for number in numbers:
                del self.expected[number]

    @precondition(lambda self: self.expected)
    @rule()
    def lose_the_index(self) -> None:
        self.store.close()
        (self.store.path / "index.sqlite").unlink()
        with self.store.writing():
            pass

    @invariant()
    def every_copy_gives_back_what_was_there(self) -> None:
        if not hasattr(self, "store"):
            return
        assert [copy.number for copy in self.store.copies()] == sorted(self.expected)
        for number, files in self.expected.items():
            assert stored_files(self.store, number) == files

    @invariant()
    def the_store_is_in_order(self) -> None:
        if not hasattr(self, "store"):
            return
        assert verify_store(self.store) == []
        alive = {copy.number for copy in [*self.store.copies(), *self.store.attempts()]}
        if not (self.store.path / "index.sqlite").exists():
            return
        with self.store.writing():  # what an interruption left is put right
            there = self.store.chunks_there()
            headers = {chunk: self.store.header_on_disk(chunk) for chunk in there}
            counted = count_links(header for chunk, header in headers.items() if chunk.copy in alive)
            assert {slot: links for slot, _, links in self.store.index.stored()} == {
                slot: links for slot, (_, links) in counted.items()
            }
            # a chunk is there because its copy is, or because blocks link to it
            assert {chunk for chunk in there if chunk.copy not in alive} <= {slot[:2] for slot in counted}

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def export(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.expected)))
        out = self.folder / "exported.img"
        export_copy(self.store, number, out)
        assert out.read_bytes() == self.expected[number][0]
        out.unlink()


StoreMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStoreStates = StoreMachine.TestCase
