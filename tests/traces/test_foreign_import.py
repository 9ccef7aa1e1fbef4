"""Each importer on real or labelled bytes (see samples/README.md), and on damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path

import polars as pl
import pytest
from foreign_contract import SAMPLES, ForeignContract

from vmrestorekit.traces.foreign import IMPORTS, ForeignFormatError, import_trace

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def sample(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


class TestNbdkit(ForeignContract):
    format = "nbdkit"
    good = sample("nbdkit.log")
    recorder = "nbdkit log filter"
    requests = [  # noqa: RUF012
        (0, 72000, 0, "write", 0, 8192),
        (72000, 72000, 0, "flush", 0, 0),  # qemu-io opened the disk write-through: each write is durable
        (151000, 158000, 0, "read", 4096, 512),
        (230000, 238000, 0, "write", 8192, 4096),  # zeros, to stay allocated
        (238000, 238000, 0, "flush", 0, 0),
        (372000, 382000, 0, "discard", 16384, 4096),  # zeros, may be trimmed
        (382000, 382000, 0, "flush", 0, 0),
        (450000, 457000, 0, "discard", 32768, 65536),
        (509000, 514000, 0, "flush", 0, 0),
        (572000, 584000, 0, "write", 0, 512),
        (584000, 584000, 0, "flush", 0, 0),
        (750000, 758000, 0, "read", 1048576, 65536),
        (957000, 970000, 0, "read", 2097152, 65536),
        (1067000, 1078000, 0, "flush", 0, 0),
        (16432000, 16466000, 0, "read", 0, 262144),
    ]

    def test_the_disk_s_size_is_told(self, tmp_path):
        assert self.read(tmp_path, self.good).metadata.disk_bytes == (4 << 20,)

    def test_requests_in_flight_at_the_same_time_are_told_apart(self, tmp_path):
        lines = [
            "connection=1 Read id=1 offset=0x0 count=0x200 ...",
            "connection=2 Read id=1 offset=0x200 count=0x200 ...",
            "connection=1 Read id=2 offset=0x400 count=0x200 ...",
            "connection=1 ...Read id=2 return=0",
            "connection=2 ...Read id=1 return=-1 error=EIO",
            "connection=1 ...Read id=1 return=0",
            "connection=1 Read id=3 offset=0x800 count=0x200 ...",
        ]
        log = "".join(f"2026-11-27 06:36:03.00000{second} {line}\n" for second, line in enumerate(lines))
        trace = self.read(tmp_path, log.encode())
        assert trace.frame.select("issued_ns", "completed_ns", "offset").rows() == [
            (0, 5000, 0),
            (2000, 3000, 1024),  # what failed is left out
            (6000, 6000, 2048),
        ]
        assert trace.metadata.recorder.endswith("completion not recorded for 1 of 3 requests")

    def test_a_clock_set_back_is_refused(self, tmp_path):
        log = self.good.replace(b"06:36:03.061377", b"06:36:02.061377")
        with pytest.raises(ForeignFormatError, match="line 8: expected a completion that is not before"):
            self.read(tmp_path, log)

    def test_a_request_that_is_none(self, tmp_path):
        with pytest.raises(
            ForeignFormatError, match=r"line 8: expected a request or its return .* got '2026"
        ):
            self.read(tmp_path, self.good.replace(b"offset=0x1000 ", b"offset=-0x1000 "))


class TestQemuVirtio(ForeignContract):
    format = "qemu"
    good = sample("qemu-virtio.log")
    recorder = "QEMU trace events"
    requests = [  # noqa: RUF012
        (0, 1186000, 0, "read", 0, 512),
        (2404000, 2436000, 0, "read", 4096, 4096),
        (2745000, 2828000, 0, "read", 51200, 8192),
        (3064000, 3091000, 0, "read", 512000, 512),
        (3360000, 18458000, 0, "write", 102400, 2048),
        (18826000, 18886000, 0, "read", 102400, 2048),
        (19144000, 19268000, 0, "read", 2097152, 32768),
    ]

    def test_the_same_run_seen_below_the_device(self, tmp_path):
        below = b"".join(line for line in self.good.splitlines(True) if b"blk_co_p" in line)
        trace = self.read(tmp_path, below)
        assert "not recorded for 8 of 8" in trace.metadata.recorder
        rows = trace.frame.select(pl.col("op").cast(pl.String), "offset", "length").rows()
        assert rows[1:] == [row[3:] for row in self.requests]  # the first is QEMU's own look at the disk

    def test_what_is_not_from_the_trace_is_skipped(self, tmp_path):
        noise = b"qemu-system-x86_64: warning: something\n{}\n4153@1795761817.036889:other_event a 1\n"
        assert self.read(tmp_path, noise + self.good + noise).frame.rows() == self.requests


class TestQemuIo(ForeignContract):
    format = "qemu"
    good = sample("qemu-io.log")
    recorder = "times not recorded; completion not recorded for 6 of 6"
    requests = [  # noqa: RUF012
        (0, 0, 0, "read", 4096, 512),
        (0, 0, 0, "write", 0, 8192),
        (0, 0, 0, "write", 65536, 4096),
        (0, 0, 0, "flush", 0, 0),
        (0, 0, 0, "discard", 8192, 4096),
        (0, 0, 0, "read", 1048576, 65536),
    ]

    def test_times_for_some_only(self, tmp_path):
        with pytest.raises(ForeignFormatError, match="line 1: expected a time in front of this event"):
            self.read(tmp_path, self.good + b"1@5.000000:" + self.good.splitlines(True)[0])


class TestBlkparse(ForeignContract):
    format = "blkparse"
    good = sample("blkparse.txt")
    recorder = "blkparse; completion not recorded for 1 of 9"
    requests = [  # noqa: RUF012
        (2600, 180000, 0, "read", 1048576, 4096),
        (402600, 580000, 0, "read", 2097152, 131072),
        (909000, 1200000, 0, "write", 4194304, 8192),  # two, merged
        (921000, 980000, 0, "read", 33554432, 4096),  # overtakes
        (1502600, 1680000, 0, "flush", 0, 0),
        (2002600, 2180000, 0, "discard", 67108864, 32768),
        (2502600, 2680000, 0, "write", 12582912, 4096),
        (2680000, 2680000, 0, "flush", 0, 0),
        (3001000, 3001000, 0, "read", 1048576, 4096),  # cut off
    ]

    def test_without_events_of_the_driver_requests_are_as_queued(self, tmp_path):
        queued = b"".join(line for line in self.good.splitlines(True) if b" D  " not in line[:60])
        trace = self.read(tmp_path, queued.replace(b" D FWS", b" I FWS").replace(b" D WFS", b" I WFS"))
        assert trace.frame.rows()[0] == (0, 180000, 0, "read", 1048576, 4096)

    def test_two_devices(self, tmp_path):
        other = b"259,0    1        1     0.000000500   697  D   R 8 + 8 [cat]\n"
        trace = self.read(tmp_path, other + self.good)
        assert trace.frame.rows()[0] == (500, 500, 0, "read", 4096, 4096)
        assert set(trace.frame["disk"]) == {0, 1}


class TestMsrCambridge(ForeignContract):
    format = "msr-cambridge"
    good = sample("msr-cambridge.csv")
    requests = [  # noqa: RUF012
        (0, 4128600, 0, "read", 7014609920, 24576),
        (1332052600, 1332248900, 0, "write", 1317441536, 8192),
        (2332061600, 2332245100, 1, "write", 2436440064, 4096),
        (2332067100, 2332069700, 1, "read", 2436444160, 65536),
        (5028483100, 5028495000, 0, "read", 1317441536, 8192),
    ]

    def test_another_host(self, tmp_path):
        with pytest.raises(ForeignFormatError, match="line 3: expected requests of one host, 'src1'"):
            self.read(tmp_path, self.good.replace(b"26382245,src1", b"26382245,src2"))

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            (b"7014609920", b"-4096", "line 1: expected an offset from 0"),
            (b"24576", b"0", "line 1: expected a length from 1"),
            (b",41286", b"", "line 1: expected Timestamp,Hostname"),
            (b"41286", b"-1", "line 1: expected a completion that is not before the issue"),
            (b"7014609920", b"9" * 30, "line 1: expected Timestamp"),
            (b"128166372003061629", b"28166372003061629", "line 2: expected a time of at most"),
        ],
    )
    def test_a_bad_value(self, tmp_path, old, new, reason):
        with pytest.raises(ForeignFormatError, match=reason):
            self.read(tmp_path, self.good.replace(old, new, 1))


class TestCloudPhysicsCsv(ForeignContract):
    format = "cloudphysics-csv"
    good = sample("cloudphysics.csv")
    recorder = "not recorded for 5 of 5"
    requests = [  # noqa: RUF012
        (0, 0, 0, "write", 42932745 * 512, 512),
        (0, 0, 0, "read", 40409911 * 512, 6656),
        (10**9, 10**9, 0, "read", 31954535 * 512, 6144),
        (3 * 10**9, 3 * 10**9, 0, "write", 6238199 * 512, 57344),
        (3 * 10**9, 3 * 10**9, 0, "flush", 0, 0),
    ]

    def test_another_operation(self, tmp_path):
        with pytest.raises(
            ForeignFormatError, match=r"line 3: expected a SCSI operation that .*'code': '12'"
        ):
            self.read(tmp_path, self.good.replace(b"28,6656", b"12,6656"))


class TestOwnCsv(ForeignContract):
    format = "csv"
    good = (
        b"issued_ns,completed_ns,disk,op,offset,length\n"
        b"1,5,0,read,0,512\n2,3,1,flush,0,0\n2,9,1,write,512,1\n"
    )
    requests = [(1, 5, 0, "read", 0, 512), (2, 3, 1, "flush", 0, 0), (2, 9, 1, "write", 512, 1)]  # noqa: RUF012


def fio_requests(log: str) -> list[tuple[int, int, int, str, int, int]]:
    """What fio's log says, read the slow way; its first line was written at 23 µs."""
    requests = []
    for line in log.splitlines():
        match line.split():
            case [time, _, "datasync", _, "0"]:
                at = int(time) * 1000 - 23000
                requests.append((at, at, 0, "flush", 0, 0))
            case [time, _, op, offset, length]:
                at = int(time) * 1000 - 23000
                requests.append((at, at, 0, op, int(offset), int(length)))
    return requests


class TestFio3(ForeignContract):
    format = "fio"
    good = sample("fio3.log")
    recorder = "fio iolog 3; completion not recorded for 47 of 47"
    requests = fio_requests(good.decode())

    def test_a_file_that_was_not_added(self, tmp_path):
        with pytest.raises(ForeignFormatError, match=r"line 2: expected a file that the log adds, got \{"):
            self.read(tmp_path, self.good.replace(b" add", b" open"))


class TestFio2(ForeignContract):
    format = "fio"
    good = sample("fio2.log")
    recorder = "fio iolog 2; completion not recorded for 5 of 5"
    requests = [  # noqa: RUF012
        (0, 0, 0, "read", 0, 4096),
        (20_000_000, 20_000_000, 1, "write", 8192, 4096),
        (20_000_000, 20_000_000, 0, "read", 65536, 16384),
        (35_000_000, 35_000_000, 1, "flush", 0, 0),
        (35_000_000, 35_000_000, 0, "discard", 4096, 8192),
    ]


class TestOracleGeneral(ForeignContract):
    format = "oracle-general"
    record_bytes = 24
    good = b"".join(
        struct.pack("<IQIq", *record)
        for record in [(7, 1000, 4096, 2), (7, 8, 512, -1), (9, 1000, 4096, -1), (10, 70000, 65536, -1)]
    )
    recorder = "all are reads; completion not recorded for 4 of 4"
    requests = [  # noqa: RUF012
        (0, 0, 0, "read", 512000, 4096),
        (0, 0, 0, "read", 4096, 512),
        (2 * 10**9, 2 * 10**9, 0, "read", 512000, 4096),
        (3 * 10**9, 3 * 10**9, 0, "read", 70000 * 512, 65536),
    ]

    def test_objects_that_are_hashes(self, tmp_path):
        hashed = struct.pack("<IQIq", 1, 2**63 + 5, 1, -1)
        with pytest.raises(ForeignFormatError, match="record 5: expected an object's number below"):
            self.read(tmp_path, self.good + hashed)


class TestVscsi1(ForeignContract):
    format = "vscsi"
    record_bytes = 32
    good = b"".join(
        struct.pack("<IIIHHQQ", serial, length, 1, command, 0x100, block, time)
        for serial, (length, command, block, time) in enumerate(
            [
                (512, 0x2A, 4, 50_000_001),
                (4096, 0x28, 8, 50_000_001),
                (8192, 0x88, 0, 50_000_500),
                (0, 0x35, 0, 50_001_000),
            ]
        )
    )
    recorder = "vscsi 1; completion not recorded for 4 of 4"
    requests = [  # noqa: RUF012
        (0, 0, 0, "write", 2048, 512),
        (0, 0, 0, "read", 4096, 4096),
        (499_000, 499_000, 0, "read", 0, 8192),
        (999_000, 999_000, 0, "flush", 0, 0),
    ]


class TestVscsi2(ForeignContract):
    format = "vscsi"
    record_bytes = 40
    good = b"".join(
        struct.pack("<HHIIIQQQ", command, 0x200, serial, length, 1, block, time, 77)
        for serial, (length, command, block, time) in enumerate(
            [(512, 0x2A, 4, 50_000_001), (4096, 0x28, 8, 50_000_003)]
        )
    )
    recorder = "vscsi 2"
    requests = [(0, 0, 0, "write", 2048, 512), (2000, 2000, 0, "read", 4096, 4096)]  # noqa: RUF012


def test_every_format_has_a_contract():
    assert {cls.format for cls in ForeignContract.__subclasses__()} == set(IMPORTS)


def test_an_unknown_format(tmp_path):
    with pytest.raises(ForeignFormatError, match=r"expected one of the formats nbdkit, .*; got 'pcap'"):
        import_trace("pcap", tmp_path)


def test_cloudphysics_in_its_three_forms_has_the_same_requests():
    if not SHARED.is_dir():
        pytest.skip("libCacheSim's cloudPhysicsIO in three forms is not at hand (../shared/data)")
    vscsi = import_trace("vscsi", SHARED / "cloudPhysicsIO.vscsi").frame
    oracle = import_trace("oracle-general", SHARED / "cloudPhysicsIO.oracleGeneral.bin").frame
    text = import_trace("cloudphysics-csv", SHARED / "cloudPhysicsIO-first20000.csv").frame
    assert (vscsi.height, text.height) == (113_872, 20_000)
    assert oracle["offset"].equals(vscsi["offset"])
    # libCacheSim's converter gives an object the length it had when it was first asked for
    first_lengths = vscsi.select(pl.col("length").first().over("offset"))["length"]
    assert oracle["length"].equals(first_lengths)
    columns = ["op", "offset", "length"]
    assert text.select(columns).equals(vscsi.head(20_000).select(columns))
    # vscsi starts 368,802 µs after a whole second, which is where the others' clocks start
    seconds = (vscsi["issued_ns"] + 368_802_000) // 10**9
    assert (oracle["issued_ns"] // 10**9).equals(seconds)
    assert (text["issued_ns"] // 10**9).equals(seconds.head(20_000))


def test_a_million_lines_would_take_seconds(tmp_path):
    import time

    line = "1281663720{:08d},src1,0,Read,{},4096,100\n"
    path = tmp_path / "many.csv"
    path.write_text("".join(line.format(number, number * 512) for number in range(200_000)), encoding="utf-8")
    start = time.perf_counter()
    assert import_trace("msr-cambridge", path).frame.height == 200_000
    assert time.perf_counter() - start < 5
