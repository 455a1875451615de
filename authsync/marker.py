"""The marker ``.authsync.json``: what the folder last was, and a lock that tells whether somebody runs in it.

It is written in place, as one block of a fixed size, so that the lock on it stays and no reader sees half of it.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from authsync.core.names import MARKER
from authsync.core.reconcile import Trace
from authsync.errors import FolderError, OwnedError

_BLOCK_BYTES = 4096
"""One write of so many bytes replaces another: shorter contents are padded with blanks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The contents of the marker."""

    session: str
    owner: str | None
    token: int = 0
    restoring: bool = False
    clean: bool = False
    revision: int = 0
    digest: bytes = b""
    host: str = ""
    boot_id: str = ""
    place: str = ""
    """Device and inode of the marker's own file: a copy of the folder has another one."""

    def trace(self, session_id: str) -> Trace | None:
        """What this tells ``session_id``; a half-made restore counts whosever it is."""
        if self.restoring:
            return Trace(restoring=True)
        if self.session != session_id:
            return None
        return Trace(owner=self.owner, clean=self.clean, revision=self.revision, digest=self.digest)


class Marker:
    """The marker of one folder, with or without its lock."""

    def __init__(self, root: Path) -> None:
        self._path = root / MARKER
        self._fd: int | None = None
        self._last: Mark | None = None

    def read(self) -> Mark | None:
        """The contents; None where there is no marker, or no readable one."""
        try:
            raw: Any = json.loads(self._path.read_bytes())
            return Mark(
                session=str(raw["session"]),
                owner=raw["owner"],
                token=int(raw["token"]),
                restoring=bool(raw["restoring"]),
                clean=bool(raw["clean"]),
                revision=int(raw["revision"]),
                digest=bytes.fromhex(raw["digest"]),
                host=str(raw["host"]),
                boot_id=str(raw["boot_id"]),
                place=str(raw["place"]),
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FolderError(f"the marker {self._path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError):
            return None  # not ours, or torn by a crash of the machine: as good as none

    def lock(self) -> None:
        """Lock the marker for as long as this process lives, making it if need be.

        Raises:
            OwnedError: another process runs in this folder.
        """
        self.unlock()
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise FolderError(
                f"the marker {self._path} cannot be written: {error.strerror}",
                hint=f"make the folder writable for uid {os.geteuid()}",
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise OwnedError(
                f"another authsync runs in the folder {self._path.parent}",
                hint="stop it first, or name another folder with --dir",
            ) from error
        self._fd = fd

    @property
    def place(self) -> str:
        """Device and inode of the locked file; empty without the lock."""
        if self._fd is None:
            return ""
        status = os.fstat(self._fd)
        return f"{status.st_dev}:{status.st_ino}"

    def unlock(self) -> None:
        """Give the lock back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def restore_if_gone(self) -> None:
        """Make, lock and fill the marker anew where the bot removed it, with its folder or alone."""
        if self._is_gone():
            self.lock()
            if self._last is not None:
                self.write(self._last)

    def _is_gone(self) -> bool:
        if self._fd is None or not self._path.parent.is_dir():
            return False
        try:
            return os.stat(self._path, follow_symlinks=False).st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return True

    def write(self, mark: Mark) -> None:
        """Write the contents in place.

        Raises:
            FolderError: the folder cannot be written.
        """
        if self._is_gone():
            self.lock()
        mark = self._last = replace(mark, place=self.place)
        text = json.dumps(
            {
                "session": mark.session,
                "owner": mark.owner,
                "token": mark.token,
                "restoring": mark.restoring,
                "clean": mark.clean,
                "revision": mark.revision,
                "digest": mark.digest.hex(),
                "host": mark.host,
                "boot_id": mark.boot_id,
                "place": mark.place,
            },
            ensure_ascii=False,
        ).encode()
        try:
            if self._fd is None:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    os.pwrite(fd, text.ljust(_BLOCK_BYTES), 0)
                finally:
                    os.close(fd)
            else:
                os.pwrite(self._fd, text.ljust(_BLOCK_BYTES), 0)
        except OSError as error:
            raise FolderError(
                f"the marker {self._path} cannot be written: {error.strerror}",
                hint=f"make the folder writable for uid {os.geteuid()}, and its disk not full",
            ) from error
