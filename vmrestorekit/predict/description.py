"""What a manifest says of each stored block of a disk, in terms that mean the same on a machine never seen.

Addresses are told only roughly. What identifies a block, from the most to the least specific, are its `KEYS`:
evidence of other machines is found under them (`vmrestorekit.predict.evidence`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from vmrestorekit.predict.paths import OVERLOOKED, canonical, path_class
from vmrestorekit.predict.reached import FAR, Reached, edges_between_files, enabled_services, reached_files
from vmrestorekit.traces.large_manifest import LargeManifest
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES, Manifest

__all__ = [
    "BLOCK_FEATURES",
    "FILE_FEATURES",
    "FILE_KEYS",
    "KEYS",
    "DescribedDisk",
    "DescribedFiles",
    "describe_blocks",
    "describe_disk",
    "describe_files",
    "used_partitions",
]

# what a file has in common with files of other machines
FILE_KEYS = ("file", "reached_file", "name", "directory", "branch", "package")
KEYS = ("content", "place", "read_place", "name_place", "part", *FILE_KEYS)

FILE_FEATURES = (
    "kind",
    "size",  # powers of two
    "depth",  # directories above it
    "siblings",  # files in its directory, powers of two
    "in_bin",
    "packaged",
    "path_class",
    "reached",
    "steps",
    "package_units",  # of its package: how many units are enabled,
    "package_programs",  # how many programs are started,
    "package_share",  # what share of its files is reached
    "of_service",  # the path names an enabled service
    "newest",  # of the files whose paths differ in a version only
)
BLOCK_FEATURES = (
    *FILE_FEATURES,
    "position",  # 4 KiB blocks from the start of the file
    "to_end",
    "relative_position",
    "address",  # powers of two
    "relative_address",
)
PARTS = 16
# file systems whose files and own structures are known: what belongs to none of them is free
_READ_WHOLE = ("ext2", "ext3", "ext4", "btrfs", "xfs")

Keys = npt.NDArray[np.uint64]


@dataclasses.dataclass(frozen=True, eq=False)
class DescribedDisk:
    """The n stored blocks of a disk, file by file and in the order of the file.

    Attributes
    ----------
    block : ndarray of int64, shape (n,)
        Numbers of 4 KiB blocks.
    content : ndarray of uint64, shape (n,)
        As in the manifest.
    file : ndarray of int32, shape (n,)
        Row of the manifest's table of files, -1 for none.
    starts : ndarray of int64, shape (f + 1,)
        Where each file's blocks begin here, and n; blocks of no file count as one file.
    keys : mapping of str to ndarray of uint64, shape (n,)
        `KEYS`; 0 where a block has none. What a file system has freed has none at all: it is not read,
        whatever it was.
    features : ndarray of float32, shape (n, len(BLOCK_FEATURES))
        NaN where there is no file.
    edges : ndarray of int32, shape (e, 2)
        What uses what, as rows of the table of files; see `vmrestorekit.predict.reached`.
    file_count : int
        Rows of the table of files.
    """

    block: npt.NDArray[np.int64]
    content: npt.NDArray[np.uint64]
    file: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    keys: Mapping[str, npt.NDArray[np.uint64]]
    features: npt.NDArray[np.float32]
    edges: npt.NDArray[np.int32]
    file_count: int

    @property
    def first_rows(self) -> npt.NDArray[np.int64]:
        """Where the blocks of each file begin, blocks of no file left out."""
        first = self.starts[:-1]
        return first[self.file[first] >= 0]

    def mean_within(self, values: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
        """Return the mean of what is known within so many rows in the same file; NaN for blocks of no file.

        Rows of the same file are the same whether all of a disk is described or some of its files.
        """
        known = ~np.isnan(values)
        sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0), dtype=np.float64)])
        counts = np.concatenate([[0], np.cumsum(known)])
        lengths = np.diff(self.starts)
        begin, end = (np.repeat(edge, lengths) for edge in (self.starts[:-1], self.starts[1:]))
        here = np.arange(values.size)
        first, last = np.maximum(here - width, begin), np.minimum(here + width + 1, end)
        with np.errstate(invalid="ignore"):
            mean = (sums[last] - sums[first]) / (counts[last] - counts[first])
        return np.where(self.file >= 0, mean, np.nan).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class DescribedFiles:
    """The files of a disk, and a last row for blocks of no file.

    Attributes
    ----------
    features : ndarray of float32, shape (f + 1, len(FILE_FEATURES))
        NaN in the last row.
    keys : mapping of str to ndarray of uint64, shape (f + 1,)
        `FILE_KEYS`; 0 where a file has none.
    blocks : ndarray of int64, shape (f + 1,)
        Size in 4 KiB blocks.
    edges : ndarray of int32, shape (e, 2)
        What uses what; see `vmrestorekit.predict.reached`.
    used : tuple of (int, int)
        First block and end of each partition with a file system of which all files are known.
    """

    features: npt.NDArray[np.float32]
    keys: Mapping[str, Keys]
    blocks: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int32]
    used: tuple[tuple[int, int], ...]

    def is_free(self, block: npt.NDArray[np.int64], file: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Tell of blocks, by their files (-1: none), which ones a file system has freed."""
        inside = np.zeros(block.size, bool)
        for first, end in self.used:
            inside |= (block >= first) & (block < end)
        return inside & (file < 0)

    @property
    def count(self) -> int:
        """How many files there are."""
        return self.blocks.size - 1

    def first_blocks(self, files: npt.NDArray[np.int32]) -> DescribedDisk:
        """Describe some files by one block each: enough to ask whether anything of them is read."""
        rows = np.arange(files.size, dtype=np.int64)
        blanks = np.full((files.size, len(BLOCK_FEATURES) - len(FILE_FEATURES)), np.nan, np.float32)
        return DescribedDisk(
            block=rows,
            content=np.zeros(files.size, np.uint64),
            file=files,
            starts=np.append(rows, files.size),
            keys={key: names[files] for key, names in self.keys.items()},
            features=np.column_stack([self.features[files], blanks]),
            edges=self.edges,
            file_count=self.count,
        )


def describe_disk(manifest: Manifest) -> DescribedDisk:
    """Say of each block that is not all zeros what the manifest shows."""
    files = describe_files(manifest)
    owner = manifest.blocks["file"].fill_null(-1).to_numpy()
    files = dataclasses.replace(files, used=used_partitions(files.used, owner, 0))
    return describe_blocks(files, manifest.blocks, 0, manifest.blocks.height)


def used_partitions(
    partitions: tuple[tuple[int, int], ...], owner: npt.NDArray[np.int32], first: int
) -> tuple[tuple[int, int], ...]:
    """Return those partitions of which a file is seen: one that cannot be read has a name, too.

    Parameters
    ----------
    partitions : tuple of (int, int)
        First block and end of each.
    owner : ndarray of int32
        File of consecutive blocks, -1 for none.
    first : int
        Number of the first of these.
    """
    return tuple(
        (begin, end)
        for begin, end in partitions
        if (owner[max(begin - first, 0) : max(end - first, 0)] >= 0).any()
    )


def describe_blocks(
    files: DescribedFiles,
    blocks: pl.DataFrame,
    first: int,
    of_disk: int,
    wanted: npt.NDArray[np.bool_] | None = None,
) -> DescribedDisk:
    """Say of consecutive blocks of a disk, those of zeros left out, what the manifest shows.

    Parameters
    ----------
    files : DescribedFiles
    blocks : polars.DataFrame
        `vmrestorekit.traces.manifest.BLOCKS_SCHEMA`.
    first : int
        Number of the first of them.
    of_disk : int
        How many blocks the disk has.
    wanted : ndarray of bool, shape (n,), optional
        Leave out others of these blocks.
    """
    content = blocks["content"].to_numpy()
    owner = blocks["file"].fill_null(-1).to_numpy()
    row = np.flatnonzero(content) if wanted is None else np.flatnonzero((content != 0) & wanted)
    position = blocks["file_block"].gather(row).fill_null(0).to_numpy().astype(np.int64)
    in_order = np.lexsort((row, position, owner[row]))
    row, position = row[in_order], position[in_order]
    file, block = owner[row], row + first
    content = content[row]
    begins = np.flatnonzero(np.diff(file, prepend=-2)) if block.size else np.zeros(0, np.int64)
    length = np.maximum(files.blocks[file], position + 1)
    in_file = np.column_stack([position, length - 1 - position, position / length])
    on_disk = np.column_stack([np.log2(block + 1.0), block / of_disk])
    features = [files.features[file], np.where(file[:, None] >= 0, in_file, np.nan), on_disk]
    keys = {key: names[file] for key, names in files.keys.items()}
    places = {
        "content": np.where(files.is_free(block, file), np.uint64(0), content),
        "place": (place := _paired(keys["file"], position)),
        "read_place": place,  # what is said of it says only who read anything of the file
        "name_place": _paired(keys["name"], position),
        "part": _paired(keys["file"], (position * PARTS // length) + (1 << 40)),
    }
    return DescribedDisk(
        block=block,
        content=content,
        file=file,
        starts=np.append(begins, block.size),
        keys={**places, **keys},
        features=np.column_stack(features).astype(np.float32),
        edges=files.edges,
        file_count=files.count,
    )


def describe_files(manifest: Manifest | LargeManifest) -> DescribedFiles:
    """Say of each file what the manifest shows."""
    table = _table_of_files(manifest)
    nothing = np.full((1, len(FILE_FEATURES)), np.nan, np.float32)
    size = table.select(-(-pl.col("bytes") // MANIFEST_BLOCK_BYTES)).to_series().to_numpy()
    return DescribedFiles(
        features=np.vstack([table.select(FILE_FEATURES).to_numpy().astype(np.float32), nothing]),
        keys={key: np.append(table[key].to_numpy(), np.uint64(0)) for key in FILE_KEYS},
        blocks=np.append(size, 0),
        edges=edges_between_files(manifest),
        used=tuple(
            (start // MANIFEST_BLOCK_BYTES, (start + length) // MANIFEST_BLOCK_BYTES)
            for start, length, kind in manifest.partitions.select(
                "start", "length", "file_system"
            ).iter_rows()
            if kind in _READ_WHOLE
        ),
    )


def _table_of_files(manifest: Manifest | LargeManifest) -> pl.DataFrame:
    """Return `FILE_FEATURES`, `FILE_KEYS` and ``bytes``, one row a file."""
    reached = reached_files(manifest)
    found = pl.DataFrame(
        [(path, int(how), steps) for path, (how, steps) in reached.items()],
        schema={"path": pl.String, "reached": pl.Int8, "steps": pl.Int16},
        orient="row",
    )
    path, package = pl.col("path"), pl.col("package")
    comparable = canonical(path)
    of_package = pl.struct("package")
    files = manifest.files.join(found, on="path", how="left", maintain_order="left").with_columns(
        pl.col("reached").fill_null(0), pl.col("steps").fill_null(FAR)
    )
    named = files.select(
        bytes="size",
        kind=pl.col("kind").to_physical(),
        size=(pl.col("size") + 1).log(2.0),
        depth=path.str.count_matches("/"),
        siblings=pl.len().over(path.str.replace(r"/[^/]*$", "")).log(2.0),
        in_bin=(pl.col("kind") == "regular") & path.str.contains(r"/s?bin/"),
        packaged=package.is_not_null(),
        path_class=path_class(path),
        reached="reached",
        steps="steps",
        package_units=_of_package((pl.col("reached") == Reached.ENABLED).sum(), of_package),
        package_programs=_of_package((pl.col("reached") == Reached.STARTED).sum(), of_package),
        package_share=_of_package((pl.col("reached") > 0).mean(), of_package),
        of_service=_names_one_of(enabled_services(reached), path),
        newest=_newest(files["path"], files.select(comparable)["path"]),
        file=comparable,
        directory=comparable.str.replace(r"/?[^/]*$", ""),
        # a library or a program in another folder is the same; a folder tells one __init__.py from another
        name=comparable.str.extract(r"([^/]*/[^/]*)$").fill_null(comparable),
        # where packages keep what is theirs: /usr/lib/postgresql, /var/lib/dpkg
        branch=comparable.str.extract(r"^(/?[^/]*/[^/]*/[^/]*)").fill_null(""),
        package=package.str.replace_all(OVERLOOKED[1], "#"),
    )
    hashed = named.with_columns(_hashes(named[key]) for key in FILE_KEYS if key in named.columns)
    # a library that nothing starts on other machines tells little of one that a service here loads
    is_reached = (hashed["reached"] > 0).to_numpy().astype(np.int64)
    return hashed.with_columns(reached_file=pl.Series(_paired(hashed["file"].to_numpy(), is_reached)))


def _hashes(names: pl.Series) -> pl.Series:
    """Return hashes that every process and version makes alike, unlike those of polars; of null 0."""
    different = names.drop_nulls().unique()
    hashes = [xxhash.xxh3_64_intdigest(name.encode()) for name in different]
    found = names.replace_strict(
        different, pl.Series(hashes, dtype=pl.UInt64), default=0, return_dtype=pl.UInt64
    )
    return found.fill_null(0).alias(names.name)


def _of_package(value: pl.Expr, package: pl.Expr) -> pl.Expr:
    return pl.when(pl.col("package").is_not_null()).then(value.over(package))


def _newest(paths: pl.Series, comparable: pl.Series) -> pl.Series:
    """Tell which paths have the highest version of those alike without it; null: it is the only one."""
    several = np.flatnonzero(comparable.is_duplicated().to_numpy())
    # whole numbers of any length are compared by their length, then as text
    versions = {
        row: [(len(number), number) for number in re.findall(r"0*([0-9]+)", paths[row])]
        for row in several.tolist()
    }
    best: dict[str, list[tuple[int, str]]] = {}
    for row, version in versions.items():
        best[comparable[row]] = max(best.get(comparable[row], []), version)
    newest = np.full(len(paths), None)
    newest[several] = [version == best[comparable[row]] for row, version in versions.items()]
    return pl.Series(newest.tolist(), dtype=pl.Boolean)


def _names_one_of(services: list[str], path: pl.Expr) -> pl.Expr:
    if not services:
        return pl.lit(False)
    alternatives = "|".join(map(re.escape, services))
    return path.str.contains(rf"/({alternatives})d?([^a-z]|$)")


def _paired(key: Keys, number: npt.NDArray[np.int64]) -> Keys:
    """Return a key for a number within what a key names (a finaliser of splitmix64); 0 stays 0."""
    mixed = key ^ (number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x7F4A7C15))
    for shift, factor in ((31, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    return np.where(key == 0, np.uint64(0), mixed ^ (mixed >> np.uint64(31)))
