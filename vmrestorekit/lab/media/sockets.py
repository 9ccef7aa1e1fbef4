"""Unix sockets that only this user may open, gone afterwards, with one sentence where that cannot be."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from vmrestorekit.lab.programs import LabError

__all__ = ["unix_listener"]

_log = logging.getLogger(__name__)
_LONGEST = 107  # bytes of a Unix socket's path on Linux


@contextlib.contextmanager
def unix_listener(path: Path) -> Iterator[socket.socket]:
    """Bind a new Unix socket of mode 0600; it is closed and removed afterwards.

    Raises
    ------
    LabError
        If something is at the path, or no socket can be there.
    """
    if len(os.fsencode(path)) > _LONGEST:
        raise LabError(f"{path}: expected the path of a socket to have at most {_LONGEST} bytes, got more")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # on Linux the mode set before bind is the one the socket is born with: never open to others
        os.fchmod(listener.fileno(), 0o600)
        try:
            _remove_if_dead(path)
            listener.bind(os.fspath(path))
        except OSError as error:
            reason = error.strerror or str(error)
            raise LabError(f"expected to create a socket at {path}: {reason}") from error
        mine = path.lstat().st_ino
        try:
            yield listener
        finally:
            # what somebody else put in its place stays
            if os.path.lexists(path) and path.lstat().st_ino == mine:
                path.unlink()
    finally:
        listener.close()


def _remove_if_dead(path: Path) -> None:
    """Remove the socket that a server left which was killed: nobody listens there."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            _log.warning("removed %s, which a server that was killed had left", path)
            path.unlink()
