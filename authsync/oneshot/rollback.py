"""An older restore point made live."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from authsync.core.manifest import Delta, is_creds
from authsync.core.reconcile import SessionState
from authsync.oneshot.base import OneShot
from authsync.oneshot.points import matching, restore_point
from authsync.reconcile import load_line
from authsync.restore import read_difference
from authsync.start import ensure_schema
from authsync.store import files
from authsync.store.connection import Connection
from authsync.store.files import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """What a rollback did."""

    revision: int
    written: int
    removed: int
    snapshot_before: int | None
    """The state that it replaced."""


class Rollback(OneShot):
    """``authsync rollback``."""

    def rollback(self, *, snapshot: int | None, at: datetime | timedelta | None, only: str | None) -> RolledBack:
        """Make an older restore point, or the part of it that ``only`` names, the live state, as a new revision.

        Raises:
            OwnedError: a running process owns the session.
            UsageError: there is no such restore point.
            DamagedError: it is not whole.
        """
        ensure_schema(self.opening, self.trying)
        with self.owned() as lease:
            line = load_line(self.opening, lease, self.trying)

            def read(connection: Connection) -> tuple[Delta, list[Row]]:
                with files.one_moment(connection):
                    view, totals = restore_point(connection, self.db, self.settings.session_id, snapshot, at)
                    return read_difference(connection, self.db, view, totals, line.manifest, wanted=matching(only))

            delta, rows = self.db.retrying(read, self.trying)
            before = line.take_snapshot("rollback", trying=self.trying, note="before a rollback")
            if delta:
                live = line.manifest.bots or any(is_creds(path) for path in delta.changed)
                line.push_rows(
                    rows, removed=delta.removed, state=SessionState.LIVE if live else None, trying=self.trying
                )
        return RolledBack(
            revision=line.revision, written=len(delta.changed), removed=len(delta.removed), snapshot_before=before
        )
