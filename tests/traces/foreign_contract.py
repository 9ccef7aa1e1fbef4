"""What every importer of a foreign format promises; the test of each inherits it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmrestorekit.traces.foreign import ForeignFormatError, import_trace
from vmrestorekit.traces.schema import ReadTrace, validate_trace

SAMPLES = Path(__file__).with_name("samples")

JUNK = [
    b"",
    b"\n\n\n",
    b"\x00" * 480,
    b"\xff\xfe" * 240,
    b"\x7fELF" + bytes(range(256)) * 3,
    b"no trace at all\n",
    b"1,2,3\n",
    "Übermut 🦀\n".encode(),
    b"9" * 5000,
    b"-1,-1,-1,-1,-1,-1\n" * 3,
]
HOSTILE = [
    b"-1",
    b"9223372036854775807",
    b"18446744073709551616",
    b"9" * 400,
    b"0",
    b"0x",
    b"nan",
    b"\x00",
    b"\xc3(",
    b" ",
    b",",
    b"\n",
    b"\r",
]


class ForeignContract:
    """Subclasses give the format's name, the bytes of a good file and the requests that are in it."""

    format: ClassVar[str]
    good: ClassVar[bytes]
    requests: ClassVar[list[tuple[int, int, int, str, int, int]]]  # rows of the trace
    record_bytes: ClassVar[int | None] = None  # of a binary format
    recorder: ClassVar[str] = ""  # what the metadata has to say

    def read(self, folder: Path, content: bytes) -> ReadTrace:
        path = folder / "foreign.trace"
        path.write_bytes(content)
        trace = import_trace(self.format, path)
        validate_trace(trace.frame, trace.metadata)
        return trace

    def read_or_refuse(self, folder: Path, content: bytes) -> str | None:
        """Return the sentence of a refusal; anything but a valid trace or such a sentence fails."""
        try:
            self.read(folder, content)
            return None
        except ForeignFormatError as error:
            refusal = error
        sentence = str(refusal)
        assert type(refusal) is ForeignFormatError
        assert str(folder / "foreign.trace") in sentence
        assert "expected" in sentence
        assert "\n" not in sentence
        assert len(sentence) < 700
        return sentence

    def test_the_good_file_is_read_row_by_row(self, tmp_path):
        trace = self.read(tmp_path, self.good)
        assert trace.frame.rows() == self.requests
        assert self.recorder in trace.metadata.recorder
        unrecorded = sum(row[0] == row[1] for row in self.requests)
        assert ("completion not recorded" in trace.metadata.recorder) <= (unrecorded > 0)

    def test_it_can_be_saved_and_loaded(self, tmp_path):
        trace = self.read(tmp_path, self.good)
        trace.save(tmp_path / "trace.parquet")
        loaded = ReadTrace.load(tmp_path / "trace.parquet")
        assert loaded.frame.equals(trace.frame)
        assert loaded.metadata == trace.metadata

    def test_windows_line_ends_change_nothing(self, tmp_path):
        if self.record_bytes is None:
            assert self.read(tmp_path, self.good.replace(b"\n", b"\r\n")).frame.rows() == self.requests

    @pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
    def test_junk_is_refused(self, tmp_path, junk):
        assert self.read_or_refuse(tmp_path, junk)

    def test_a_bad_line_or_record_is_named(self, tmp_path):
        if self.record_bytes:
            sentence = self.read_or_refuse(tmp_path, self.good[:-1])
            assert f"record {len(self.good) // self.record_bytes}: expected" in str(sentence)
            return
        lines = self.good.splitlines()
        lines[3] = lines[3] + b"\xff"
        assert "line 4: expected UTF-8 text, got the byte 0xff" in str(
            self.read_or_refuse(tmp_path, b"\n".join(lines))
        )

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            import_trace(self.format, tmp_path / "nothing")

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(
        seed=st.integers(0, 2**32),
        steps=st.lists(
            st.sampled_from(["truncate", "flip", "swap", "drop", "repeat", "number", "insert"]),
            min_size=1,
            max_size=3,
        ),
    )
    def test_a_damaged_file_is_a_valid_trace_or_one_sentence(self, tmp_path, seed, steps):
        numbers, content = random.Random(seed), self.good
        for step in steps:
            content = self.damaged(content, step, numbers)
        self.read_or_refuse(tmp_path, content)

    def damaged(self, content: bytes, step: str, numbers: random.Random) -> bytes:
        at = numbers.randrange(len(content) + 1)
        if step == "truncate":
            return content[:at]
        if step == "flip" and at < len(content):
            return content[:at] + bytes([content[at] ^ 1 << numbers.randrange(8)]) + content[at + 1 :]
        if step == "insert":
            return content[:at] + numbers.choice(HOSTILE) + content[at:]
        parts = self.parts(content)
        if not parts:
            return content
        one, other = numbers.randrange(len(parts)), numbers.randrange(len(parts))
        if step == "swap":
            parts[one], parts[other] = parts[other], parts[one]
        elif step == "drop":
            del parts[one]
        elif step == "repeat":
            parts.insert(other, parts[one])
        elif step == "number":
            parts[one] = self.with_hostile_number(parts[one], numbers)
        return b"".join(parts)

    def parts(self, content: bytes) -> list[bytes]:
        if self.record_bytes is None:
            return content.splitlines(keepends=True)
        return [content[i : i + self.record_bytes] for i in range(0, len(content), self.record_bytes)]

    def with_hostile_number(self, part: bytes, numbers: random.Random) -> bytes:
        if self.record_bytes is not None:
            at = numbers.randrange(0, self.record_bytes, 4)
            size = numbers.choice([4, 8])
            return (part[:at] + numbers.choice([b"\xff", b"\x00", b"\x7f"]) * size + part[at + size :])[
                : self.record_bytes
            ]
        words = part.replace(b",", b" ").replace(b"=", b" ").split()
        word = numbers.choice([word for word in words if any(48 <= c < 58 for c in word)] or [b"\n"])
        return part.replace(word, numbers.choice(HOSTILE), 1)
