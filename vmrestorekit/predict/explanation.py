"""What is known of why a block is expected to be read, and how it is said in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

__all__ = ["BlockExplanation", "Chain", "Contribution", "Met", "OwnPast"]

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
_NAMED = 6  # machines that a sentence names
_SLIGHT = 0.05  # contributions that a sentence leaves out


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
    looked_at : bool
        Whether the model of blocks was asked at all. Only blocks of files that are likely enough to be read
        are looked at (`vmrestorekit.predict.asked_disk`); the others get next to nothing, whatever it says.
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
        That answer. Without a past, it is `probability` if the block was looked at.
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
    looked_at: bool
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
            if self.past_contributions and self.looked_at:
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
        return "\n".join([*told, *(self._what_speaks() if self.looked_at else [self._not_looked_at()])])

    __repr__ = __str__

    def _what_speaks(self) -> list[str]:
        others = (
            "" if self.past is None else f"by what others did it would be {self.stranger_probability:.2f}: "
        )
        return [
            _sentence(others + _speaks(self.contributions)),
            f"(Nothing known, it would be {self.nothing_known:.2f}. In parentheses: what each adds to the "
            f"logarithm of the odds; +0.7 doubles them.)",
        ]

    def _not_looked_at(self) -> str:
        if self.path is None:
            return (
                "The block itself was not looked at, and gets next to nothing: of those of no file, only "
                "what another machine has, or an earlier boot read, is looked at, and nothing that was freed."
            )
        return (
            "The block itself was not looked at, and gets next to nothing: only files that are likely enough "
            "to be read are looked into, and this one is not."
        )

    def _telling_keys(self) -> list[str]:
        """Return the keys worth a sentence: the content, the most specific place, the most specific name."""
        told = ["content"]
        if self.path is not None:
            for keys in (("place", "name_place", "part"), ("file", "name", "package", "directory", "branch")):
                told.append(next((key for key in keys if self.evidence[key].rates), keys[0]))
        return told


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
