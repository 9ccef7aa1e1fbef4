"""Back up a recorded machine day by day: a chain of copies between its boots, and where their blocks lie.

The stores are real ones, made of the disk as it was before each recorded boot. They hold contents and stay
on this machine; what goes into the corpus is only where each block lies.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

from vmrestorekit.backup import (
    BackupLayout,
    BackupStore,
    CopyContents,
    CopySettings,
    create_copy,
    export_copy,
    save_layouts,
    stored_layout,
    synthesise_full,
    verify_store,
)
from vmrestorekit.backup.copy_layout import LAYOUTS_FILE
from vmrestorekit.lab.guests.guest import describe_image
from vmrestorekit.lab.programs import LabError, require_programs, run
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.recording.record import states_before
from vmrestorekit.traces.corpus import load_corpus

__all__ = ["back_up_chain"]

_IN_FRAMES = CopySettings(zstd_level=3, frame_bytes=1 << 20)


def back_up_chain(
    image: Path, corpus: Path, *, work_dir: Path | None = None, report: Report | None = None
) -> Path:
    """Back up the disk before each recorded boot; save where the blocks of each copy lie into the corpus.

    Parameters
    ----------
    image : Path
        Whose boots `record_boots` recorded.
    corpus : Path
        Which has those boots.
    work_dir : Path, optional
        As of `record_boots`.
    report : Report, optional

    Returns
    -------
    Path
        What `vmrestorekit.backup.recorded_layouts` reads, and describes.

    Raises
    ------
    LabError
        If there are fewer than two recorded boots, a store is damaged, or an exported disk is not the disk
        that was backed up, or not clean.
    """
    require_programs(["qemu-img", "e2fsck"], "checking the exported disks")
    report = report or Report()
    work_dir = work_dir or image.with_name(image.name + ".boots")
    vm = str(describe_image(image)["name"])
    recorded = load_corpus(corpus).get(vm) if (corpus / vm).is_dir() else None
    if recorded is None or len(recorded.boots) < 2:
        raise LabError(f"{corpus}: expected at least two recorded boots of {vm}, record them first")
    if len(recorded.boots[0].disk_bytes) > 1:
        raise LabError(f"{corpus}: expected a machine with one disk, got {vm} with more")
    states = states_before(image, len(recorded.boots), work_dir)
    stores = work_dir / "stores"
    shutil.rmtree(stores, ignore_errors=True)
    layouts: dict[str, BackupLayout] = {}
    try:
        for name, layout in _layouts(vm, states, stores, report):
            layouts[name] = layout
            report.say(f"{vm}: {name}: {layout.stored_bytes / 1e6:.0f} MB")
    finally:
        shutil.rmtree(stores, ignore_errors=True)
    path = corpus / vm / LAYOUTS_FILE
    save_layouts(path, layouts)
    return path


def _layouts(vm: str, states: list[Path], stores: Path, report: Report) -> Iterator[tuple[str, BackupLayout]]:
    longest = len(states) - 1
    for length in range(longest, -1, -1):
        with _chain(
            vm, states[longest - length :], stores / f"length-{length}", CopySettings(), report
        ) as store:
            if length == longest:
                for number, state in enumerate(states, 1):
                    yield f"boot-{number}", stored_layout(store, number)
                    _expect_same(store, number, state, stores, report)
                synthetic = synthesise_full(store, len(states), rewrite=True)
                yield "synthetic full", stored_layout(store, synthetic.number)
                _expect_same(store, synthetic.number, states[-1], stores, report)
                _expect_undamaged(store)
            yield f"length {length}", stored_layout(store, length + 1)
    with _chain(vm, states, stores / "in-frames", _IN_FRAMES, report) as store:
        yield "in frames", stored_layout(store, len(states))
        _expect_same(store, len(states), states[-1], stores, report)
        _expect_undamaged(store)


def _chain(vm: str, states: list[Path], path: Path, settings: CopySettings, report: Report) -> BackupStore:
    path.parent.mkdir(parents=True, exist_ok=True)
    store = BackupStore.create(path)
    for state, kind in zip(states, itertools.chain(["full"], itertools.repeat("incremental")), strict=False):
        report.now(f"{vm}: backing up {state.name}, {kind}, into a chain of {len(states)}")
        create_copy(store, vm, [state], kind=kind, settings=settings)
    return store


def _expect_same(store: BackupStore, number: int, state: Path, stores: Path, report: Report) -> None:
    """Export a copy; raise unless QEMU finds it identical and its ext file systems are clean."""
    report.now(f"{state.name}: comparing with copy {number}")
    with CopyContents(store, number) as contents:
        ext_partitions = [
            (partition["start"], partition["length"])
            for partition in contents.files().partitions
            if str(partition["file_system"]).startswith("ext")
        ]
    exported, volume = stores / "exported.img", stores / "exported-partition.img"
    try:
        export_copy(store, number, exported)
        run(["qemu-img", "compare", "-f", "raw", "-F", "raw", state, exported], timeout_s=600)
        for start, length in ext_partitions:
            # apart from the disk, because e2fsck opens it again when it has replayed a journal, and then
            # forgets an offset
            where = ["iflag=skip_bytes,count_bytes", f"skip={start}", f"count={length}"]
            run(["dd", f"if={exported}", f"of={volume}", "bs=1M", "conv=sparse", *where])
            # as the next boot does after a crash; then all has to be in order
            run(["e2fsck", "-p", volume], timeout_s=600, good=(0, 1))
            run(["e2fsck", "-f", "-n", volume], timeout_s=600)
    finally:
        exported.unlink(missing_ok=True)
        volume.unlink(missing_ok=True)


def _expect_undamaged(store: BackupStore) -> None:
    damages = verify_store(store)
    if damages:
        raise LabError(f"{store.path}: damaged right after it was written: {damages[0].what}")
