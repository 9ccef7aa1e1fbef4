"""Why a block is expected to be read, and what a prediction missed and wasted: in words and in tables."""

from __future__ import annotations

import collections
import dataclasses
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from vmrestorekit.predict.base import BlockPredictor
from vmrestorekit.predict.block_features import FEATURES
from vmrestorekit.predict.cache_blocks import LIKELY, cache_block_scores, staging_order
from vmrestorekit.predict.description import KEYS, DescribedDisk, describe_disk
from vmrestorekit.predict.file_reads import FILE_READ_FEATURES
from vmrestorekit.predict.learned import LearnedPredictor
from vmrestorekit.predict.metrics import needed_blocks
from vmrestorekit.predict.observed import PredictError
from vmrestorekit.predict.past_reads import Told
from vmrestorekit.predict.paths import PATH_CLASSES, path_class
from vmrestorekit.predict.relatives import PAST_FEATURES, Past, past_features, relative_of
from vmrestorekit.traces.manifest import MANIFEST_BLOCK_BYTES, Manifest

if TYPE_CHECKING:
    from vmrestorekit.traces.boots import Boot

__all__ = [
    "GROUPS",
    "MISSED_SCHEMA",
    "PAST_GROUPS",
    "BlockExplanation",
    "Chain",
    "Contribution",
    "Met",
    "OwnPast",
    "explain_block",
    "missed_and_wasted",
    "missed_by_class",
]

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


def _of_keys(*keys: str) -> tuple[str, ...]:
    return tuple(f"{key}_{what}" for key in keys for what in ("met", "rate", "when"))


# what a file and a block are judged by, in words; a model's answers to earlier questions follow from it
GROUPS: Mapping[str, tuple[str, ...]] = {
    "the same content elsewhere": _of_keys("content"),
    "the same place in the same file": _of_keys("place", "name_place", "part"),
    "the file as a whole": _of_keys("file", "name"),
    "its neighbours": tuple(name for name in FEATURES if "rate_within_" in name),
    "its directory and package": _of_keys("directory", "branch", "package"),
    "what the file is": ("kind", "size", "depth", "in_bin", "packaged", "path_class"),
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

_KEY_WORDS = {
    "content": ("this content", "read it"),
    "place": ("this place of this file", "read it"),
    "name_place": ("this place of a file of this name", "read it"),
    "part": ("this part of the file", "read any of it"),
    "file": ("this file", "read any of it"),
    "name": ("a file of this name", "read any of it"),
    "directory": ("its directory", "read any of it"),
    "branch": ("its branch of the directory tree", "read any of it"),
    "package": ("its package", "read any of it"),
}
_KIND_WORDS = {"enables": "pulls in", "starts": "starts", "loads": "loads", "links": "leads to"}
_STARTERS = ("unit", "program")
_NAMED = 6  # machines that a sentence names
_SLIGHT = 0.05  # contributions that a sentence leaves out

MISSED_SCHEMA = pl.Schema(
    {
        "disk": pl.Int64(),
        "path": pl.String(),  # null: blocks of no file
        "path_class": pl.String(),  # of `PATH_CLASSES`; "other" if none fits, "no file"
        "package": pl.String(),
        "missed": pl.Int64(),  # 4 KiB blocks read and not staged
        "wasted": pl.Int64(),  # staged and not read
        "found": pl.Int64(),  # staged and read
        "probability": pl.Float64(),  # mean over these blocks
        "met": pl.Boolean(),  # whether a machine learned from has the file; null where nobody can say
        "read_elsewhere": pl.Boolean(),  # whether one of these read something of it
    }
)


@dataclasses.dataclass(frozen=True)
class Met:
    """Who has met what a key names.

    Attributes
    ----------
    key : str
        One of `vmrestorekit.predict.description.KEYS`.
    rates : mapping of str to float
        Of each machine that has it: the share of its usual boots that read it; of a key that names many
        blocks, such as a file, the mean over them.
    """

    key: str
    rates: Mapping[str, float]

    @property
    def machines(self) -> tuple[str, ...]:
        """The machines that have it, sorted."""
        return tuple(sorted(self.rates))

    @property
    def read(self) -> tuple[str, ...]:
        """Those of them that read something of it, sorted."""
        return tuple(name for name in self.machines if self.rates[name] > 0)

    def __str__(self) -> str:
        what, did = _KEY_WORDS[self.key]
        if not self.rates:
            return f"no other machine has {what}"
        have, read = self.machines, self.read
        if len(have) == 1:
            return f"one machine has {what}: {have[0]}; {'it' if read else 'it never'} {did}"
        some = f" ({_listed(read)})" if read and len(read) < len(have) else ""
        many = f"{len(read) or 'none'} of the {len(have)} machines that have {what} ({_listed(have)})"
        return f"{many} {did}{some}"


@dataclasses.dataclass(frozen=True)
class Chain:
    """How a file comes to be used: the shortest chain from a unit or program that is likely to be read.

    Attributes
    ----------
    steps : tuple of (str, str, str)
        Source, kind (`vmrestorekit.traces.manifest.REFERENCE_KINDS`) and target; each target is the next
        source, the last one is the file.
    probability : float
        That something of the first source is read.
    """

    steps: tuple[tuple[str, str, str], ...]
    probability: float

    def __str__(self) -> str:
        first, *others = [f"{_KIND_WORDS[kind]} {target}" for _, kind, target in self.steps]
        told = ", which ".join([f"{self.steps[0][0]} {first}", *others])
        return f"{told} (that something of the first is read: {self.probability:.2f})"


@dataclasses.dataclass(frozen=True)
class OwnPast:
    """What the disk's own past says of a block.

    Attributes
    ----------
    vm : str
        The machine that this disk was, or was cloned from.
    boots : int
        How many of its boots are known.
    alike : float
        Share of what these read that lies where it did.
    unchanged : bool
        Whether the block is what it was.
    rate : float
        Share of the boots that read what was at its address.
    """

    vm: str
    boots: int
    alike: float
    unchanged: bool
    rate: float

    def __str__(self) -> str:
        return (
            f"the disk is known as that of {self.vm}: {self.alike:.0%} of what {_boots(self.boots)} of it "
            f"read lies where it did; {round(self.rate * self.boots)} of {self.boots} read this address, "
            f"whose content {'is the same' if self.unchanged else 'has changed'}"
        )


@dataclasses.dataclass(frozen=True)
class Contribution:
    """What a group of features does to the logit, the logarithm of the odds; +0.7 doubles the odds.

    Attributes
    ----------
    group : str
        Of `GROUPS` or `PAST_GROUPS`.
    share : float
        The mean change when the group becomes known, over all orders in which the groups may (the group's
        Shapley value). The shares add up to the logit less that of a block of which nothing is known.
    taken_away : float
        The change if this group were known last: what is lost without it. Near 0 where others say the same.
    """

    group: str
    share: float
    taken_away: float


@dataclasses.dataclass(frozen=True, repr=False)
class BlockExplanation:
    """Why a block is, or is not, expected to be read; as text, some plain sentences.

    Attributes
    ----------
    disk, block : int
        A 4 KiB block.
    path, package : str or None
        Of its file, None for none.
    position : int or None
        Number of the block in its file, from 0.
    probability : float
        Of being read before the boot ends, as `score_blocks` says.
    first_read_ns : float or None
        When that is expected, on the recording's clock since launch.
    evidence : dict of str to Met
        A machine of the disk's own lineage is not among the witnesses; see `past`.
    file_probability : float or None
        That anything of the file is read, by what other machines did.
    chain : Chain or None
        How the file comes to be used; None if nothing likely refers to it.
    users : tuple of str
        All that refers to the file at once, the likeliest first.
    past : OwnPast or None
        None if the disk is that of no machine learned from.
    contributions : tuple of Contribution
        To the answer by what other machines did, the greatest first.
    stranger_probability : float
        That answer. Without a past, it is `probability`.
    nothing_known : float
        What the probability would be if nothing of the block were known.
    past_contributions : tuple of Contribution
        To the answer of the model that weighs the own past against this; empty without a past, or where no
        machine had two boots to learn that from.
    """

    disk: int
    block: int
    path: str | None
    package: str | None
    position: int | None
    probability: float
    first_read_ns: float | None
    evidence: Mapping[str, Met]
    file_probability: float | None
    chain: Chain | None
    users: tuple[str, ...]
    past: OwnPast | None
    contributions: tuple[Contribution, ...]
    stranger_probability: float
    nothing_known: float
    past_contributions: tuple[Contribution, ...]

    def __str__(self) -> str:
        where = "of no file"
        if self.path is not None:
            package = f" (package {self.package})" if self.package else ""
            where = f"block {self.position} of {self.path}{package}"
        when = "" if self.first_read_ns is None else f", if so after about {self.first_read_ns / 1e9:.1f} s"
        told = [
            f"Block {self.block} of disk {self.disk} is {where}. "
            f"It is read before the boot ends with probability {self.probability:.2f}{when}."
        ]
        if self.past is not None:
            told.append(_sentence(self.past))
            if self.past_contributions:
                told.append(_sentence(_speaks(self.past_contributions)))
        if any(met.rates for met in self.evidence.values()):
            told += [_sentence(self.evidence[key]) for key in self._telling_keys()]
        else:
            told.append(
                "No other machine has this content, nor anything by the name of its file or directory."
            )
        if self.file_probability is not None:
            told.append(f"That anything of its file is read has probability {self.file_probability:.2f}.")
        if self.chain is not None:
            told.append(_sentence(self.chain))
        elif self.users:
            refer = (
                "one file refers to it" if len(self.users) == 1 else f"{len(self.users)} files refer to it"
            )
            told.append(
                _sentence(f"{refer} ({_listed(self.users)}), but no program or unit likely to be read")
            )
        others = (
            "" if self.past is None else f"by what others did it would be {self.stranger_probability:.2f}: "
        )
        told.append(_sentence(others + _speaks(self.contributions)))
        told.append(
            f"(Nothing known, it would be {self.nothing_known:.2f}. In parentheses: what each adds to the "
            f"logarithm of the odds; +0.7 doubles them.)"
        )
        return "\n".join(told)

    __repr__ = __str__

    def _telling_keys(self) -> list[str]:
        """Return the keys worth a sentence: the content, the most specific place, the most specific name."""
        told = ["content"]
        if self.path is not None:
            for keys in (("place", "name_place", "part"), ("file", "name", "package", "directory", "branch")):
                told.append(next((key for key in keys if self.evidence[key].rates), keys[0]))
        return told


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


def missed_and_wasted(predictor: BlockPredictor, boot: Boot, budget: float = 1.25) -> pl.DataFrame:
    """Tell, file by file, what of a boot's needs a prediction would not have staged, and what for nothing.

    Parameters
    ----------
    predictor : BlockPredictor
        Fitted, and not on this boot.
    boot : Boot
    budget : float
        How many 4 KiB blocks are staged, the most probable of all disks, as a multiple of those really read.

    Returns
    -------
    polars.DataFrame
        `MISSED_SCHEMA`, one row a file that something was read or staged of; the most missed blocks first, of
        as many the most wasted. ``met`` tells what was missed because nobody had it, ``read_elsewhere`` what
        because nobody wanted it; only a `LearnedPredictor` knows.

    Raises
    ------
    PredictError
        If the predictor is not fitted, the budget is no positive number, or the boot never ended or read
        nothing that the backup copy stores.
    """
    _expect_fitted(predictor)
    if not (isinstance(budget, float | int) and 0 < budget < math.inf):
        raise PredictError(f"budget: expected a positive number, times what the boot read; got {budget!r}")
    needed = needed_blocks(boot)
    scores = pl.concat(
        cache_block_scores(predictor.score_blocks(manifest, disk), manifest, MANIFEST_BLOCK_BYTES)
        for disk, manifest in enumerate(boot.manifests)
    )
    staged = np.zeros(scores.height, bool)
    staged[staging_order(scores, round(budget * int(needed.read.sum())))] = True
    blocks = pl.DataFrame(
        {
            "disk": needed.disk,
            "file": pl.concat([manifest.blocks["file"] for manifest in boot.manifests]),
            "missed": needed.read & ~staged,
            "wasted": staged & ~needed.read,
            "found": staged & needed.read,
            "probability": scores["probability"],
        }
    )
    counted = ("missed", "wasted", "found")
    table = (
        blocks.filter(needed.read | staged)
        .group_by("disk", "file")
        .agg(pl.col(*counted).sum(), pl.col("probability").mean())
        .join(_files_of(predictor, boot), on=["disk", "file"], how="left")
        .with_columns(pl.col("path_class").fill_null("no file"))
        .sort("missed", "wasted", "disk", "path", descending=[True, True, False, False])
    )
    return table.match_to_schema(MISSED_SCHEMA, integer_cast="upcast", extra_columns="ignore")


def missed_by_class(table: pl.DataFrame) -> pl.DataFrame:
    """Sum up what `missed_and_wasted` returned by what paths say of their files' purposes.

    Returns
    -------
    polars.DataFrame
        ``path_class``; ``files``; ``missed``, ``missed_unmet`` (of files that no machine learned from has),
        ``missed_unread`` (of files that some have, and none read), ``wasted``, ``found``: 4 KiB blocks; in
        the order of `missed_and_wasted`.
    """
    unmet = pl.col("met").eq(False).fill_null(False)
    unread = pl.col("met") & ~pl.col("read_elsewhere")
    return (
        table.group_by("path_class")
        .agg(
            files=pl.col("path").count(),
            missed=pl.col("missed").sum(),
            missed_unmet=pl.col("missed").filter(unmet).sum(),
            missed_unread=pl.col("missed").filter(unread).sum(),
            wasted=pl.col("wasted").sum(),
            found=pl.col("found").sum(),
        )
        .sort("missed", "wasted", "path_class", descending=[True, True, False])
    )


def _files_of(predictor: BlockPredictor, boot: Boot) -> pl.DataFrame:
    """Return the files of all disks, as ``disk`` and ``file``, with what is said of them."""
    found = []
    for disk, manifest in enumerate(boot.manifests):
        told = pl.DataFrame(schema={"file": pl.Int32, "met": pl.Boolean, "read_elsewhere": pl.Boolean})
        if isinstance(predictor, LearnedPredictor):
            described = describe_disk(manifest)
            rows = described.first_rows
            table = predictor.file_reads_.evidence.tables["file"]
            met = table.rows(described.keys["file"][rows])
            read = table.totals[met, 1] > 0
            told = pl.DataFrame([described.file[rows], met < table.known.size, read], schema=told.schema)
        named = _named_classes(manifest.files).with_columns(
            disk=pl.lit(disk, pl.Int64), file=pl.int_range(pl.len(), dtype=pl.Int32)
        )
        found.append(named.join(told, on="file", how="left"))
    return pl.concat(found).select("disk", "file", "path", "path_class", "package", "met", "read_elsewhere")


def _named_classes(files: pl.DataFrame) -> pl.DataFrame:
    names = pl.Series([*(name for name, _ in PATH_CLASSES), "other"], dtype=pl.String)
    return files.with_columns(path_class=names[files.select(number=path_class(pl.col("path")))["number"]])


def _expect_fitted(predictor: Any) -> None:
    if not isinstance(predictor, BlockPredictor):
        raise PredictError(f"predictor: expected a fitted predictor, got {type(predictor).__name__}")
    try:
        check_is_fitted(predictor)
    except NotFittedError:
        raise PredictError(
            f"predictor: expected a fitted one; this {type(predictor).__name__} has not learned yet: call fit"
        ) from None


def _expect_learned(predictor: Any) -> LearnedPredictor:
    if not isinstance(predictor, LearnedPredictor):
        raise PredictError(
            f"predictor: expected a LearnedPredictor, whose answers can be explained; "
            f"got {type(predictor).__name__}"
        )
    _expect_fitted(predictor)
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
            kind in _KIND_WORDS and source != target
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
    named = _named_classes(manifest.files).filter(pl.col("path_class").is_in(_STARTERS))
    return {path for path in named["path"] if likely.get(path, 0) >= LIKELY}


def _speaks(contributions: Iterable[Contribution]) -> str:
    said = []
    for words, sign in (("for", 1), ("against", -1)):
        told = [f"{each.group} ({each.share:+.1f})" for each in contributions if each.share * sign >= _SLIGHT]
        if told:
            said.append(f"{words} it speaks {', '.join(told)}")
    return "; ".join(said) or "nothing speaks for or against it"


def _sentence(told: object) -> str:
    words = str(told)
    return f"{words[0].upper()}{words[1:]}."


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _boots(count: int) -> str:
    return "one boot" if count == 1 else f"{count} boots"
