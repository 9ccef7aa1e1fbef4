"""The shared file system: the logical source as read-only files, through FUSE (mfusepy).

FUSE runs in threads of its own; a read waits there for the agent, which answers in the event loop. What is
read as a file goes through the same read cache, with the same priorities, as what is read through NBD.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes.util
import errno
import logging
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from vmrestorekit.backup.records import StoreError
from vmrestorekit.lab.media.file_tree import Disk, FileTree
from vmrestorekit.lab.media.media_agent import MediaAgent
from vmrestorekit.lab.programs import LabError, find_program, run

__all__ = ["shared_files"]

_log = logging.getLogger(__name__)
_MOUNT_SECONDS = 15.0
_UNMOUNT_SECONDS = 3.0
_MAX_THREADS = 32  # reads that wait at the same time
_FUSE_PROGRAMS = ("fusermount3", "fusermount")


@contextlib.asynccontextmanager
async def shared_files(agent: MediaAgent, vm: str, mount: Path) -> AsyncIterator[FileTree]:
    """Show the agent's disks and configuration files below ``mount``; it is unmounted afterwards.

    A folder that is not there is made, and removed afterwards. What an agent that was killed left mounted is
    unmounted first. Whoever still reads when it ends gets errors.

    Raises
    ------
    LabError
        If FUSE is missing, the mount point is no empty folder, or it cannot be mounted.
    """
    mount = mount.absolute()
    fuse_class = _fuse_class()
    tree = FileTree(agent.source, vm)
    made = await asyncio.to_thread(_prepare, mount)
    operations = _Operations(agent, tree, asyncio.get_running_loop())
    thread = _FuseThread(fuse_class, operations, mount)
    try:
        thread.start()
        await asyncio.to_thread(thread.wait_until_mounted)
        _log.info("the logical source is mounted at %s", mount, extra={"mount": str(mount)})
        try:
            yield tree
        finally:
            await asyncio.to_thread(thread.end)
    finally:
        if made:
            with contextlib.suppress(OSError):  # in use, or no longer ours
                mount.rmdir()


class _Operations:
    """What FUSE calls, in any of its threads; an OSError is its errno there."""

    use_ns = True

    def __init__(self, agent: MediaAgent, tree: FileTree, loop: asyncio.AbstractEventLoop) -> None:
        self.mounted = threading.Event()
        self.closing = threading.Event()
        self._agent, self._tree, self._loop = agent, tree, loop

    def init_with_config(self, connection: Any, config: Any) -> None:
        self.mounted.set()

    def getattr(self, path: str, handle: int | None = None) -> dict[str, int]:
        return self._tree.attributes(path)

    def readdir(self, path: str, handle: int) -> list[str]:
        return [".", "..", *self._tree.names(path)]

    def open(self, path: str, flags: int) -> int:
        self._tree.file(path)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, "the logical source is read-only")
        return 0

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        file = self._tree.file(path)
        length = min(size, file.size - offset)
        if length <= 0:
            return b""
        if isinstance(file, Disk):
            return self._from_agent(file.number, offset, length)
        try:
            return bytes(file.read(offset, length))
        except StoreError as error:
            _log.warning("a read of %s failed: %s", path, error)
            raise OSError(errno.EIO, "damaged") from error

    def _from_agent(self, disk: int, offset: int, length: int) -> bytes:
        reading = asyncio.run_coroutine_threadsafe(self._agent.read(disk, offset, length), self._loop)
        while True:
            try:
                return reading.result(timeout=1.0)
            except concurrent.futures.CancelledError:
                raise OSError(errno.ESHUTDOWN, "the media agent ends") from None
            except TimeoutError as error:
                if reading.done():  # it was the agent's own
                    raise OSError(errno.EIO, str(error)) from error
                # the loop may have gone, and nobody would ever answer
                if self.closing.is_set() or self._loop.is_closed():
                    reading.cancel()
                    raise OSError(errno.ESHUTDOWN, "the media agent ends") from error

    def lseek(self, path: str, offset: int, whence: int) -> int:
        file = self._tree.file(path)
        if isinstance(file, Disk):
            return file.seek(offset, whence)
        if not 0 <= offset < file.size:
            raise OSError(errno.ENXIO, "beyond the file")
        return offset if whence == os.SEEK_DATA else file.size

    def statfs(self, path: str) -> dict[str, int]:
        total = sum(self._tree.listing().values())
        return {
            "f_bsize": 4096,
            "f_frsize": 4096,
            "f_blocks": -(-total // 4096),
            "f_bavail": 0,
            "f_namemax": 255,
        }


class _FuseThread(threading.Thread):
    """Runs FUSE until its file system is unmounted."""

    def __init__(self, fuse_class: Any, operations: _Operations, mount: Path) -> None:
        # a daemon: what others keep open must not keep this process alive
        super().__init__(name="shared files", daemon=True)
        self._fuse_class, self._operations, self._mount = fuse_class, operations, mount
        self._folder = os.getcwd()
        self._problem: BaseException | None = None

    def run(self) -> None:
        try:
            # each read reaches the agent as the host asked for it: no read-ahead, no second cache
            options: dict[str, bool | int] = {
                "foreground": True,
                "ro": True,
                "direct_io": True,
                "default_permissions": True,
            }
            if self._fuse_class.bounds_threads:
                options |= {"max_threads": _MAX_THREADS, "max_idle_threads": _MAX_THREADS}
            self._fuse_class(self._operations, str(self._mount), fsname="vmrestorekit", **options)
        except BaseException as error:
            self._problem = error

    def wait_until_mounted(self) -> None:
        """Return once files can be read; LabError if that cannot be."""
        mounted = self._operations.mounted
        for _ in range(int(_MOUNT_SECONDS / 0.1)):
            if mounted.wait(0.1):
                os.chdir(self._folder)  # libfuse goes to the root folder, and takes the whole process along
                return
            if not self.is_alive():
                raise LabError(
                    f"{self._mount}: FUSE could not mount the shared file system ({self._problem})"
                )
        self.end()
        raise LabError(
            f"{self._mount}: FUSE did not mount the shared file system within {_MOUNT_SECONDS:.0f} s"
        )

    def end(self) -> None:
        """Unmount; who still has a file open keeps it, and gets errors."""
        self._operations.closing.set()
        try:
            unmount(self._mount)
        except LabError as busy:
            if self.is_alive():
                _log.warning("unmounted %s while it was in use: %s", self._mount, busy)
                unmount(self._mount, lazily=True)
        self.join(_UNMOUNT_SECONDS)


def unmount(mount: Path, *, lazily: bool = False) -> None:
    """Unmount a FUSE file system; LabError if it is in use, unless ``lazily``."""
    program = next((name for name in _FUSE_PROGRAMS if find_program(name)), "fusermount3")
    run([program, "-u", *(["-z"] if lazily else []), mount], timeout_s=30)


def _prepare(mount: Path) -> bool:
    """Make sure that there is an empty folder; return whether it was made."""
    try:
        inside = next(mount.iterdir(), None)
    except FileNotFoundError:
        if not mount.parent.is_dir():
            raise LabError(f"{mount}: expected a mount point in a folder that is there") from None
        mount.mkdir(mode=0o700)
        return True
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise LabError(f"{mount}: expected an empty folder as mount point: {error.strerror}") from error
        _log.warning("unmounting what a media agent that was killed left at %s", mount)
        unmount(mount, lazily=True)
        return _prepare(mount)
    if inside is not None:
        raise LabError(f"{mount}: expected an empty folder as mount point, there is {inside.name} in it")
    if os.path.ismount(mount):
        raise LabError(f"{mount}: expected a mount point where nothing is mounted")
    return False


def _fuse_class() -> Any:
    """Return mfusepy's class with the one operation that it leaves out."""
    lacking = "mounting needs FUSE: install with 'sudo apt-get install fuse3'"
    if not any(map(find_program, _FUSE_PROGRAMS)):
        raise LabError(f"{lacking}; there is no fusermount3")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise LabError(f"{lacking}; /dev/fuse is missing or may not be opened")
    if ctypes.util.find_library("fuse3"):  # the only one that can tell holes
        os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
    try:
        import mfusepy  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise LabError("mounting needs mfusepy: install with pip install 'vmrestorekit[lab]'") from error
    except (OSError, AttributeError) as error:  # so it says that there is no library, or one of another kind
        raise LabError(f"{lacking}; {error}") from error

    class Fuse(mfusepy.FUSE):  # type: ignore[misc]
        bounds_threads = (mfusepy.fuse_version_major, mfusepy.fuse_version_minor) >= (3, 12)

        def lseek(self, path: bytes, offset: int, whence: int, handle: Any) -> int:
            found: int = self.operations.lseek(path.decode(self.encoding, self.errors), offset, whence)
            return found

    return Fuse
