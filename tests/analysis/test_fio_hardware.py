"""A backup device fitted to fio's output."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lacking import missing

from vmrestorekit.analysis.fio_hardware import RandomReads, fit_device, hardware_from_fio
from vmrestorekit.restore.hardware import BackupDevice, HardwareError

SECOND = 1_000_000_000
SIZES = (4096, 65536, 1 << 20)


def reads_of(device: BackupDevice, size: int, depth: int) -> RandomReads:
    """What fio would measure of a device as the model has it."""
    service = device.positioning_ns + size * SECOND / device.bandwidth
    per_second = min(depth, device.channels) * SECOND / service
    return RandomReads(size, depth, depth * SECOND / per_second, per_second)


def output_of(jobs: list[RandomReads]) -> str:
    told = [
        {
            "job options": {"rw": "randread", "bs": str(job.bytes), "iodepth": str(job.depth)},
            "read": {"iops": job.per_second, "lat_ns": {"mean": job.latency_ns}},
        }
        for job in jobs
    ]
    return "fio: a note\n" + json.dumps({"fio version": "fio-3.33", "jobs": told})


@given(st.integers(1, 32), st.integers(0, 50_000_000), st.integers(1_000_000, 2_000_000_000))
def test_the_device_that_was_measured_is_found(channels, positioning_ns, bandwidth):
    device = BackupDevice(channels, positioning_ns, bandwidth)
    jobs = [reads_of(device, size, depth) for size in SIZES for depth in (1, 64)]
    found = fit_device(jobs)
    assert found.channels == channels
    assert found.positioning_ns == pytest.approx(positioning_ns, abs=2 + positioning_ns * 1e-5)
    assert found.bandwidth == pytest.approx(bandwidth, rel=1e-3)


def test_hardware_from_a_file(tmp_path):
    device = BackupDevice(8, 20_000_000, 100_000_000)
    path = tmp_path / "nas.json"
    path.write_text(output_of([reads_of(device, size, depth) for size in SIZES for depth in (1, 16)]))
    found = hardware_from_fio(path)
    assert (found.name, found.backup_device.channels) == ("nas", 8)
    assert "nas.json" in found.source
    assert hardware_from_fio(path, "filer").name == "filer"


def test_what_fio_itself_writes(tmp_path):
    if not shutil.which("fio"):
        missing("no fio")
    job = ["--rw=randread", f"--filename={tmp_path}/data", "--size=8m", "--runtime=0.3", "--time_based"]
    jobs = [word for size in ("4k", "256k") for word in (f"--name=s{size}", f"--bs={size}", "--iodepth=1")]
    output = tmp_path / "measured.json"
    command = ["fio", *job, "--ioengine=psync", "--output-format=json", f"--output={output}", *jobs]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    device = hardware_from_fio(output).backup_device
    assert device.channels >= 1
    assert device.bandwidth > 1_000_000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("no JSON", "expected fio's output with --output-format=json"),
        ('{"jobs": [{}]}', "expected fio's output with --output-format=json"),
        ('{"jobs": []}', "at least two sizes, got [] bytes"),
        (output_of([RandomReads(4096, 1, 1e6, 1e3)]), "at least two sizes, got [4096] bytes"),
        (
            output_of([RandomReads(4096, 1, 2e6, 5e2), RandomReads(65536, 1, 1e6, 1e3)]),
            "expected larger reads to take longer",
        ),
    ],
)
def test_what_is_no_such_output(tmp_path, text, sentence):
    path = tmp_path / "measured.json"
    path.write_text(text)
    with pytest.raises(HardwareError, match=re.escape(sentence)) as raised:
        hardware_from_fio(path)
    assert "measured.json" in str(raised.value)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected fio's output"):
        hardware_from_fio(tmp_path / "none.json")
