"""The end of a session."""

from __future__ import annotations

from authsync.oneshot.base import OneShot
from authsync.start import ensure_schema
from authsync.store import sessions

DELETE_TIMEOUT_S = 300.0
"""Removing the rows of a large session with all its history."""


class Delete(OneShot):
    """``authsync delete``."""

    def delete(self) -> bool:
        """Remove the session's files and history, and leave a tombstone; False where there was nothing.

        Raises:
            OwnedError: a running process owns it.
        """
        ensure_schema(self.opening, self.trying)
        with self.owned() as lease:
            deleted = self.db.call(lambda c: sessions.delete(c, self.db, lease.fence), timeout_s=DELETE_TIMEOUT_S)
            return deleted and lease.head.revision > 0
