"""nbdkit's log, taken in front of our recording server, and our own recording agree request for request."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from lab_helpers import MemoryDisk, need, serving, uri

from vmrestorekit.lab.recording.recorder import Recorder
from vmrestorekit.traces.foreign import import_trace

MIB = 1 << 20
SIZE = 16 * MIB


def commands() -> list[str]:
    numbers, words = random.Random(11), []
    kinds = ["read", "read", "write", "write -f", "write -z", "write -z -u", "discard", "flush", "aio_read"]
    for _ in range(150):
        kind = numbers.choice(kinds)
        length = numbers.choice([512, 4096, 5120, 65536, 300 * 512])
        offset = numbers.randrange((SIZE - length) // 512) * 512
        words += ["-c", kind if kind == "flush" else f"{kind} {offset} {length}"]
        words += ["-c", "aio_flush"] if kind == "aio_read" else []
    return words


def test_nbdkit_s_log_and_our_recorder_tell_the_same_requests(tmp_path: Path) -> None:
    need("nbdkit", "qemu-io")
    recorder = Recorder(MemoryDisk(bytes(SIZE)))
    log = tmp_path / "nbdkit.log"
    with serving({"disk": recorder.disks[0]}) as path:
        recorder.start()
        # nbdkit runs the command that follows --run and ends with it; $uri is its own address
        run = 'exec qemu-io -t writeback -f raw -d unmap "$@" "$uri"'
        script = tmp_path / "drive"
        quoted = " ".join(f"'{word}'" for word in commands())
        script.write_text(f'uri="$1"; set -- {quoted}; {run}\n', encoding="utf-8")
        nbdkit = ["nbdkit", "-U", "-", "--filter=log", "nbd", f"uri={uri(path, 'disk')}", f"logfile={log}"]
        command = [*nbdkit, "--run", f'sh {script} "$uri"']
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    ours = recorder.trace("vm", "boot-1", accelerator="none", versions={})
    theirs = import_trace("nbdkit", log)
    columns = ["op", "offset", "length"]
    assert theirs.frame.select(columns).rows() == ours.frame.select(columns).rows()
    assert theirs.frame.height >= 150
    assert set(theirs.frame["op"]) == {"read", "write", "discard", "flush"}
    assert theirs.metadata.disk_bytes == ours.metadata.disk_bytes
    assert "not recorded" not in theirs.metadata.recorder
    # nbdkit stands in front: to it, a request that both saw takes at least as long
    fully_seen = ours.frame["op"] != "flush"
    took = (theirs.frame["completed_ns"] - theirs.frame["issued_ns"]).filter(fully_seen)
    ours_took = (ours.frame["completed_ns"] - ours.frame["issued_ns"]).filter(fully_seen)
    assert ((took + 1000) >= ours_took).all()
