"""How a restore's files get onto the disk: 0600 in folders of 0700, none outside the root, none twice."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from authsync.below import Below
from authsync.core.names import unsafe_reason
from authsync.errors import DamagedError

WRITERS = 2
"""Threads. Two create files in one folder in 0.6 of the time of one; a third has to wait for them."""
_WAITING_BATCHES = 4
_BATCH_FILES, _BATCH_BYTES = 100, 1 << 20

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Writer:
    """Hands files to the threads of ``pool`` in batches: a hand-over per file would wait for the interpreter's lock."""

    def __init__(self, root: int, pool: ThreadPoolExecutor) -> None:
        self._root = root
        self._pool = pool
        self._batch: list[tuple[str, bytes]] = []
        self._batch_bytes = 0
        self._writing: deque[Future[None]] = deque()

    def write(self, path: str, content: bytes) -> None:
        """Create ``path``, now or later.

        Raises:
            DamagedError: the stored path, or one before it, must not be written or is stored twice.
            OSError: a file before it cannot be written.
        """
        reason = unsafe_reason(path)
        if reason is not None:
            raise DamagedError(
                f"a stored path {reason}: {path.encode(errors='backslashreplace').decode()}",
                hint="nothing was restored; remove that row, or restore a snapshot",
            )
        self._batch.append((path, content))
        self._batch_bytes += len(content)
        if len(self._batch) >= _BATCH_FILES or self._batch_bytes >= _BATCH_BYTES:
            self._hand_over()

    def finish(self) -> None:
        """Wait until all is written.

        Raises:
            DamagedError, OSError: as ``write``.
        """
        self._hand_over()
        while self._writing:
            self._writing.popleft().result()

    def _hand_over(self) -> None:
        if len(self._writing) >= _WAITING_BATCHES:
            self._writing.popleft().result()
        self._writing.append(self._pool.submit(_create_files, self._root, self._batch))
        self._batch, self._batch_bytes = [], 0


def _create_files(root: int, files: Sequence[tuple[str, bytes]]) -> None:
    below = Below(os.dup(root))
    try:
        for path, content in files:
            _create(below, path, content)
    finally:
        below.close()


def _create(below: Below, path: str, content: bytes) -> None:
    try:
        fd = os.open(path.rpartition("/")[2], _CREATE, 0o600, dir_fd=below.folder(path, make=True))
    except (FileExistsError, NotADirectoryError) as error:
        raise DamagedError(
            f"the stored path {path} meets another one", hint="remove one of the rows, or restore a snapshot"
        ) from error
    try:
        written = os.write(fd, content)
        while written < len(content):
            written += os.write(fd, content[written:])
    finally:
        os.close(fd)
