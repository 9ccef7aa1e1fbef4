"""Reading one file out of a backup copy, without restoring anything else; may be stopped."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets

from vmrestorekit.backup.browse import CopyContents
from vmrestorekit.backup.records import StoreError
from vmrestorekit.show.controls import button
from vmrestorekit.show.units import size
from vmrestorekit.traces.manifest import ManifestError

__all__ = ["Extraction"]


class Extraction(widgets.HBox):  # type: ignore[misc]
    """A row of controls that writes a file of a copy beside the notebook.

    Parameters
    ----------
    announce : callable
        Called with a sentence whenever there is something to say.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce
        self._contents: CopyContents | None = None
        self._file: tuple[int, str, int] | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.name = widgets.Text(
            description="Write it to",
            tooltip="Name of the new file beside the notebook",
            layout={"width": "300px"},
            style={"description_width": "70px"},
        )
        self.button = button("Extract", "Read this one file out of the backup copy", self.start, width="90px")
        self.stop_button = button("Stop", "Stop extracting", self._stopped.set, width="70px", disabled=True)
        self.progress = widgets.FloatProgress(
            max=1.0,
            description="Extracted",
            tooltip="How much of the file is written",
            layout={"width": "220px"},
        )
        super().__init__(
            [self.name, self.button, self.stop_button, self.progress],
            layout={"flex_flow": "row wrap", "grid_gap": "4px 8px", "display": "none"},
        )

    def offer(self, contents: CopyContents | None, disk: int = -1, path: str = "", bytes_: int = 0) -> None:
        """Offer a file of a copy; without a copy there is nothing to extract, and the row is hidden."""
        self._contents = contents
        self._file = (disk, path, bytes_) if path else None
        self.layout.display = "none" if contents is None else "flex"
        self.button.disabled = self._file is None
        if self._file is not None:
            self.name.value = path.rpartition("/")[2]

    def start(self) -> None:
        """Begin to extract what is offered."""
        if self._contents is None or self._file is None or (self._thread and self._thread.is_alive()):
            return
        out = Path(self.name.value)
        if not self.name.value or out.exists():
            self._announce(f"Not extracted: expected the name of a new file, got {self.name.value!r}.")
            return
        self._stopped.clear()
        self.stop_button.disabled, self.button.disabled = False, True
        arguments = (self._contents, *self._file, out)
        self._thread = threading.Thread(target=self._extract, args=arguments, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until what was begun has ended."""
        if self._thread is not None:
            self._thread.join()

    def _extract(self, contents: CopyContents, disk: int, path: str, bytes_: int, out: Path) -> None:
        partial, done = out.with_name(f".{out.name}.partial"), 0
        try:
            with open(partial, "wb") as file:
                for piece in contents.read(path, disk):
                    if self._stopped.is_set():
                        self._announce(f"Stopped; nothing was written to {out.name}.")
                        return
                    done += file.write(piece)
                    self.progress.value = done / max(bytes_, 1)
            os.replace(partial, out)
            self.progress.value = 1.0
            self._announce(f"Extracted {path} to {out.name}: {size(done)}.")
        except (StoreError, ManifestError, OSError) as error:
            self._announce(f"Not extracted: {error}")
        finally:
            partial.unlink(missing_ok=True)
            self.stop_button.disabled, self.button.disabled = True, False
