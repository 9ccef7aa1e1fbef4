"""Independent clients read through our server what is in the image, and write what they meant to."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_helpers import need, serving, uri

from vmrestorekit.lab.recording.overlay import Overlay

MIB = 1 << 20
SIZE = 24 * MIB


def ask(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A sparse image: 3 MiB of noise, a hole, 1 MiB of noise at 10 MiB, a hole."""
    path = tmp_path / "image"
    with open(path, "wb") as stream:
        stream.truncate(SIZE)
        stream.write(random.Random(7).randbytes(3 * MIB))
        stream.seek(10 * MIB)
        stream.write(random.Random(8).randbytes(MIB))
    return path


@pytest.fixture
def overlay(image: Path, tmp_path: Path) -> Iterator[Overlay]:
    with Overlay(image, tmp_path / "writes") as disk:
        yield disk


@pytest.mark.parametrize("connections", [1, 4])
def test_nbdcopy_copies_the_image(image: Path, overlay: Overlay, tmp_path: Path, connections: int) -> None:
    need("nbdcopy")
    with serving({"disk": overlay}) as path:
        ask("nbdcopy", f"--connections={connections}", uri(path, "disk"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == image.read_bytes()


def test_nbdcopy_copies_an_image_in(overlay: Overlay, tmp_path: Path) -> None:
    need("nbdcopy")
    other = tmp_path / "other"
    other.write_bytes(bytes(5 * MIB) + random.Random(9).randbytes(2 * MIB) + bytes(SIZE - 7 * MIB))
    with serving({"disk": overlay}) as path:
        ask("nbdcopy", other, uri(path, "disk"))
    overlay.apply(tmp_path / "now")
    assert (tmp_path / "now").read_bytes() == other.read_bytes()


def test_qemu_img_finds_no_difference(image: Path, overlay: Overlay) -> None:
    need("qemu-img")
    with serving({"disk": overlay}) as path:
        assert "Images are identical" in ask(
            "qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri(path, "disk")
        )


def test_nbdinfo_knows_the_export_and_its_holes(overlay: Overlay) -> None:
    need("nbdinfo")
    with serving({"disk": overlay, "other": overlay}) as path:
        listed = json.loads(ask("nbdinfo", "--json", "--list", uri(path, "")))
        holes = json.loads(ask("nbdinfo", "--json", "--map", uri(path, "disk")))
    assert [export["export-name"] for export in listed["exports"]] == ["disk", "other"]
    export = listed["exports"][0]
    assert listed["protocol"] == "newstyle-fixed"
    assert export["export-size"] == SIZE
    assert export["contexts"] == ["base:allocation"]
    assert all(
        export[can] for can in ("can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_df")
    )
    described = [(extent["offset"], extent["length"], extent["type"]) for extent in holes]
    assert described == [
        (0, 3 * MIB, 0),
        (3 * MIB, 7 * MIB, 3),
        (10 * MIB, MIB, 0),
        (11 * MIB, 13 * MIB, 3),
    ]


def test_what_qemu_io_wrote_at_random_is_what_nbdcopy_reads(
    image: Path, overlay: Overlay, tmp_path: Path
) -> None:
    need("qemu-io", "nbdcopy")
    model, numbers, commands = bytearray(image.read_bytes()), random.Random(3), []
    for _ in range(120):
        length = numbers.choice([512, 1024, 4096, 5120, 65536, 300 * 512])
        offset = numbers.randrange((SIZE - length) // 512) * 512
        pattern = numbers.randrange(1, 256)
        kind = numbers.choice(["write", "write", "write -f", "write -z", "write -z -u", "discard"])
        plain = kind in ("write", "write -f")
        commands += ["-c", f"{kind} {f'-P {pattern} ' if plain else ''}{offset} {length}"]
        model[offset : offset + length] = bytes([pattern if plain else 0]) * length
    with serving({"disk": overlay}) as path:
        ask("qemu-io", "-f", "raw", "-d", "unmap", *commands, "-c", "flush", uri(path, "disk"))
        ask("nbdcopy", uri(path, "disk"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == model


def test_what_qemu_io_reads_it_finds_as_written(overlay: Overlay) -> None:
    need("qemu-io")
    with serving({"disk": overlay}) as path:
        checks = ["-c", "write -P 7 1k 3k", "-c", "read -P 7 1k 3k", "-c", "read -P 0 20M 4M"]
        output = ask("qemu-io", "-f", "raw", *checks, uri(path, "disk"))
    assert "Pattern verification failed" not in output
