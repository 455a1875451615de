"""Which restore point a person means."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from datetime import datetime, timedelta

from authsync.core.manifest import Totals
from authsync.errors import UsageError
from authsync.store import files, sessions, snapshots
from authsync.store.connection import Connection, Database
from authsync.store.files import View
from authsync.store.snapshots import Kept


def restore_point(
    connection: Connection, db: Database, session_id: str, number: int | None, at: datetime | timedelta | None
) -> tuple[View, Totals]:
    """The restore point that a person means: a snapshot's number, a moment, or (neither) the live line.

    Raises:
        UsageError: there is none.
    """
    kept = snapshots.list_all(connection, db, session_id)
    if number is not None:
        chosen = next((snapshot for snapshot in kept if snapshot.number == number), None)
    elif at is not None:
        moment = snapshots.database_time(connection) - at if isinstance(at, timedelta) else at
        status = sessions.status(connection, db, session_id)
        if status is not None and status.updated_at <= moment:
            return _live(connection, db, session_id)
        chosen = max(
            (snapshot for snapshot in kept if snapshot.taken_at <= moment and not snapshot.view.branch),
            key=lambda snapshot: snapshot.number,
            default=None,
        )
    else:
        return _live(connection, db, session_id)
    if chosen is None:
        raise UsageError("there is no such restore point", hint="the kept ones: " + (_numbers(kept) or "none"))
    return chosen.view, chosen.totals


def _live(connection: Connection, db: Database, session_id: str) -> tuple[View, Totals]:
    found = files.read_head(connection, db, session_id)
    if found is None or found[0].revision == 0:
        raise UsageError(f"nothing is stored for session {session_id!r}", hint="check --session-id")
    return View(session_id=session_id), found[1]


def matching(glob: str | None) -> Callable[[str], bool]:
    """Whether a path is meant by ``--only``; all are without it."""
    return lambda path: glob is None or fnmatch.fnmatchcase(path, glob)


def _numbers(kept: list[Kept]) -> str:
    return ", ".join(str(snapshot.number) for snapshot in kept[-20:])
