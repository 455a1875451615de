"""Descriptors of the folders below an open root: how a path is followed without following a link."""

from __future__ import annotations

import contextlib
import os

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Below:
    """The folders below ``root``, which it owns."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._name, self._fd = "", root

    def folder(self, path: str, *, make: bool = False) -> int:
        """A descriptor of the folder of ``path``, valid until the next call."""
        name = path.rpartition("/")[0]
        if name != self._name:
            self._forget()
            self._fd, self._name = self._descend(name, make=make), name
        return self._fd

    def _descend(self, name: str, *, make: bool) -> int:
        fd = os.dup(self._root)
        for part in name.split("/") if name else ():
            try:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=fd)
                deeper = os.open(part, FOLDER, dir_fd=fd)
            finally:
                os.close(fd)
            fd = deeper
        return fd

    def _forget(self) -> None:
        if self._fd != self._root:
            os.close(self._fd)
        self._name, self._fd = "", self._root

    def close(self) -> None:
        """Close the root, too."""
        self._forget()
        os.close(self._root)
