"""What is exported comes back as far as the format holds it, and the programs it is for take it."""

from __future__ import annotations

import shutil
import subprocess
import time

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lacking import missing
from tiny_boots import TINY_DISK_BYTES, tiny_trace

from vmrestorekit.traces.foreign import EXPORTS, ForeignFormatError, export_trace, import_trace
from vmrestorekit.traces.foreign.cache_traces import export_oracle_general
from vmrestorekit.traces.foreign.fio import export_fio
from vmrestorekit.traces.schema import TRACE_SCHEMA, ReadTrace, TraceMetadata, validate_trace

DISKS = (1 << 20, 1 << 33)


@st.composite
def traces(draw: st.DrawFn, disks: tuple[int, ...] = DISKS) -> ReadTrace:
    rows, now = [], draw(st.integers(0, 10**12))
    for _ in range(draw(st.integers(1, 12))):
        now += draw(st.sampled_from([0, 1, 999, 1000, 10**6, 1_500_000_000, 10**12]))
        disk, op = (
            draw(st.integers(0, len(disks) - 1)),
            draw(st.sampled_from(["read", "write", "discard", "flush"])),
        )
        sectors = disks[disk] // 512
        first = draw(st.integers(0, sectors - 1))
        count = draw(st.integers(1, min(sectors - first, 2**23 - 1)))
        place = (0, 0) if op == "flush" else (first * 512, count * 512)
        rows.append((now, now + draw(st.integers(0, 10**10)), disk, op, *place))
    metadata = TraceMetadata("SYNTHETIC", "boot-1", disks, {}, "SYNTHETIC", "none", {})
    trace = ReadTrace(pl.DataFrame(rows, schema=TRACE_SCHEMA, orient="row"), metadata)
    validate_trace(trace.frame, metadata)
    return trace


def round_trip(trace: ReadTrace, name: str, folder) -> ReadTrace:
    export_trace(trace, name, folder / "exported")
    return import_trace(name.removesuffix("-2"), folder / "exported")


in_a_folder = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@in_a_folder
@given(trace=traces())
def test_csv_holds_every_row(tmp_path, trace):
    assert round_trip(trace, "csv", tmp_path).frame.equals(trace.frame)


@pytest.mark.parametrize(("name", "tick"), [("fio", 1000), ("fio-2", 10**6)])
@in_a_folder
@given(trace=traces())
def test_fio_holds_all_but_completions(tmp_path, name, tick, trace):
    issued = pl.col("issued_ns") // tick * tick
    expected = trace.frame.with_columns(issued_ns=issued, completed_ns=issued)
    again = round_trip(trace, name, tmp_path)
    assert again.frame.equals(expected)
    assert "completion not recorded" in again.metadata.recorder


@in_a_folder
@given(trace=traces(disks=DISKS[1:]))
def test_oracle_general_holds_seconds_places_and_lengths(tmp_path, trace):
    kept = trace.frame.filter(pl.col("op").is_in(["read", "write"]))
    if kept.is_empty():
        export_trace(trace, "oracle-general", tmp_path / "exported")
        assert (tmp_path / "exported").read_bytes() == b""
        return
    again = round_trip(trace, "oracle-general", tmp_path).frame
    assert again.select("offset", "length").equals(kept.select("offset", "length"))
    seconds = kept["issued_ns"] // 10**9
    assert (again["issued_ns"] // 10**9).to_list() == (seconds - seconds[0]).to_list()
    assert set(again["op"]) == {"read"}


def test_libcachesim_reads_the_exported_oracle_general(tmp_path):
    library = pytest.importorskip("libcachesim", reason="libcachesim has no wheel for this system")
    trace = tiny_trace()
    export_trace(trace, "oracle-general", tmp_path / "tiny.oracleGeneral.bin")
    parameters = library.ReaderInitParam(ignore_obj_size=False)
    reader = library.TraceReader(
        str(tmp_path / "tiny.oracleGeneral.bin"), library.TraceType.ORACLE_GENERAL_TRACE, parameters
    )
    seen = [
        (request.clock_time, request.obj_id, request.obj_size, request.next_access_vtime)
        for request in reader
    ]
    rows = trace.frame.filter(pl.col("op").is_in(["read", "write"])).rows()
    places = [row[4] for row in rows]
    never = 2**63 - 1  # what libCacheSim makes of -1
    following = [
        next((later for later in range(at + 1, len(places)) if places[later] == place), never)
        for at, place in enumerate(places)
    ]
    expected = [
        (row[0] // 10**9, row[4] // 512, row[5], later) for row, later in zip(rows, following, strict=True)
    ]
    assert any(later != never for later in following)
    assert seen == expected


def fio(*words: object) -> str:
    if shutil.which("fio") is None:
        missing("fio is not installed: apt-get install fio")
    command = ["fio", "--name=boot", "--ioengine=sync", "--output-format=normal", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(("version", "stretch"), [(2, 5), (3, 1)])
def test_fio_carries_out_the_exported_iolog(tmp_path, version, stretch):
    trace = tiny_trace()
    disk = tmp_path / "disk"
    disk.write_bytes(b"\x55" * TINY_DISK_BYTES)
    # version 2 counts from when fio started, and that takes some 0.3 s
    times = pl.col("issued_ns", "completed_ns") * stretch
    frame = trace.frame.filter(pl.col("op") != "discard").with_columns(times)
    export_fio(ReadTrace(frame, trace.metadata), tmp_path / "boot.log", version=version, targets=[str(disk)])
    start = time.monotonic()
    said = fio(f"--read_iolog={tmp_path / 'boot.log'}")
    elapsed_ns = (time.monotonic() - start) * 1e9
    counts = dict(frame.group_by("op").len().iter_rows())
    totals = said.split("issued rwts: total=")[1].split(" ")[0].split(",")
    assert totals[:2] == [str(counts["read"]), str(counts["write"])]
    assert "bad" not in said
    # the recorded pauses are kept
    job_ns = int(said.split("run=")[1].split("-")[0]) * 1e6
    assert (job_ns if version == 3 else elapsed_ns) >= frame["issued_ns"].max() * 0.95
    changed = {
        at for at in range(0, TINY_DISK_BYTES, 4096) if disk.read_bytes()[at : at + 4096] != b"\x55" * 4096
    }
    written = trace.frame.filter(pl.col("op") == "write")
    ranges = [
        range(offset, offset + length, 4096) for offset, length in written.select("offset", "length").rows()
    ]
    assert changed == {at for blocks in ranges for at in blocks}


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    trace = tiny_trace()
    two = ReadTrace(
        trace.frame.with_columns(disk=(pl.int_range(pl.len()) % 2).cast(pl.UInt8)), trace.metadata
    )
    out = tmp_path / "out"
    with pytest.raises(ForeignFormatError, match="expected requests of one disk"):
        export_oracle_general(two, out)
    with pytest.raises(ForeignFormatError, match="row 1: expected an offset in steps of 1048576 bytes"):
        export_oracle_general(trace, out, unit_bytes=1 << 20)
    with pytest.raises(ForeignFormatError, match="expected version 2 or 3, got 1"):
        export_fio(trace, out, version=1)
    with pytest.raises(ForeignFormatError, match="expected 1 names without spaces"):
        export_fio(trace, out, targets=["my disk"])
    with pytest.raises(ForeignFormatError, match="expected one of the formats oracle-general, fio"):
        export_trace(trace, "vhs", out)
    large = trace.frame.with_columns(length=pl.when(pl.col("op") == "flush").then(0).otherwise(2**32))
    with pytest.raises(ForeignFormatError, match="SYNTHETIC boot-1: row 0: expected a length below"):
        export_fio(ReadTrace(large, trace.metadata), out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_file_is_whole_or_not_there(tmp_path, name):
    with pytest.raises(OSError, match="nowhere"):
        export_trace(tiny_trace(), name, tmp_path / "nowhere" / "file")
    export_trace(tiny_trace(), name, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
