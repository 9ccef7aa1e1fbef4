"""A process that is killed at any moment leaves a store that is in order, and a later one completes its work.

The process kills itself before its n-th step that touches files, for n from 1 on until it gets through. A
step is whatever Python reports to an audit hook, and each flush to disk.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from store_helpers import BLOCK, SETTINGS, allocated_bytes, stored_files, write_image

from vmrestorekit.backup import (
    BackupStore,
    create_copy,
    expire_copies,
    synthesise_full,
    verify_store,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked to be killed")

FIRST = [1, 2, 3, 0, 4, 5, 6, 1, 7, 8, 9, 11, 5, 13, 15, 9]  # some twice, so that chunks link to each other
SECOND = [1, 2, 17, 19, 0, 5, 6, 1, 21, 8, 9, 11, 13, 21, 19, 9]
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "sqlite3.connect"}

Operation = Callable[[Path], object]


def create_full(folder: Path) -> None:
    back_up(folder, "full", FIRST)


def create_incremental(folder: Path) -> None:
    back_up(folder, "incremental", SECOND)


def synthesise(folder: Path) -> None:
    with BackupStore(folder / "store") as store:
        synthesise_full(store, 2)


def rewrite(folder: Path) -> None:
    with BackupStore(folder / "store") as store:
        synthesise_full(store, 2, rewrite=True, settings=SETTINGS[0], streams=2)


def expire(folder: Path) -> None:
    """The chain goes, a synthetic copy with links into it stays."""
    with BackupStore(folder / "store") as store:
        expire_copies(store, [copy.number for copy in store.copies() if copy.number in (1, 2)])


def back_up(folder: Path, kind: str, blocks: list[int]) -> None:
    image = write_image(folder / "web.img", blocks, tail=512)
    with BackupStore.open_or_create(folder / "store", BLOCK) as store:
        create_copy(store, "web", [image], kind=kind, settings=SETTINGS[1], streams=2)


def killed(folder: Path, operation: Operation, at: int) -> bool:
    """Do it in a process that kills itself before its `at`-th step; False if it gets through before."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _kill_at(at)
            operation(folder)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def _kill_at(at: int) -> None:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in STEPS:
            step()

    flush = os.fsync

    def flush_and_step(descriptor: int) -> None:
        step()
        flush(descriptor)

    os.fsync = flush_and_step
    sys.addaudithook(hook)


def contents(folder: Path) -> dict[int, list[bytes]]:
    with BackupStore(folder / "store") as store:
        return {copy.number: stored_files(store, copy.number) for copy in store.copies()}


@pytest.mark.parametrize(
    ("before", "operation"),
    [
        ([], create_full),
        ([create_full], create_incremental),
        ([create_full, create_incremental], synthesise),
        ([create_full, create_incremental], rewrite),
        ([create_full, create_incremental, synthesise], expire),
        ([create_full, create_incremental, rewrite], expire),
    ],
    ids=lambda each: each.__name__ if callable(each) else f"after {len(each)}",
)
def test_killed_at_any_step(tmp_path: Path, before: list[Operation], operation: Operation) -> None:
    start = tmp_path / "start"
    start.mkdir()
    for each in before:
        each(start)
    whole = tmp_path / "whole"
    shutil.copytree(start, whole)
    operation(whole)
    had, wanted = contents(start) if before else {}, contents(whole)
    at = 0
    going = True
    while going:
        at += 1
        folder = tmp_path / f"killed-{at}"
        shutil.copytree(start, folder)
        going = killed(folder, operation, at)
        if (folder / "store" / "store.json").exists():
            with BackupStore(folder / "store") as store:
                assert verify_store(store) == [], at
            now = contents(folder)
            assert now in (had, wanted) or set(had) - {1, 2} <= set(now) <= set(had), at
            assert all(wanted.get(number, had.get(number)) == files for number, files in now.items()), at
        else:
            now = {}
        if now != wanted:
            operation(folder)
        assert contents(folder) == wanted, at
        with BackupStore(folder / "store") as store:
            with store.writing():
                pass  # what was left behind is cleared away
            assert store.attempts() == []
            assert verify_store(store) == [], at
            if operation is expire:
                with BackupStore(whole / "store") as other:
                    assert allocated_bytes(store) == allocated_bytes(other), at
            hidden = [path for path in store.path.glob("*/.*") if path.name != ".store.json.partial"]
            assert hidden == [], at
        shutil.rmtree(folder)
    assert at > 10


def test_what_was_sealed_before_the_kill_is_not_written_again(tmp_path: Path) -> None:
    # at which step the first chunk is sealed depends on the streams, but at the last ones all of them are
    some_kept = False
    at = 0
    while True:
        at += 1
        folder = tmp_path / f"try-{at}"
        folder.mkdir()
        if not killed(folder, create_full, at):
            break
        if list(folder.glob("store/chunks/0*")):
            with BackupStore(folder / "store") as store:
                there = set(store.chunks_there())
                # what links to a chunk that was not sealed is of no use
                kept = [chunk for chunk in there if store.header_on_disk(chunk).targets() <= there]
                containers = [
                    path for chunk in kept for path in store.chunk_folder(chunk).glob("container-*")
                ]
                some_kept |= bool(containers) and not store.copies()
            sealed = {path: path.stat().st_ino for path in containers}
            create_full(folder)
            with BackupStore(folder / "store") as store:
                assert stored_files(store, 1) == [(folder / "web.img").read_bytes()]
                assert {path: path.stat().st_ino for path in sealed} == sealed
                # and no content is there twice
                signatures = [
                    signature
                    for chunk in store.chunks_there()
                    for signature in store.header(chunk).stored["signature"].tolist()
                ]
                assert len(signatures) == len(set(signatures))
        shutil.rmtree(folder)
    assert some_kept


def test_a_source_that_changed_in_between_is_backed_up_as_it_is_now(tmp_path: Path) -> None:
    at = 0
    while True:
        at += 1
        folder = tmp_path / f"try-{at}"
        folder.mkdir()
        if not killed(folder, create_full, at):
            break
        back_up(folder, "full", SECOND)
        with BackupStore(folder / "store") as store:
            assert [copy.number for copy in store.copies()] in ([1], [1, 2])
            assert stored_files(store, store.copies()[-1].number) == [(folder / "web.img").read_bytes()]
            assert verify_store(store) == []
        shutil.rmtree(folder)
