"""How true the model is: real boots beside simulated ones, from the same plan and another boot's recording.

The simulation is given the plan, the device, and what the machine asked for at a recorded boot from the same
disk; never the real run's own requests, which would be circular. What a host computes in a second differs
from the recording's host, and on a shared machine from hour to hour: the recorded think times are scaled so
that the local boot takes as long as the local boots measured beside the real run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import polars as pl

from vmrestorekit.lab.peers.ways import LOCAL, DeviceSpec
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.recording.machine import BOOT_DONE_MARK
from vmrestorekit.plan import RestorePlan
from vmrestorekit.restore.hardware import Hardware, PrimaryStorage
from vmrestorekit.restore.simulate import simulate
from vmrestorekit.traces.corpus import Boot
from vmrestorekit.traces.schema import ReadTrace

__all__ = ["compare_with_model", "scaled_to"]

SECOND = 1_000_000_000
OURS = "ours: "
_FIGURES = {"hits": "hits", "waits": "waits", "misses": "misses", "media_bytes": "media_bytes"}
_ATTEMPTS = 6


def compare_with_model(
    runs: pl.DataFrame,
    boots: Mapping[str, Boot],
    devices: Mapping[str, DeviceSpec],
    plan_of: Callable[[str, Boot, DeviceSpec], RestorePlan],
) -> pl.DataFrame:
    """Return one row for each real boot through our media agent, with what the model says of it.

    Parameters
    ----------
    runs : polars.DataFrame
        `vmrestorekit.lab.peers.runs.RUNS_SCHEMA`, with local boots in each turn.
    boots : mapping of str to Boot
        Of each guest, a recorded boot from the same disk.
    devices : mapping of str to DeviceSpec
        By name.
    plan_of : callable
        Given the predictor's name, the boot and the device; the plan that was carried out.

    Returns
    -------
    polars.DataFrame
        `guest`, `device`, `way`, `run`; `boot_s`, `stall_s` and figures, as `real_…` and `model_…`;
        `local_s` (median of the guest's local boots), `local_spread_s` (largest minus smallest of them);
        `boot_error` and `stall_error` (model minus real, in seconds), and whether each is `within` the
        tolerance: 5 % of the boot or the spread of the local boots, 15 % of the stall or 0.5 s.

    Raises
    ------
    LabError
        If there are no local boots of a guest to measure against.
    """
    good = runs.filter(pl.col("error").is_null())
    rows = []
    for guest, boot in boots.items():
        local = good.filter(guest=guest, way=LOCAL)["boot_s"]
        if not len(local):
            raise LabError(f"fidelity: expected local boots of {guest} among the runs, found none")
        local_s, spread_s = float(local.median()), float(local.max() - local.min())  # type: ignore[arg-type, operator]
        booting = until_boot_done(boot)
        ours = good.filter(pl.col("guest") == guest, pl.col("way").str.starts_with(OURS))
        for row in ours.iter_rows(named=True):
            device = devices[row["device"]]
            plan = plan_of(row["way"].removeprefix(OURS), boot, device)
            hardware = scaled_to(booting, plan, device.hardware(), local_s)
            model = simulate(booting, plan, hardware, detail="summary").summary()
            boot_s, stall_s = (float(model[name] or 0) / SECOND for name in ("time_to_boot_ns", "stall_ns"))
            real_stall = row["boot_s"] - local_s
            compared = {
                **{name: row[name] for name in ("guest", "device", "way", "run")},
                **{"real_boot_s": row["boot_s"], "model_boot_s": boot_s},
                **{"real_stall_s": real_stall, "model_stall_s": stall_s},
                **{f"real_{name}": row[name] for name in _FIGURES},
                **{f"model_{name}": model[key] for name, key in _FIGURES.items()},
                **{"local_s": local_s, "local_spread_s": spread_s},
            }
            rows.append(compared)
    return (
        pl.DataFrame(rows, infer_schema_length=None)
        .with_columns(
            boot_error=pl.col("model_boot_s") - pl.col("real_boot_s"),
            stall_error=pl.col("model_stall_s") - pl.col("real_stall_s"),
        )
        .with_columns(
            boot_within=pl.col("boot_error").abs()
            <= pl.max_horizontal(0.05 * pl.col("real_boot_s"), pl.col("local_spread_s")),
            stall_within=pl.col("stall_error").abs()
            <= pl.max_horizontal(0.15 * pl.col("real_stall_s").abs(), 0.5),
        )
    )


def until_boot_done(boot: Boot) -> Boot:
    """Return the boot without the requests after its end, when the real machine was switched off.

    Raises
    ------
    LabError
        If the recording has no such mark.
    """
    done = boot.metadata.marks.get(BOOT_DONE_MARK)
    if done is None:
        raise LabError(f"fidelity: expected a recorded end of the boot of {boot.vm}, found none")
    trace = ReadTrace(boot.trace.frame.filter(pl.col("issued_ns") <= done), boot.metadata)
    return Boot.from_parts(trace, boot.manifests, boot.description)


def scaled_to(boot: Boot, plan: RestorePlan, hardware: Hardware, local_s: float) -> Hardware:
    """Return the hardware with the CPU factor at which the model's local boot takes so long.

    The local disk is as quick as the one that the recording was made on: nothing is added to its reads.
    """
    instant = PrimaryStorage(0, 1 << 40)
    hardware = hardware.replace(destination=instant, write_cache=instant)
    factor = 1.0
    for _ in range(_ATTEMPTS):  # think times are all there is to scale, so the first step nearly hits
        scaled = hardware.replace(cpu_factor=factor)
        found = simulate(boot, plan, scaled, detail="summary").summary()["local_boot_ns"]
        assert found is not None  # `until_boot_done` has seen the mark
        ratio = local_s * SECOND / found
        factor *= ratio
        if abs(ratio - 1) < 1e-4:
            break
    return dataclasses.replace(hardware, cpu_factor=factor)
