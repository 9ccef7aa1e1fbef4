"""What happens to a recorded machine, boot by boot, and the state of its disks before each of them."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vmrestorekit.lab.guests.disks import disk_paths
from vmrestorekit.lab.programs import LabError
from vmrestorekit.lab.recording.overlay import Overlay

__all__ = ["DiskStates", "Step", "steps_of"]


@dataclasses.dataclass(frozen=True)
class Step:
    """One boot to record.

    Attributes
    ----------
    boot : str
        Its name.
    number : int
        Of the boot, from 1; the same for one that is recorded again.
    follows : {"build", "shutdown", "crash", "change"}
        What comes before it.
    repeats : str
        Name of the boot it records again; or empty.
    ends : {"shutdown", "crash"}
        How the machine goes.
    """

    boot: str
    number: int
    follows: str
    repeats: str = ""
    ends: str = "shutdown"


def steps_of(history: Sequence[str]) -> list[Step]:
    """Return the boots of a history such as ``["build", "shutdown", "again", "crash"]``; see `GuestSpec`."""
    steps: list[Step] = []
    for entry in history:
        last = steps[-1] if steps else None
        if entry == "again":
            assert last is not None
            again = dataclasses.replace(last, boot=f"{last.boot}-again", repeats=last.repeats or last.boot)
            steps.append(again)
            continue
        number = last.number + 1 if last else 1
        if entry == "crash":  # the boot before, not its repetition, is the one whose writes count
            place = next(at for at, step in enumerate(steps) if step.boot == f"boot-{number - 1}")
            steps[place] = dataclasses.replace(steps[place], ends="crash")
        steps.append(Step(f"boot-{number}", number, entry))
    return steps


class DiskStates:
    """The disks of a machine before each boot, made from its image and the writes of the boots before.

    Parameters
    ----------
    image : Path
        The first disk; others as `disk_paths` says. Never written.
    disks : int
    work_dir : Path
        For the writes, and images of the states.
    changes_before : collection of int
        Numbers of the boots before which a change is made.
    """

    def __init__(self, image: Path, disks: int, work_dir: Path, changes_before: Sequence[int] = ()) -> None:
        self._images = disk_paths(image, disks)
        self.work_dir = work_dir
        self._changes_before = frozenset(changes_before)

    def expect_same_image(self, *, first: bool) -> None:
        """Forget everything of another image before the first boot; raise LabError before a later one."""
        about = json.dumps(
            [{"size": each.stat().st_size, "modified_ns": each.stat().st_mtime_ns} for each in self._images]
        )
        note = self.work_dir / "image.json"
        if note.exists() and note.read_text() == about:
            return
        if not first:
            raise LabError(
                f"{self._images[0]} has changed since its first boot was recorded: "
                "record into an empty corpus"
            )
        for pattern in ("*boot-*", "*change-*"):
            for stale in self.work_dir.glob(pattern):
                stale.unlink()
        note.write_text(about)

    def before_boot(self, number: int) -> list[Path]:
        """Return the disks as they are before a boot.

        Raises
        ------
        LabError
            If the writes of a boot before it, or of a change, are missing.
        """
        if number in self._changes_before:
            return self._applied(
                lambda: self.before_change(number), f"change-{number}", f"before-boot-{number}"
            )
        return self._after_boot(number - 1, f"before-boot-{number}")

    def before_change(self, number: int) -> list[Path]:
        """Return the disks as they are before the change that comes before a boot; errors as above."""
        return self._after_boot(number - 1, f"before-change-{number}")

    def _after_boot(self, number: int, name: str) -> list[Path]:
        if number == 0:
            return self._images
        return self._applied(lambda: self.before_boot(number), f"boot-{number}", name)

    @contextlib.contextmanager
    def overlays(self, disks: Sequence[Path], writes: str) -> Iterator[list[Overlay]]:
        """Open the disks so that writes go to files of this name; they are lost unless saved."""
        self.forget(writes)
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(Overlay(disk, path))
                for disk, path in zip(disks, self._writes(writes), strict=True)
            ]

    def forget(self, writes: str) -> None:
        """Remove the writes of a boot or a change whose recording was interrupted, and what came of them."""
        for path in self._writes(writes):
            for leftover in (path, path.with_name(path.name + ".state")):
                leftover.unlink(missing_ok=True)
        kind, number = writes.split("-")[:2]
        made = [f"before-boot-{number}"]
        if kind == "boot":
            made = [f"before-boot-{int(number) + 1}", f"before-change-{int(number) + 1}"]
        for path in itertools.chain.from_iterable(map(self._states, made)):
            path.unlink(missing_ok=True)

    def has(self, writes: str) -> bool:
        """Whether the writes of a boot or a change are there, all of them."""
        return all(path.with_name(path.name + ".state").exists() for path in self._writes(writes))

    def discard_states(self) -> None:
        """Remove the images of states; they are made anew from the writes when they are asked for."""
        for pattern in ("before-boot-*.img*", "before-change-*.img*"):
            for path in self.work_dir.glob(pattern):
                path.unlink()

    def _writes(self, name: str) -> list[Path]:
        return disk_paths(self.work_dir / f"{name}.writes", len(self._images))

    def _states(self, name: str) -> list[Path]:
        return disk_paths(self.work_dir / f"{name}.img", len(self._images))

    def _applied(self, before: Callable[[], list[Path]], writes: str, name: str) -> list[Path]:
        states = self._states(name)
        if all(state.exists() for state in states):
            return states
        if not self.has(writes):
            raise LabError(
                f"the disks {name.replace('-', ' ', 1)} have to be made from the writes of {writes}, and "
                f"there are none in {self.work_dir}: record into an empty corpus, from the first boot on"
            )
        for disk, path, state in zip(before(), self._writes(writes), states, strict=True):
            with Overlay(disk, path) as overlay:
                overlay.apply(state)
        return states
