"""Commands ``vmrestorekit lab peers`` and ``fidelity``: the same guest in several ways, and in the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmrestorekit.cli.shared import CorpusOption, JsonOption, print_table, staging_device_of

if TYPE_CHECKING:
    import polars as pl

    from vmrestorekit.lab.peers.ways import DeviceSpec
    from vmrestorekit.plan import RestorePlan
    from vmrestorekit.traces.corpus import Boot, Corpus

DEVICES = ("0 ms", "5 ms", "20 ms", "50 ms", "25 MB/s")
PREDICTORS = ("learned", "last_boot", "first_access_by_path", "none")


def lab_peers(
    images: Annotated[list[Path], typer.Argument(help="Images whose boots 'lab record' recorded.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The runs, as Parquet; goes on after a cut.")
    ],
    boot: Annotated[str, typer.Option(help="Boot from the disk as it was before this boot.")] = "boot-3",
    device: Annotated[
        list[str] | None, typer.Option(help="Such as '20 ms' a read, or '25 MB/s'; may be repeated.")
    ] = None,
    predictor: Annotated[
        list[str] | None, typer.Option(help="Whose plans ours stages; may be repeated.")
    ] = None,
    way: Annotated[list[str] | None, typer.Option(help="Only ways whose name begins so.")] = None,
    runs: Annotated[int, typer.Option("--runs", "-n", min=1, help="So many turns.")] = 3,
    head_start: Annotated[float, typer.Option(min=0, help="Seconds of staging before the launch.")] = 4.0,
    accelerator: Annotated[str, typer.Option(help="kvm or tcg.")] = "tcg",
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Boot guests locally, over plain NBD, with nbdkit's and QEMU's caches, and with our plans, in turns."""
    from vmrestorekit.lab.guests.guest import describe_image
    from vmrestorekit.lab.peers.runs import GuestDisk, run_peers, summary_of_runs
    from vmrestorekit.lab.peers.ways import ways
    from vmrestorekit.lab.progress import live_report
    from vmrestorekit.lab.recording.record import states_before
    from vmrestorekit.traces.corpus import load_corpus

    recorded = load_corpus(corpus)
    devices = [device_named(name) for name in device or DEVICES]
    guests = []
    for image in images:
        about = describe_image(image)
        chosen = recorded[str(about["name"])].boot(boot)
        number = int(re.sub(r"\D", "", boot) or 1)
        disk = GuestDisk(chosen.vm, states_before(image, number)[-1], bool(about.get("graphics")))
        for spec in devices:
            plans = {
                name: _plan(name, chosen, recorded, spec, head_start) for name in predictor or PREDICTORS
            }
            chosen_ways = [each for each in ways(plans) if not way or each.name.startswith(tuple(way))]
            guests.append((disk, spec, chosen_ways))
    with live_report() as report:
        rows = run_peers(guests, runs, output, accelerator=accelerator, report=report)
    print_table(_rounded(summary_of_runs(rows)), as_json)
    raise typer.Exit(1 if rows["error"].count() else 0)


def lab_fidelity(
    runs: Annotated[Path, typer.Argument(help="What 'lab peers' wrote.")],
    boot: Annotated[str, typer.Option(help="The boot whose disk they booted from.")] = "boot-3",
    head_start: Annotated[float, typer.Option(min=0, help="As given to 'lab peers'.")] = 4.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the table as Parquet.")] = None,
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate what 'lab peers' measured, from the same plans and another boot's recording, side by side."""
    from vmrestorekit.lab.peers.fidelity import compare_with_model
    from vmrestorekit.lab.peers.runs import RUNS_SCHEMA
    from vmrestorekit.traces.corpus import load_corpus
    from vmrestorekit.traces.schema import read_parquet, write_parquet_atomically

    rows = read_parquet(runs, "boots of peers", ValueError)
    if rows.schema != RUNS_SCHEMA:
        raise ValueError(f"{runs}: expected the runs of 'lab peers', got another table")
    recorded = load_corpus(corpus)
    table = compare_with_model(
        rows,
        {name: recorded[name].boot(boot) for name in rows["guest"].unique(maintain_order=True)},
        {name: device_named(name) for name in rows["device"].unique()},
        lambda name, of, device: _plan(name, of, recorded, device, head_start),
    )
    if output:
        write_parquet_atomically(table, output)
    print_table(_rounded(table), as_json)


def _rounded(table: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
        for row in table.iter_rows(named=True)
    ]


def device_named(text: str) -> DeviceSpec:
    """Return the device that is meant by ``"20 ms"`` or ``"25 MB/s"``.

    Raises
    ------
    ValueError
        If it is neither.
    """
    from vmrestorekit.lab.peers.ways import DeviceSpec

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|MB/s)\s*", text)
    if not match:
        raise ValueError(f"--device: expected such as '20 ms' or '25 MB/s', got {text!r}")
    value = float(match[1])
    return DeviceSpec(read_ms=value) if match[2] == "ms" else DeviceSpec(bandwidth_mb=value)


def _plan(name: str, boot: Boot, corpus: Corpus, device: DeviceSpec, head_start_s: float) -> RestorePlan:
    from vmrestorekit.cli.kept_models import kept_predictor
    from vmrestorekit.plan import LaunchRule
    from vmrestorekit.predict.planning import make_plan

    predictor = kept_predictor(name, boot, corpus)
    head_start_ns = round(head_start_s * 1e9)
    staging = staging_device_of(device.hardware(), head_start_ns) if predictor.calibrated else None
    return make_plan(
        predictor, boot, mode="live_mount", device=staging, launch=LaunchRule(head_start_ns=head_start_ns)
    )
