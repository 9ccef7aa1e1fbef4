"""Build and record many guests unattended: what is there is kept, what fails is told, the others go on."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from vmrestorekit.lab.guests.guest import build_image, clone_image, describe_image
from vmrestorekit.lab.guests.spec import GuestSpec
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.progress import Report
from vmrestorekit.lab.recording.chain import back_up_chain
from vmrestorekit.lab.recording.history import steps_of
from vmrestorekit.lab.recording.record import record_boots
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
    work_dir: Path,
    chain: Collection[str] = (),
    keep: bool = False,
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
    work_dir : Path
        For images, unpacked packages, and the writes of each boot.
    chain : collection of str
        Of these guests, also back up the disk before each boot and save where the blocks of the copies lie.
    keep : bool
        Whether the image of a guest, and the writes of its boots, stay in the work directory when everything
        of it is recorded, and of those that are clones of it.
    accelerator : {"kvm", "tcg"}, optional
        As of `record_boots`.
    report : Report, optional

    Returns
    -------
    list of GuestOutcome
        In the order in which they were recorded: clones come last.
    """
    report = report or Report()
    outcomes = []
    in_order = _clones_last(specs)
    for place, path in enumerate(in_order):
        name, problem, before = path.name, "", list[str]()
        try:
            spec = GuestSpec.load(path)
            name, before = spec.name, _boots(corpus, spec.name)
            _record(spec, path, corpus, work_dir, spec.name in chain, accelerator, report)
            if not keep:
                _forget(spec, in_order[place + 1 :], work_dir)
        except (ValueError, OSError) as error:  # what the rooms raise, each with one sentence
            problem = str(error)
            report.say(f"{name}: {problem}")
        # one that failed may have recorded some
        recorded = tuple(boot for boot in _boots(corpus, name) if boot not in before)
        outcomes.append(GuestOutcome(name, recorded, problem))
    return outcomes


def _clones_last(specs: Sequence[Path]) -> list[Path]:
    """Put clones behind what they are clones of; one that cannot be read stays where it is."""
    return sorted(specs, key=lambda path: _readable(path) and bool(GuestSpec.load(path).base))


def _readable(path: Path) -> bool:
    try:
        GuestSpec.load(path)
    except (ValueError, OSError):
        return False
    return True


def _record(
    spec: GuestSpec,
    path: Path,
    corpus: Path,
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
    lacking = {step.boot for step in steps_of(spec.history)} - set(_boots(corpus, spec.name))
    chain = chain and (bool(lacking) or not (corpus / spec.name / LAYOUTS_FILE).exists())
    if not lacking and not chain:
        report.say(f"{spec.name}: everything is there, kept")
        return
    image = _image(spec, path, work_dir, report)
    record_boots(image, None, corpus, accelerator=accelerator, report=report)
    if chain:
        back_up_chain(image, corpus, report=report)


def _image(spec: GuestSpec, path: Path, work_dir: Path, report: Report) -> Path:
    """Return the image of a guest, built now or before; that of a clone is a copy of its base."""
    image = work_dir / f"{spec.name}.img"
    if image.exists() and describe_image(image).get("spec_digest") == spec.digest():
        return image
    if not spec.base:
        build_image(spec, image, work_dir / "packages", report)
        return image
    golden = GuestSpec.load(path.with_name(f"{spec.base}.toml"))
    clone_image(spec, _image(golden, path.with_name(f"{spec.base}.toml"), work_dir, report), image, report)
    return image


def _forget(spec: GuestSpec, to_come: Sequence[Path], work_dir: Path) -> None:
    """Remove what was needed to record a guest; a golden image stays as long as clones of it are to come."""
    needed = {GuestSpec.load(path).lineage for path in to_come if _readable(path)}
    for name in {spec.name, spec.lineage} - needed:
        for path in work_dir.glob(f"{name}.img*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _machine(corpus: Path, name: str) -> RecordedVM | None:
    try:
        recorded = load_corpus(corpus)
    except FileNotFoundError:
        return None
    return recorded.get(name)


def _boots(corpus: Path, name: str) -> list[str]:
    machine = _machine(corpus, name)
    return [boot.boot for boot in machine.recordings] if machine else []
