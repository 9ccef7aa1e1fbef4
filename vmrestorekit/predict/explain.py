"""Why a block is expected to be read: who has its like, what leads to its file, what counts how much."""

from __future__ import annotations

import collections
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from vmrestorekit.predict.base import BlockPredictor, expect_fitted
from vmrestorekit.predict.block_features import FEATURES
from vmrestorekit.predict.cache_blocks import LIKELY
from vmrestorekit.predict.description import KEYS, DescribedDisk, describe_disk
from vmrestorekit.predict.explanation import BlockExplanation, Chain, Contribution, Met, OwnPast
from vmrestorekit.predict.file_reads import FILE_READ_FEATURES
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.missed import with_path_classes
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.past_reads import Told
from vmrestorekit.predict.relatives import PAST_FEATURES, Past, past_features, relative_of
from vmrestorekit.traces.large_manifest import LargeManifest
from vmrestorekit.traces.manifest import Manifest

__all__ = ["GROUPS", "PAST_GROUPS", "explain_block"]

_STARTERS = ("unit", "program")

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


def _of_keys(*keys: str) -> tuple[str, ...]:
    return tuple(f"{key}_{what}" for key in keys for what in ("met", "rate", "when"))


# what a file and a block are judged by, in words; a model's answers to earlier questions follow from it
GROUPS: Mapping[str, tuple[str, ...]] = {
    "the same content elsewhere": _of_keys("content"),
    "the same place in the same file": _of_keys("place", "read_place", "name_place", "part"),
    "the file as a whole": _of_keys("file", "reached_file", "name"),
    "its neighbours": tuple(name for name in FEATURES if "rate_within_" in name),
    "its directory and package": _of_keys("directory", "branch", "package"),
    "what the file is": ("kind", "size", "depth", "siblings", "in_bin", "packaged", "path_class", "newest"),
    "what uses the file": (
        *("reached", "steps", "of_service", "package_units", "package_programs", "package_share"),
        *("used_by_chain", "used_by", "used_by_sum", "users", "uses", "file_used"),
    ),
    "where in the file it is": ("position", "to_end", "relative_position"),
    "where on the disk it is": ("address", "relative_address"),
}
PAST_GROUPS: Mapping[str, tuple[str, ...]] = {
    "what other machines say": ("stranger", "stranger_when", "file_read"),
    "its own past": (
        *("unchanged", "address_rate", "address_last", "address_when"),
        *(f"{key}_{what}" for key in ("content", "place", "file") for what in ("rate", "when")),
    ),
    "its neighbours' past": ("around_2", "around_8"),
    "what the file is": ("path_class",),
}
# what features are of a block that nobody has met, at an address that no boot read; the others are missing
_UNKNOWN = dict.fromkeys(
    [*(f"{key}_met" for key in KEYS), "unchanged", "address_rate", "address_last", "around_2", "around_8"], 0
)
_FIRST_GUESS, _FILE_READ = FILE_READ_FEATURES.index("first_guess"), FEATURES.index("file_read")


def explain_block(
    predictor: BlockPredictor, manifest: Manifest, block: int, disk: int = 0
) -> BlockExplanation:
    """Say why a learned predictor expects a block to be read, or not.

    The contributions compare the model's answer with its answers if some `GROUPS` of features were unknown:
    as if no machine had met the block and the backup copy did not tell. All combinations of groups are asked,
    of the model of files and that of blocks together: what uses a file makes its blocks likely by way of the
    file. They say what moves *this model*, not what makes a machine read the block. Groups that tell the same
    (the same content, the same place) share what they say. What is known of *other* files and blocks, from
    which some groups are worked out (neighbours, what uses the file), stays as it is. Where the model never
    saw a feature missing, such as the address, it takes the unknown for what most of its examples are.

    Parameters
    ----------
    predictor : LearnedPredictor
        Fitted.
    manifest : Manifest
        State of the disk before the boot that is to be predicted.
    block : int
        Number of a 4 KiB block that is stored.
    disk : int
        Which disk of its machine this is.

    Returns
    -------
    BlockExplanation

    Raises
    ------
    PredictError
        If the predictor is of another kind or not fitted, or the disk has no such block, or only zeros there.
    """
    learned = _expect_learned(predictor)
    number = _expect_stored(manifest, block)
    described = describe_disk(manifest)
    row = int(np.flatnonzero(described.block == number)[0])
    # as in LearnedPredictor: what its own lineage did is told by the past alone
    relative = relative_of(described, disk, learned.pasts_)
    lineage = "" if relative is None else relative[0].lineage
    own = [past.vm for past in learned.pasts_ if relative is not None and past.lineage == lineage]
    without = frozenset(own)
    x, of_files = learned.features_of(described, np.array([row]), without)
    contributions, nothing = _of_others(learned, described, row, x[0], without)
    stranger = float(learned.classifier_.chances(x)[0])
    past: OwnPast | None = None
    past_contributions: tuple[Contribution, ...] = ()
    if relative is not None:
        told = Told(learned.classifier_.chances(x), learned.time_regressor_.values(x), of_files[[row], 0])
        past, past_contributions = _of_past(learned, described, row, disk, relative, told)
    scores = learned.score_blocks(manifest, disk).row(number, named=True)
    asked = learned.asked(LargeManifest.of(manifest), disk)
    place = manifest.blocks.row(number, named=True)
    file = (
        {"path": None, "package": None}
        if place["file"] is None
        else manifest.files.row(place["file"], named=True)
    )
    chain: Chain | None = None
    users: tuple[str, ...] = ()
    if file["path"] is not None:
        chain, users = _how_used(manifest, file["path"], _likely_files(manifest, described, of_files))
    return BlockExplanation(
        disk=disk,
        block=number,
        path=file["path"],
        package=file["package"],
        position=place["file_block"],
        probability=scores["probability"],
        first_read_ns=scores["first_read_ns"],
        looked_at=bool(asked.worth_a_look(0, manifest.blocks)[number]),
        evidence={key: _met(learned, key, int(described.keys[key][row]), without) for key in KEYS},
        file_probability=None if file["path"] is None else float(of_files[row, 0]),
        chain=chain,
        users=users,
        past=past,
        contributions=contributions,
        stranger_probability=stranger,
        nothing_known=nothing,
        past_contributions=past_contributions,
    )


def _expect_learned(predictor: Any) -> LearnedPredictor:
    if not isinstance(predictor, LearnedPredictor):
        raise PredictError(
            f"predictor: expected a LearnedPredictor, whose answers can be explained; "
            f"got {type(predictor).__name__}"
        )
    expect_fitted(predictor)
    return predictor


def _expect_stored(manifest: Any, block: Any) -> int:
    if not isinstance(manifest, Manifest):
        raise PredictError(f"manifest: expected a Manifest of the disk, got {type(manifest).__name__}")
    height = manifest.blocks.height
    try:
        number = operator.index(block)
    except TypeError:
        raise PredictError(f"block: expected the number of a 4 KiB block, got {block!r}") from None
    if not 0 <= number < height:
        raise PredictError(
            f"block: expected the number of a 4 KiB block of this disk, 0 to {height - 1}; got {number}"
        )
    if not manifest.blocks["content"][number]:
        raise PredictError(
            f"block: expected a block that the backup copy stores; {number} is all zeros, nothing to predict"
        )
    return number


def _of_others(
    learned: LearnedPredictor,
    described: DescribedDisk,
    row: int,
    x: Floats,
    without: frozenset[str],
) -> tuple[tuple[Contribution, ...], float]:
    """Return what adds to the answer by what other machines did, and the answer if nothing were known."""
    reads = learned.file_reads_
    its_file = np.flatnonzero(described.file[described.first_rows] == described.file[row])
    of_file = reads.features_of(described, without)[its_file]

    def logit(known: Flags) -> Floats:
        told = _as_if_unknown(x, FEATURES, GROUPS, known)
        if of_file.size:
            its = _as_if_unknown(of_file[0], FILE_READ_FEATURES, GROUPS, known)
            its[:, _FIRST_GUESS] = reads.first.chances(its[:, :_FIRST_GUESS])
            told[:, _FILE_READ] = reads.second.chances(its)
        return learned.classifier_.values(told)

    nothing = float(logit(np.zeros((1, len(GROUPS)), bool))[0])
    return _contributions(tuple(GROUPS), logit), 1 / (1 + math.exp(-nothing))


def _of_past(
    learned: LearnedPredictor,
    described: DescribedDisk,
    row: int,
    disk: int,
    relative: tuple[Past, float],
    told: Told,
) -> tuple[OwnPast, tuple[Contribution, ...]]:
    """Return what the own past says, and what adds to the answer of the model that weighs it."""
    past, alike = relative
    answers = (told.probability, told.when, told.file_read)
    x = past_features(described, past.disks[disk], past.boots, alike, answers, np.array([row]))[0]
    named = dict(zip(PAST_FEATURES, x.tolist(), strict=True))
    own = OwnPast(past.vm, past.boots, alike, named["unchanged"] > 0, named["address_rate"])
    trees = learned.past_reads_.classifier
    if trees is None:
        return own, ()
    return own, _contributions(
        tuple(PAST_GROUPS),
        lambda known: trees.values(_as_if_unknown(x, PAST_FEATURES, PAST_GROUPS, known)),
    )


def _as_if_unknown(
    x: Floats, names: Sequence[str], groups: Mapping[str, tuple[str, ...]], known: Flags
) -> Floats:
    """Return a row for each row of ``known``, what it does not know as if nobody did."""
    found = np.tile(x, (known.shape[0], 1))
    for number, features in enumerate(groups.values()):
        for feature in set(features).intersection(names):
            found[~known[:, number], names.index(feature)] = _UNKNOWN.get(feature, np.nan)
    return found


def _contributions(groups: Sequence[str], logit: Callable[[Flags], Floats]) -> tuple[Contribution, ...]:
    """Return the Shapley value and the last step of each group, by asking for all their combinations."""
    count = len(groups)
    known = (np.arange(2**count)[:, None] >> np.arange(count) & 1) > 0
    value = logit(known).astype(np.float64)
    orders = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
    found = []
    for number, group in enumerate(groups):
        before = np.flatnonzero(~known[:, number])
        gained = value[before + 2**number] - value[before]
        share = float(gained @ orders[known[before].sum(axis=1)])
        found.append(Contribution(group, share, float(gained[-1])))
    return tuple(sorted(found, key=lambda each: -abs(each.share)))


def _met(learned: LearnedPredictor, key: str, value: int, without: frozenset[str]) -> Met:
    table = learned.evidence_.tables[key]
    row = int(table.rows(np.array([value], np.uint64))[0])
    machines = {past.vm for past in learned.pasts_}
    rates = collections.defaultdict(list)
    for source, (rows, rate, _) in table.parts.items():
        at = int(np.searchsorted(rows, row))
        if row < table.known.size and source not in without and at < rows.size and rows[at] == row:
            # the parts of a machine of a corpus of one lineage have a number behind its name
            rates[source if source in machines else source.rpartition("#")[0]].append(float(rate[at]))
    return Met(key, {name: sum(rates[name]) / len(rates[name]) for name in sorted(rates)})


def _likely_files(manifest: Manifest, described: DescribedDisk, of_files: Floats) -> dict[str, float]:
    """Return of each path the probability that anything of it is read."""
    rows = described.first_rows
    paths = manifest.files["path"].gather(described.file[rows])
    return dict(zip(paths, of_files[rows, 0].tolist(), strict=True))


def _how_used(
    manifest: Manifest, path: str, likely: Mapping[str, float]
) -> tuple[Chain | None, tuple[str, ...]]:
    """Return the shortest chain that leads to a file, and all that refers to it at once."""
    referring = collections.defaultdict(list)
    for source, kind, target in manifest.references.iter_rows():
        if (
            kind != "needs_module" and source != target
        ):  # an index of all kernel modules names what no boot loads
            referring[target].append((source, kind))
    starters = _starters(manifest, likely)
    users = sorted({source for source, _ in referring[path]}, key=lambda user: (-likely.get(user, 0), user))
    chains: dict[str, tuple[tuple[str, str, str], ...]] = {path: ()}
    last = [path]
    while last:
        found: dict[str, tuple[tuple[str, str, str], ...]] = {}
        for target in last:
            for source, kind in referring[target]:
                if source not in chains:
                    found.setdefault(source, ((source, kind, target), *chains[target]))
        first = max(starters & found.keys(), key=lambda source: (likely[source], source), default=None)
        if first is not None:
            return Chain(found[first], likely[first]), tuple(users)
        chains |= found
        last = list(found)
    return None, tuple(users)


def _starters(manifest: Manifest, likely: Mapping[str, float]) -> set[str]:
    """Return the units and programs that are likely to be read."""
    named = with_path_classes(manifest.files).filter(pl.col("path_class").is_in(_STARTERS))
    return {path for path in named["path"] if likely.get(path, 0) >= LIKELY}
