"""Commands that simulate: ``vmrestorekit simulate`` and ``compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmrestorekit.cli.shared import CorpusOption, JsonOption, nanoseconds_of, print_table, staging_device_of

if TYPE_CHECKING:
    from vmrestorekit.restore.timeline import Timeline


VmOption = Annotated[str, typer.Option("--vm", help="Name of the recorded virtual machine.")]
BootOption = Annotated[str | None, typer.Option("--boot", help="Which of its boots; default: the last.")]
MediaOption = Annotated[str, typer.Option(help="disk_library, object_storage, tape or flash.")]
PredictorOption = Annotated[
    str,
    typer.Option(
        help="learned or content (both from the other machines), last_boot (its own boot before), or none."
    ),
]
HeadStartOption = Annotated[float, typer.Option(help="Seconds of pre-staging before the launch.")]
RelocationDelayOption = Annotated[float, typer.Option(help="Seconds from launch to relocation.")]
CacheOption = Annotated[int, typer.Option(help="Size of the read cache in MiB.")]
ExpiryOption = Annotated[float | None, typer.Option(help="Seconds until a live mount expires.")]


def simulate_command(
    vm: VmOption,
    mode: Annotated[
        str, typer.Option(help="full_restore, instant_restore or live_mount.")
    ] = "instant_restore",
    boot: BootOption = None,
    media: MediaOption = "object_storage",
    predictor: PredictorOption = "learned",
    head_start: HeadStartOption = 4.0,
    relocation_delay: RelocationDelayOption = 30.0,
    cache_mib: CacheOption = 256,
    expiry: ExpiryOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the timeline's events as Parquet.")
    ] = None,
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate the restore of a recorded boot and print its figures."""
    from vmrestorekit.traces.schema import write_parquet_atomically

    runs = _simulated(
        vm, boot, [mode], media, predictor, head_start, relocation_delay, cache_mib, expiry, corpus
    )
    if output:
        write_parquet_atomically(runs[mode].events, output)
    _print_runs(runs, as_json)


def compare_command(
    vm: VmOption,
    boot: BootOption = None,
    media: MediaOption = "object_storage",
    predictor: PredictorOption = "learned",
    head_start: HeadStartOption = 4.0,
    relocation_delay: RelocationDelayOption = 30.0,
    cache_mib: CacheOption = 256,
    expiry: ExpiryOption = None,
    corpus: CorpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate full restore, instant restore and live mount of a recorded boot, side by side."""
    from vmrestorekit.plan import MODES

    _print_runs(
        _simulated(
            vm, boot, MODES, media, predictor, head_start, relocation_delay, cache_mib, expiry, corpus
        ),
        as_json,
    )


def _simulated(
    vm: str,
    boot: str | None,
    modes: Sequence[str],
    media: str,
    predictor: str,
    head_start: float,
    relocation_delay: float,
    cache_mib: int,
    expiry: float | None,
    corpus: Path | None,
) -> dict[str, Timeline]:
    from vmrestorekit.cli.kept_models import kept_predictor
    from vmrestorekit.plan import LaunchRule, RelocationStart
    from vmrestorekit.predict.planning import make_plan
    from vmrestorekit.restore.hardware import resolve_hardware
    from vmrestorekit.restore.simulate import simulate
    from vmrestorekit.traces.corpus import load_corpus

    hardware = resolve_hardware(media)
    recorded = load_corpus(corpus)
    machine = recorded[vm]
    chosen = machine.boot(boot) if boot else machine.boots[-1]
    fitted = kept_predictor(predictor, chosen, recorded)
    head_start_ns = nanoseconds_of("--head-start", head_start)
    plan = make_plan(
        fitted,
        chosen,
        # other predictors have an order of their own
        device=staging_device_of(hardware, head_start_ns) if fitted.calibrated else None,
        launch=LaunchRule(head_start_ns=head_start_ns),
        relocation_start=RelocationStart(delay_ns=nanoseconds_of("--relocation-delay", relocation_delay)),
        cache_bytes=cache_mib << 20,
    )
    expiry_ns = None if expiry is None else nanoseconds_of("--expiry", expiry)
    if expiry_ns is not None and "live_mount" not in modes:
        raise ValueError(f"--expiry: only a live mount expires, but the mode is {modes[0]}")
    return {
        mode: simulate(
            chosen, plan.with_mode(mode, expiry_ns=expiry_ns if mode == "live_mount" else None), hardware
        )
        for mode in modes
    }


def _print_runs(runs: dict[str, Timeline], as_json: bool) -> None:
    from vmrestorekit.restore.summary import tabulate

    summaries = {mode: timeline.summary() for mode, timeline in runs.items()}
    if as_json:
        print_table([{"mode": mode, **summary} for mode, summary in summaries.items()], as_json)
    else:
        print_table(tabulate(summaries), as_json)
