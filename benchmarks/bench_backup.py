"""The backup store on the disk of a real guest against borg, restic, zstd and cp; memory of a large disk."""

from __future__ import annotations

import contextlib
import filecmp
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runner import Row, compare, median_seconds

from vmrestorekit.backup import BackupStore, export_copy, open_copy
from vmrestorekit.backup.images import open_image

IMAGE = "VMRESTOREKIT_GUEST_IMAGE"
LEVEL = 3
READ_BYTES, READS, REPETITIONS, SEED = 65536, 300, 5, 20240209
LARGE_GIB, PLACES, PLACE_BYTES = 100, 8192, 128 << 10
LIMIT_GB = 0.5
MOUNT_SECONDS = 60
PEERS = ("borg", "restic", "zstd", "fusermount")
PACKAGES = "borgbackup restic zstd fuse3 python3-llfuse python3-pyfuse3"
MISSING = f"benchmark: expected the peers {{}}; apt-get install {PACKAGES}"
OURS = [sys.executable, "-c", "from vmrestorekit.cli import main; main()", "backup"]

# SYNTHETIC: random bytes at random places of a disk of zeros; the two copies and the export of one process
LARGE_DISK = """
import random, re, sys
from pathlib import Path
from vmrestorekit.backup import BackupStore, CopySettings, create_copy, export_copy
folder, gib, places, place_bytes, level, seed = Path(sys.argv[1]), *map(int, sys.argv[2:])
chance = random.Random(seed)
with open(folder / "disk.img", "wb") as disk:
    disk.truncate(gib << 30)
    for sector in chance.sample(range((gib << 30) // 4096 - place_bytes // 4096), places):
        disk.seek(sector * 4096)
        disk.write(chance.randbytes(place_bytes))
with BackupStore.create(folder / "store") as store:
    for _ in range(2):
        create_copy(store, "large", [folder / "disk.img"], settings=CopySettings(zstd_level=level))
    export_copy(store, 2, folder / "again.img")
# not what getrusage tells: that begins with the memory of the process that started this one
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e9)
"""


def bench_backup() -> list[Row]:
    """Create twice, random reads, export, memory; without a guest's image the memory alone."""
    rows = []
    image = os.environ.get(IMAGE)
    if image:
        rows += against_peers(Path(image).resolve())
    else:
        print(
            f"benchmark: backup needs the disk of a guest: sudo vmrestorekit lab build specs/trixie-web.toml "
            f"-o web.img, then set {IMAGE}=web.img; going on without",
            file=sys.stderr,
        )
    return [*rows, large_disk()]


def against_peers(image: Path) -> list[Row]:
    """All rows that need the image of a guest and the peers."""
    missing = [peer for peer in PEERS if shutil.which(peer) is None]
    if missing:
        raise OSError(MISSING.format(", ".join(missing)))
    with tempfile.TemporaryDirectory() as directory:
        bench = _Bench(image, Path(directory))
        return [*bench.creates(), *bench.reads(), *bench.exports()]


class _Bench:
    """The image, and a folder with a repository of each peer."""

    def __init__(self, image: Path, folder: Path) -> None:
        with open_image(image) as disk:
            self.extents = list(disk.extents())
        self.image, self.folder = image, folder
        self.megabytes = sum(end - start for start, end in self.extents) / 1e6
        self.environment = os.environ | {
            "BORG_BASE_DIR": str(folder / "borg-base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(folder / "restic-cache"),
        }

    def run(self, *command: object) -> None:
        """Run a program; what it says counts only if it fails."""
        done = subprocess.run(
            [str(each) for each in command], env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise OSError(f"benchmark: {command[0]} failed: {done.stderr.strip()}")

    def creates(self) -> list[Row]:
        """Whole programs, start included, that write a copy durably; then the same data a second time."""
        data = self.folder / "data-alone"  # plain zstd would read the holes too
        with open(self.image, "rb") as disk, open(data, "wb") as file:
            for start, end in self.extents:
                disk.seek(start)
                file.write(disk.read(end - start))
        borg = ("borg", "create", "--compression", f"zstd,{LEVEL}", "--files-cache", "disabled")
        fixed = (*borg, "--sparse", "--chunker-params", "fixed,4194304")
        packed = self.folder / "packed.zst"
        commands: dict[str, Callable[[Path, str], tuple[object, ...]]] = {
            "ours": lambda at, _: (*OURS, "create", self.image, at, "--vm", "web", "--zstd", LEVEL),
            "borg": lambda at, name: (*borg, f"{at}::{name}", self.image),
            "borg, fixed blocks of 4 MiB": lambda at, name: (*fixed, f"{at}::{name}", self.image),
            "restic": lambda at, _: ("restic", "-r", at, "backup", "--force", self.image),
        }

        def action(peer: str, name: str) -> Callable[[], Callable[[], None]]:
            def prepare() -> Callable[[], None]:
                at = self.folder / peer.replace(" ", "-")
                if name == "first":
                    shutil.rmtree(at, ignore_errors=True)
                    self.empty(peer, at)
                os.sync()
                return lambda: self.run(*commands[peer](at, name))

            return prepare

        def zstd() -> Callable[[], None]:
            os.sync()

            def pack() -> None:
                self.run("zstd", "-q", "-f", f"-{LEVEL}", "-T0", data, "-o", packed)
                _flush(packed)

            return pack

        actions = {f"{peer}, {name}": action(peer, name) for peer in commands for name in ("first", "second")}
        _into_memory(self.image, data)
        seconds = median_seconds({**actions, "zstd": zstd}, REPETITIONS)
        data.unlink(), packed.unlink()
        speed = {name: self.megabytes / taken for name, taken in seconds.items()}
        peers = [peer for peer in commands if peer != "ours"]
        return [
            *(_row(f"create, zstd {LEVEL}", peer, speed, ", first", ">= 1") for peer in peers),
            compare(
                f"create, zstd {LEVEL}, MB/s: zstd -{LEVEL} -T0, data without holes",
                speed["ours, first"],
                speed["zstd"],
                ">= 0.5",
            ),
            *(_row("create again, all known", peer, speed, ", second", ">= 1") for peer in peers),
        ]

    def empty(self, peer: str, at: Path) -> None:
        """Make an empty repository; ours makes its own."""
        if peer.startswith("borg"):
            self.run("borg", "init", "--encryption", "none", at)
        elif peer == "restic":
            self.run("restic", "-r", at, "init")

    def reads(self) -> list[Row]:
        """Blocks anywhere in the data, each once; the peers' from the file that they mount."""
        blocks = [range(start // READ_BYTES, end // READ_BYTES) for start, end in self.extents]
        numbers = sorted({number for each in blocks for number in each})
        chosen = random.Random(SEED).sample(numbers, min(READS * REPETITIONS, len(numbers)))
        count = len(chosen) // REPETITIONS
        found: dict[str, list[bytes | memoryview]] = {}

        def action(name: str, read: Callable[[int], bytes | memoryview]) -> Callable[[], Callable[[], None]]:
            rounds = iter(range(REPETITIONS))

            def prepare() -> Callable[[], None]:
                at = next(rounds) * count
                offsets = [block * READ_BYTES for block in chosen[at : at + count]]

                def run() -> None:
                    found[name] = [read(offset) for offset in offsets]

                return run

            return prepare

        with contextlib.ExitStack() as stack:
            store = stack.enter_context(BackupStore(self.folder / "ours"))
            ours = open_copy(store, store.copies()[0])[0]
            stack.callback(ours.close)
            actions = {"ours": action("ours", lambda offset: ours.read(offset, READ_BYTES))}
            failures = []
            for peer, (command, file) in self.mounts().items():
                try:
                    descriptor = stack.enter_context(_mounted(peer, command, file, self))
                except OSError as error:
                    failures.append(str(error))
                    continue
                actions[peer] = action(peer, lambda offset, d=descriptor: os.pread(d, READ_BYTES, offset))
            if len(actions) == 1:
                raise OSError(f"{MISSING.format('borg mount or restic mount')}: {'; '.join(failures)}")
            image = stack.enter_context(open_image(self.image))
            actions["image"] = action("image", lambda offset: image.read(offset, READ_BYTES))
            seconds = median_seconds(actions, REPETITIONS)
        if any(data != found["image"] for data in found.values()):
            raise AssertionError("expected the same bytes from all")
        rate = {name: count / taken for name, taken in seconds.items()}
        best = max((name for name in rate if name not in ("ours", "image")), key=lambda name: rate[name])
        return [
            compare(
                f"random reads of 64 KiB, 1/s: {best} mount, the faster", rate["ours"], rate[best], ">= 10"
            )
        ]

    def mounts(self) -> dict[str, tuple[list[str], str]]:
        """Return how each peer mounts its repository, and where the image is in there."""
        path = str(self.image).lstrip("/")
        return {
            "borg": (["borg", "mount", "--foreground", f"{self.folder / 'borg'}::first"], path),
            "restic": (["restic", "-r", str(self.folder / "restic"), "mount"], f"snapshots/latest/{path}"),
        }

    def exports(self) -> list[Row]:
        """The image written out and flushed to disk; all that is read is in memory before."""
        out = {name: self.folder / f"{name}.img" for name in ("ours", "cp")}

        def copy() -> None:
            self.run("cp", "--sparse=always", self.image, out["cp"])
            _flush(out["cp"])

        def prepared(name: str, timed: Callable[[], Any]) -> Callable[[], Callable[[], Any]]:
            def prepare() -> Callable[[], Any]:
                out[name].unlink(missing_ok=True)
                os.sync()
                return timed

            return prepare

        with BackupStore(self.folder / "ours") as store:
            _into_memory(self.image, *store.path.glob("chunks/*/*"))
            seconds = median_seconds(
                {
                    "ours": prepared("ours", lambda: export_copy(store, 1, out["ours"])),
                    "cp": prepared("cp", copy),
                },
                REPETITIONS,
            )
        if not filecmp.cmp(self.image, out["ours"], shallow=False):
            raise AssertionError("expected the image back as it was")
        speed = {name: self.megabytes / taken for name, taken in seconds.items()}
        return [compare("export, MB/s: cp --sparse=always", speed["ours"], speed["cp"], ">= 0.5")]


def large_disk() -> Row:
    """Peak memory of one process that copies a large, sparse disk twice and exports it."""
    with tempfile.TemporaryDirectory() as directory:
        figures = (directory, LARGE_GIB, PLACES, PLACE_BYTES, LEVEL, SEED)
        program = [sys.executable, "-c", LARGE_DISK, *map(str, figures)]
        run = subprocess.run(program, stdout=subprocess.PIPE, check=True, text=True)
    what = f"two copies and an export of a sparse disk of {LARGE_GIB} GiB, peak memory in GB"
    return compare(f"{what}: the limit", float(run.stdout), LIMIT_GB, "<= 1")


@contextlib.contextmanager
def _mounted(peer: str, command: list[str], file: str, bench: _Bench) -> Iterator[int]:
    """Mount a peer's repository and give its image, open; `OSError` if that does not succeed."""
    folder = bench.folder / f"{peer}-mounted"
    folder.mkdir()
    log = bench.folder / f"{peer}-mount.log"
    with open(log, "wb") as output:
        mount = subprocess.Popen(
            [*command, str(folder)],
            env=bench.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        end = time.monotonic() + MOUNT_SECONDS
        while not (folder / file).exists():
            if mount.poll() is not None or time.monotonic() > end:
                raise OSError(f"{peer} mount failed: {log.read_text().strip()}")
            time.sleep(0.1)
        descriptor = os.open(folder / file, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    finally:
        subprocess.run(["fusermount", "-u", folder], capture_output=True)
        mount.terminate()
        try:
            mount.wait(timeout=10)
        except subprocess.TimeoutExpired:  # borg may sleep on, deaf, once its folder is unmounted
            mount.kill()
            mount.wait()


def _row(what: str, peer: str, speed: dict[str, float], ending: str, target: str) -> Row:
    return compare(f"{what}, MB/s: {peer}", speed[f"ours{ending}"], speed[peer + ending], target)


def _into_memory(*files: Path) -> None:
    for path in files:
        with open(path, "rb") as file:
            while file.read(1 << 22):
                pass


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file)
