"""Checks of notebook 06: what one file takes, and when a mount may expire."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

import vmrestorekit as vr
from checks import Verdict, hint, right, your_turn
from vmrestorekit.plan import LaunchRule
from vmrestorekit.predict.profiles import SelectedFiles, first_set
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES

__all__ = ["SIZES", "Case", "check_bytes", "check_expiry", "draw"]

SIZES = (64 << 10, 1 << 20)
_SECOND = 1_000_000_000
_KIB, _MIB = 1 << 10, 1 << 20
# a client kept these busy after the boot, and these media are slow enough that requests take a while
_MACHINES = ("bookworm-files", "bookworm-node", "bookworm-web", "bullseye-db")
_DEVICES = ("disk_library", "object_storage")
_SERVICE_SECONDS = range(5, 61)


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A recorded boot, a file on its first disk, and how it is mounted.

    Attributes
    ----------
    boot : Boot
    path : str
    plan : RestorePlan
        Of a live mount that expires after an hour.
    hardware : str
    service_seconds : int
        For how long the machine is to serve after its boot.
    """

    boot: vr.Boot
    path: str
    plan: vr.RestorePlan
    hardware: str
    service_seconds: int

    def __repr__(self) -> str:
        launch = self.plan.launch.head_start_ns // _SECOND
        return (
            f"{self.boot.vm}, {self.boot.boot}. The file: {self.path}. The mount: from "
            f"{self.hardware.replace('_', ' ')}, launch {launch} s after the request. Once booted, "
            f"the machine is to serve for {self.service_seconds} s."
        )


def draw(corpus: vr.Corpus, seed: int) -> Case:
    """Draw a machine, one of its files, and a mount with a request under way when the service is over."""
    drawn = random.Random(f"live mount {seed}")
    mounts = [(machine, device) for machine in _MACHINES for device in _DEVICES]
    for machine, device in drawn.sample(mounts, len(mounts)):
        boot = corpus[machine].boot("boot-1")
        plan = vr.RestorePlan(
            boot.disk_bytes,
            mode="live_mount",
            # O3: the user's selected files are the profile
            first_set=first_set([SelectedFiles(("/boot/*", "/etc/*"))], boot.manifests),
            launch=LaunchRule("head_start", head_start_ns=drawn.randint(2, 8) * _SECOND),
            expiry_ns=3600 * _SECOND,
            warning_ns=10 * _SECOND,
        )
        case = Case(boot, drawn.choice(_fitting_files(boot)), plan, device, service_seconds=0)
        booted = -(-int(_run(case, 3600)["time_to_ready_ns"]) // _SECOND)
        for seconds in drawn.sample(_SERVICE_SECONDS, len(_SERVICE_SECONDS)):
            if _run(case, booted + seconds)["cut_off"]:
                return dataclasses.replace(case, service_seconds=seconds)
    raise RuntimeError(f"expected a mount with a request under way for seed {seed}, found none")


def _fitting_files(boot: vr.Boot) -> list[str]:
    """Return the files of the first disk of which the size of blocks makes a difference, in order."""
    manifest = boot.manifests[0]
    sizes = manifest.files.with_row_index("file").filter(
        pl.col("kind") == "regular", pl.col("size").is_between(200 * _KIB, 8 * _MIB)
    )
    in_use = manifest.blocks.with_row_index("block").filter(
        pl.col("content") != 0, pl.col("file").is_in(sizes["file"].implode())
    )
    place = pl.col("block").cast(pl.Int64) * MANIFEST_BLOCK_BYTES
    counts = in_use.group_by("file").agg((place // size).n_unique().alias(str(size)) for size in SIZES)
    small, large = (pl.col(str(size)) * size for size in SIZES)
    differing = counts.filter(small < large)["file"].sort()
    return sorted(manifest.files["path"].gather(differing).to_list())


def _whole(number: Any) -> int | None:
    """Return a whole number as such, also from NumPy or polars; None if it is none."""
    if isinstance(number, bool) or not hasattr(number, "__int__") or isinstance(number, str):
        return None
    try:
        return int(number) if int(number) == number else None
    except (ValueError, OverflowError):  # infinite, or no number at all
        return None


# --- 1: how many bytes does one file take? ----------------------------------------------------------------


def _stored_blocks(case: Case) -> npt.NDArray[np.int64]:
    """Return the stored 4 KiB blocks of the case's file."""
    manifest = case.boot.manifests[0]
    file = manifest.files["path"].to_list().index(case.path)
    mine = (manifest.blocks["file"] == file).fill_null(False) & (manifest.blocks["content"] != 0)
    return np.flatnonzero(mine.to_numpy())


def check_bytes(answer: Any, case: Case) -> Verdict:
    """Check what has to be read from the backup for the case's file, for each size of `SIZES`."""
    asked = f"How many bytes are read for {case.path}: {{{SIZES[0]}: …, {SIZES[1]}: …}}?"
    if answer is None or answer is ... or (isinstance(answer, Mapping) and ... in answer.values()):
        return your_turn(asked)
    if not isinstance(answer, Mapping) or set(answer) != set(SIZES):
        return hint(
            f"Expected a dictionary with the sizes {SIZES[0]} and {SIZES[1]} and bytes, got {answer!r}."
        )
    given = {size: _whole(answer[size]) for size in SIZES}
    if any(count is None for count in given.values()):
        return hint(f"Expected whole numbers of bytes, got {answer!r}.")
    blocks = _stored_blocks(case)
    counts = {size: len(np.unique(blocks * MANIFEST_BLOCK_BYTES // size)) for size in SIZES}
    if given == {size: count * size for size, count in counts.items()}:
        own = len(blocks) * MANIFEST_BLOCK_BYTES
        small, large = (counts[size] * size for size in SIZES)
        return right(
            f"The file has {own / _KIB:,.0f} KiB in blocks of its own. {counts[SIZES[0]]} blocks of 64 KiB "
            f"are {small / _KIB:,.0f} KiB, {counts[SIZES[1]]} of 1 MiB are {large / _KIB:,.0f} KiB: "
            f"{large / small:.1f} times as much. The rest belongs to its neighbours on the disk."
        )
    if given == counts:
        return hint(
            "That is how many blocks there are. Asked for is how many bytes: each is read as a whole."
        )
    if set(given.values()) == {len(blocks) * MANIFEST_BLOCK_BYTES}:
        return hint(
            "These are the file's own 4 KiB blocks. Whole blocks of 64 KiB, or 1 MiB, are read: in how "
            "many different ones do they lie?"
        )
    size = int(case.boot.manifests[0].files.filter(pl.col("path") == case.path)["size"][0])
    if given == {each: -(-size // each) * each for each in SIZES}:
        return hint(
            "You have rounded up the file's size, as if it began where a block begins and lay in one piece. "
            "Look at where its 4 KiB blocks lie on the disk."
        )
    wrong = [
        f"{size // 4096} for blocks of {name}"
        for size, name in zip(SIZES, ("64 KiB", "1 MiB"), strict=True)
        if given[size] != counts[size] * size
    ]
    return hint(
        "Take the numbers of the file's 4 KiB blocks that have contents. Divide them, rounding down, by "
        f"{' and by '.join(wrong)}. Count how many different results there are, and multiply by the size."
    )


# --- 2: when may it expire? -------------------------------------------------------------------------------


def _run(case: Case, seconds: int) -> dict[str, Any]:
    plan = case.plan.replace(expiry_ns=seconds * _SECOND)
    return vr.simulate(case.boot, plan, case.hardware, detail="summary").summary()


def _fits(case: Case, figures: Mapping[str, Any], seconds: int) -> bool:
    ready = figures["time_to_ready_ns"]
    served = ready is not None and seconds * _SECOND - ready >= case.service_seconds * _SECOND
    return served and figures["cut_off"] == 0


@functools.cache
def _shortest(case: Case) -> tuple[int, int]:
    """Return the shortest expiry in whole seconds, and the nanosecond at which the boot is done."""
    ready = int(_run(case, 3600)["time_to_ready_ns"])
    seconds = -(-ready // _SECOND) + case.service_seconds
    while not _fits(case, _run(case, seconds), seconds):
        seconds += 1
    return seconds, ready


def check_expiry(answer: Any, case: Case) -> Verdict:
    """Check the shortest expiry with which the boot is done, and the service is not cut off."""
    if answer is None or answer is ...:
        return your_turn(f"After how many whole seconds may the mount expire? {case!r}")
    seconds = _whole(answer)
    if seconds is None or seconds < 1:
        return hint(f"Expected a whole number of seconds, at least 1, got {answer!r}.")
    if seconds > 86_400:
        return hint("More than a day: expected seconds, not nanoseconds.")
    if seconds * _SECOND <= case.plan.launch.head_start_ns:
        return hint("Then the mount expires before the machine is launched: no plan can have that.")
    shortest, ready = _shortest(case)
    if seconds == shortest:
        local = int(_run(case, 3600)["local_boot_ns"]) / _SECOND
        return right(
            f"Launch after {case.plan.launch.head_start_ns / _SECOND:g} s, boot done at "
            f"{ready / _SECOND:.1f} s (from a local disk it takes {local:.1f} s), then at "
            f"least {case.service_seconds} s of service. At {seconds} s nothing was under way that the "
            "expiry cut off; a little earlier something was. The clock runs from the request for the mount."
        )
    figures = _run(case, seconds)
    if figures["time_to_ready_ns"] is None:
        return hint(f"After {seconds} s the machine is still booting: there is no time_to_ready_ns.")
    if seconds * _SECOND - ready < case.service_seconds * _SECOND:
        return hint(
            f"The boot is done, but after {seconds} s there were less than {case.service_seconds} s of "
            "service. Mind that everything counts from the request for the mount, not from the launch."
        )
    if figures["cut_off"]:
        return hint(
            f"The time is long enough. But at {seconds} s the machine was waiting for an "
            f"answer. Requests that were cut off: {figures['cut_off']}."
        )
    return hint(f"{seconds} s are enough, but it goes shorter.")
