"""Build and record many guests unattended: what is there is kept, what fails is told, the others go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vmrestorekit.lab.chain import back_up_chain
from vmrestorekit.lab.guest import build_image, describe_image
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.record import record_boots
from vmrestorekit.lab.spec import GuestSpec
from vmrestorekit.traces.corpus import RecordedVM, load_corpus

__all__ = ["GuestOutcome", "record_corpus", "specs_in"]


@dataclasses.dataclass(frozen=True)
class GuestOutcome:
    """What became of one guest.

    Attributes
    ----------
    guest : str
        Its name, or the file of a description that cannot be read.
    recorded : tuple of str
        Boots that were added to the corpus now.
    problem : str
        Why it went no further; empty if everything is there.
    """

    guest: str
    recorded: tuple[str, ...] = ()
    problem: str = ""


def specs_in(paths: Sequence[Path]) -> list[Path]:
    """Return the descriptions that are named, and those in folders that are named, by name.

    Raises
    ------
    LabError
        If there is none.
    """
    found = [each for path in paths for each in (sorted(path.glob("*.toml")) if path.is_dir() else [path])]
    if not found:
        raise LabError(
            f"expected descriptions of guests, *.toml, in {', '.join(map(str, paths))}; found none"
        )
    return found


def record_corpus(
    specs: Sequence[Path],
    corpus: Path,
    *,
    boots: int,
    work_dir: Path,
    chain: bool = False,
    accelerator: str | None = None,
    report: Report | None = None,
) -> list[GuestOutcome]:
    """Build each guest and record its boots into a corpus; the same call goes on after an interruption.

    A guest whose boots are all there is not built again. One that fails does not keep the others from being
    recorded.

    Parameters
    ----------
    specs : sequence of Path
        Descriptions of guests.
    corpus : Path
        Created if needed.
    boots : int
        Record ``boot-1`` to ``boot-<boots>`` of each.
    work_dir : Path
        For images, unpacked packages, and the writes of each boot; kept for the next call.
    chain : bool
        Also back up the disk before each boot and save where the blocks of the copies lie.
    accelerator : {"kvm", "tcg"}, optional
        As of `record_boots`.
    report : Report, optional

    Returns
    -------
    list of GuestOutcome
        In the order of the descriptions.
    """
    report = report or Report()
    outcomes = []
    for path in specs:
        name, problem, before = path.name, "", list[str]()
        try:
            spec = GuestSpec.load(path)
            name, before = spec.name, _boots(corpus, spec.name)
            _record(spec, corpus, boots, work_dir, chain, accelerator, report)
        except (ValueError, OSError) as error:  # what the rooms raise, each with one sentence
            problem = str(error)
            report.say(f"{name}: {problem}")
        # one that failed may have recorded some
        recorded = tuple(boot for boot in _boots(corpus, name) if boot not in before)
        outcomes.append(GuestOutcome(name, recorded, problem))
    return outcomes


def _record(
    spec: GuestSpec,
    corpus: Path,
    boots: int,
    work_dir: Path,
    chain: bool,
    accelerator: str | None,
    report: Report,
) -> None:
    from vmrestorekit.backup.copy_layout import LAYOUTS_FILE

    there = _machine(corpus, spec.name)
    if there is not None and there.description.get("spec_digest") != spec.digest():
        raise LabError(
            f"{corpus}: has boots of {spec.name} from another description than this one; record into an "
            "empty corpus"
        )
    wanted = {f"boot-{number}" for number in range(1, boots + 1)}
    lacking = wanted - set(_boots(corpus, spec.name))
    chain = chain and (bool(lacking) or not (corpus / spec.name / LAYOUTS_FILE).exists())
    if not lacking and not chain:
        report.say(f"{spec.name}: everything is there, kept")
        return
    image = work_dir / f"{spec.name}.img"
    if not image.exists() or describe_image(image).get("spec_digest") != spec.digest():
        build_image(spec, image, work_dir / "packages", report)
    record_boots(image, boots, corpus, accelerator=accelerator, report=report)
    if chain:
        back_up_chain(image, corpus, report=report)


def _machine(corpus: Path, name: str) -> RecordedVM | None:
    try:
        recorded = load_corpus(corpus)
    except FileNotFoundError:
        return None
    return recorded.get(name)


def _boots(corpus: Path, name: str) -> list[str]:
    machine = _machine(corpus, name)
    return [boot.boot for boot in machine.boots] if machine else []
