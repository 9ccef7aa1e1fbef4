"""Boot a recorded guest in several ways, again and again, and write down what each boot took."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from vmrestorekit.lab.guests.units import BOOT_DONE_LINE, USE_BEGINS_LINE
from vmrestorekit.lab.peers.ways import LOCAL, DeviceSpec, Way
from vmrestorekit.lab.programs import LabError, run
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.qemu import UnexpectedLineError, block_node, run_qemu
from vmrestorekit.lab.recording.machine import raised_priority
from vmrestorekit.traces.schema import read_parquet, write_parquet_atomically

__all__ = ["RUNS_SCHEMA", "GuestDisk", "boot_once", "run_peers", "summary_of_runs"]

SECOND = 1_000_000_000
_ATTEMPTS = 3

RUNS_SCHEMA = pl.Schema(
    {
        "guest": pl.String(),
        "device": pl.String(),
        "way": pl.String(),
        "run": pl.Int64(),
        "prepare_s": pl.Float64(),  # until the launch
        "boot_s": pl.Float64(),  # from the launch on
        "media_bytes": pl.Int64(),
        "media_fetches": pl.Int64(),
        "hits": pl.Int64(),
        "waits": pl.Int64(),
        "misses": pl.Int64(),
        "error": pl.String(),
    }
)
_KEY = ("guest", "device", "way", "run")


@dataclasses.dataclass(frozen=True)
class GuestDisk:
    """A guest to boot: the disk before a recorded boot, as a raw image that is not written."""

    name: str
    image: Path
    graphics: bool = False


async def boot_once(
    guest: GuestDisk,
    way: Way,
    device: DeviceSpec,
    *,
    accelerator: str = "tcg",
    timeout_s: float = 900.0,
    report: Report | None = None,
) -> dict[str, Any]:
    """Prepare and boot once; return `prepare_s`, `boot_s` and the figures of the way.

    Raises
    ------
    LabError
        If it cannot be prepared, or does not boot in time.
    """
    report = report or Report()
    # short: the path of a socket may have some hundred characters
    with tempfile.TemporaryDirectory(prefix="vmrestorekit-") as short:
        folder = Path(short)
        writes = folder / "writes.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", writes, str(guest.image.stat().st_size)])
        began = time.monotonic_ns()
        async with way.prepare(guest.image, device, folder, report) as prepared:
            top = {"driver": "file", "filename": str(writes)}
            disks = [
                *prepared.nodes,
                *block_node(driver="qcow2", node_name="top", file=top, backing="base", discard="unmap"),
                *("-device", "virtio-blk-pci,drive=top,bootindex=1,serial=disk0,cyls=16383,heads=16,secs=63"),
            ]
            async with run_qemu(
                disks,
                accelerator=accelerator,
                console_log=folder / "console.log",
                graphics=guest.graphics,
                ends_with_us=True,
            ) as machine:
                launched = time.monotonic_ns()
                await prepared.launched()
                await machine.start()
                # a login prompt that opens the console at the same instant may empty it of the line
                await machine.wait_for(BOOT_DONE_LINE, timeout_s, failing=USE_BEGINS_LINE)
                done = time.monotonic_ns()
                machine.lose_power()
            measured = await prepared.figures()
    return {"prepare_s": (launched - began) / SECOND, "boot_s": (done - launched) / SECOND, **measured}


def run_peers(
    cases: Sequence[tuple[GuestDisk, DeviceSpec, Sequence[Way]]],
    runs: int,
    out: Path,
    *,
    accelerator: str = "tcg",
    report: Report | None = None,
) -> pl.DataFrame:
    """Boot guests from devices in several ways, each so often; what is in the file already is kept.

    Ways take turns, so that what slows the machine down for a while meets all of them. The local disk does
    not depend on the device, and takes its turn with each all the same: the pairs are what counts.

    Parameters
    ----------
    cases : sequence of (GuestDisk, DeviceSpec, sequence of Way)
    runs : int
    out : Path
        A Parquet file of `RUNS_SCHEMA`, written after each boot.

    Returns
    -------
    polars.DataFrame
        Of `RUNS_SCHEMA`. A boot that failed has an `error` and no times, and is tried again by the next call.
    """
    report = report or Report()
    rows = _kept(out)
    done = set(rows.select(_KEY).iter_rows())
    todo = [each for each in _order(cases, runs) if _key(each) not in done]
    for number, (run_number, guest, device, way) in enumerate(todo, 1):
        report.now(f"{number} of {len(todo)}: {guest.name}, {device.name}, {way.name}")
        row: dict[str, Any] = dict(zip(_KEY, (guest.name, device.name, way.name, run_number), strict=True))
        try:
            with raised_priority():
                row |= _booted(guest, way, device, accelerator, report)
            report.say(f"{guest.name}, {device.name}, {way.name}: {row['boot_s']:.1f} s")
        except LabError as error:
            row["error"] = str(error)
            report.say(f"{guest.name}, {device.name}, {way.name}: {error}")
        rows = pl.concat([rows, pl.DataFrame([row], schema=RUNS_SCHEMA)])
        write_parquet_atomically(rows, out)
    return rows


def _booted(
    guest: GuestDisk, way: Way, device: DeviceSpec, accelerator: str, report: Report
) -> dict[str, Any]:
    """Boot once; if the line that tells the end was lost on the console, once more."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return asyncio.run(boot_once(guest, way, device, accelerator=accelerator, report=report))
        except UnexpectedLineError as error:
            if attempt == _ATTEMPTS:
                raise
            report.say(f"{guest.name}, {device.name}, {way.name}: {error}; once more")
    raise AssertionError("every attempt returns or raises")


Turn = tuple[int, GuestDisk, DeviceSpec, Way]


def _order(cases: Sequence[tuple[GuestDisk, DeviceSpec, Sequence[Way]]], runs: int) -> Iterator[Turn]:
    for run_number, (guest, device, its_ways) in itertools.product(range(1, runs + 1), cases):
        # each turn begins with another way: the first one finds colder caches of the machine's own
        first = (run_number - 1) % len(its_ways)
        yield from ((run_number, guest, device, way) for way in [*its_ways[first:], *its_ways[:first]])


def _key(turn: Turn) -> tuple[str, str, str, int]:
    run_number, guest, device, way = turn
    return guest.name, device.name, way.name, run_number


def _kept(out: Path) -> pl.DataFrame:
    if not out.exists():
        return RUNS_SCHEMA.to_frame()
    rows = read_parquet(out, "boots of peers", LabError)  # type: ignore[arg-type]
    return rows.filter(pl.col("error").is_null())


def summary_of_runs(rows: pl.DataFrame) -> pl.DataFrame:
    """Return medians by guest, device and way, with the boot as a multiple of the local one of the same turn.

    `ratio` is the median over the turns, `ratio_low` and `ratio_high` the quartiles; `stall_s` is the median
    of the difference to the local boot of the same turn.
    """
    good = rows.filter(pl.col("error").is_null())
    turn = ["guest", "device", "run"]
    local = good.filter(way=LOCAL).select(*turn, local_s="boot_s")
    paired = good.join(local, on=turn, how="left").with_columns(
        ratio=pl.col("boot_s") / pl.col("local_s"), stall=pl.col("boot_s") - pl.col("local_s")
    )
    return paired.group_by("guest", "device", "way", maintain_order=True).agg(
        runs=pl.len(),
        prepare_s=pl.col("prepare_s").median(),
        boot_s=pl.col("boot_s").median(),
        ratio=pl.col("ratio").median(),
        ratio_low=pl.col("ratio").quantile(0.25, "linear"),
        ratio_high=pl.col("ratio").quantile(0.75, "linear"),
        stall_s=pl.col("stall").median(),
        media_mb=pl.col("media_bytes").median() / 1e6,
        media_fetches=pl.col("media_fetches").median(),
    )
