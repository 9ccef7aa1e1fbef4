"""The rows of a sweep on disk: written piece by piece, found again after a cut, joined in the end."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from vmrestorekit.traces.schema import read_parquet, write_parquet_atomically

__all__ = ["Rows", "SweepError"]


class SweepError(ValueError):
    """A sweep that makes no sense or cannot go on; the message says what was expected and what came."""


class Rows:
    """Rows by key, in memory and, with a path, on disk: ``<path>`` when complete, ``<path>.parts/`` before.

    Parameters
    ----------
    path : Path, optional
        A Parquet file.
    schema : polars.Schema
        Rows of a file with other columns are of another sweep, and not taken.

    Raises
    ------
    SweepError
        If what is at the path is no Parquet file.
    """

    def __init__(self, path: Path | None, schema: pl.Schema) -> None:
        self.path, self.schema = path, schema
        self._parts = path.with_name(f"{path.name}.parts") if path else None
        self._frames: list[pl.DataFrame] = []
        self.keys: set[str] = set()
        for file in self._files():
            self._take(read_parquet(file, "rows of a sweep", SweepError))

    def _files(self) -> list[Path]:
        if self.path is None or self._parts is None:
            return []
        there = [self.path] if self.path.exists() else []
        return there + sorted(self._parts.glob("*.parquet"))

    def _take(self, frame: pl.DataFrame) -> None:
        if frame.schema != self.schema:
            return
        # a cut between joining and removing the parts leaves rows twice
        fresh = frame.filter(~pl.col("key").is_in(list(self.keys)))
        self.keys.update(fresh["key"])
        self._frames.append(fresh)

    def add(self, frame: pl.DataFrame) -> None:
        """Keep new rows; they are on disk when this returns.

        Raises
        ------
        OSError
            If they cannot be written, such as for lack of space; the message says where, and what is safe.
        """
        if self._parts is not None:
            try:
                write_parquet_atomically(
                    frame, self._parts / f"{len(self.keys):09}-{frame['key'][0]}.parquet"
                )
            except OSError as error:
                kept = f"{len(self.keys)} rows before it are kept in {self._parts}"
                raise OSError(
                    error.errno, f"cannot write rows of the sweep: {error.strerror}; {kept}"
                ) from error
        self._take(frame)

    def joined(self, keys: list[str]) -> pl.DataFrame:
        """Return the rows with these keys in their order."""
        rows = pl.concat([self.schema.to_frame(), *self._frames])
        order = pl.DataFrame({"point": range(len(keys)), "key": keys}, schema_overrides={"point": pl.Int64})
        # points are numbered anew: the space may have grown since a row was computed
        found = order.join(rows.drop("point"), on="key", how="inner", maintain_order="left")
        return found.select(self.schema.names())

    def finish(self, frame: pl.DataFrame) -> None:
        """Write the whole table, then remove its pieces."""
        if self.path is None or self._parts is None:
            return
        try:
            write_parquet_atomically(frame, self.path)
        except OSError as error:
            where = f"all {frame.height} rows are kept in {self._parts}"
            raise OSError(error.errno, f"cannot write {self.path}: {error.strerror}; {where}") from error
        shutil.rmtree(self._parts, ignore_errors=True)
