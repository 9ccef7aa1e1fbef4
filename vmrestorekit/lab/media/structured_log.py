"""A log as JSON lines, one object a record, for programs and for ``jq``."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from vmrestorekit.lab.programs import LabError

__all__ = ["JsonLines", "structured_log"]

_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """``time`` (UTC), ``level``, ``where``, ``message``, then what the record's ``extra`` says."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "where": record.name.removeprefix("vmrestorekit."),
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@contextlib.contextmanager
def structured_log(path: Path | None) -> Iterator[None]:
    """Append everything that is logged to a file of mode 0600, or write it to stderr.

    Raises
    ------
    LabError
        If the file cannot be written.
    """
    if path is None:
        stream = sys.stderr
    else:
        try:
            stream = os.fdopen(
                os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8"
            )
        except OSError as error:
            raise LabError(f"expected to write a log at {path}: {error.strerror}") from error
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        if path is not None:
            stream.close()
