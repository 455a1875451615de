"""The table ``whatsapp_sessions`` of the system that authsync replaces: read once, never written.

Its ``session_data`` maps file names to strings (the file's text) or to nested JSON (the file's value); the whole may
itself be a string of JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from authsync.core.manifest import content_entry
from authsync.core.names import unsafe_reason
from authsync.errors import DamagedError, RightsError
from authsync.store.connection import Connection, Database
from authsync.store.files import Row

# On the search path, as the old code found it; a view of ours is not an old table.
FIND = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = to_regclass('whatsapp_sessions') AND c.relkind IN ('r', 'p', 'f')
"""
RECORD = """
UPDATE {s}.sessions SET legacy_updated_at = %(updated_at)s WHERE session_id = %(session)s
"""
READ_RECORDED = "SELECT legacy_updated_at FROM {s}.sessions WHERE session_id = %(session)s"


@dataclass(frozen=True, slots=True, kw_only=True)
class OldSession:
    """A row of the old table."""

    rows: tuple[Row, ...]
    updated_at: datetime | None


def read(connection: Connection, session_id: str) -> OldSession | None:
    """The session's files in the old table, if there is one.

    Raises:
        DamagedError: a name in it must not be written below a folder, or the value is no object.
        RightsError: it is there, and this user may not read it.
    """
    table = _table(connection)
    if table is None:
        return None
    try:
        row = connection.execute(
            sql.SQL("SELECT session_data, updated_at FROM {} WHERE session_id = %s").format(table), [session_id]
        ).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise RightsError(
            "this database user may not read the old table whatsapp_sessions",
            hint="GRANT SELECT ON whatsapp_sessions TO it, or take the table off its search path",
        ) from error
    if row is None:
        return None
    data, updated_at = row
    if isinstance(data, str):
        data = json.loads(data)
    if not isinstance(data, dict):
        raise DamagedError(
            "the old table whatsapp_sessions holds no object of files for this session",
            hint="remove that row, or start with another --session-id",
        )
    return OldSession(rows=tuple(_row(path, value) for path, value in data.items()), updated_at=updated_at)


def updated_at(connection: Connection, session_id: str) -> datetime | None:
    """When the old row last changed."""
    table = _table(connection)
    if table is None:
        return None
    row = connection.execute(
        sql.SQL("SELECT updated_at FROM {} WHERE session_id = %s").format(table), [session_id]
    ).fetchone()
    return None if row is None else row[0]


def record_import(connection: Connection, db: Database, session_id: str, moment: datetime | None) -> None:
    """Remember how the old row stood when it was imported."""
    connection.execute(db.sql(RECORD), {"session": session_id, "updated_at": moment})


def moved_since_import(connection: Connection, db: Database, session_id: str) -> bool:
    """Whether somebody still writes the old row."""
    row = connection.execute(db.sql(READ_RECORDED), {"session": session_id}).fetchone()
    if row is None or row[0] is None:
        return False
    now = updated_at(connection, session_id)
    return now is not None and now > row[0]


def _table(connection: Connection) -> sql.Identifier | None:
    found = connection.execute(FIND).fetchone()
    return None if found is None else sql.Identifier(found[0], found[1])


def _row(path: str, value: Any) -> Row:  # noqa: ANN401 - whatever JSON the old code stored
    reason = unsafe_reason(path)
    if reason is not None:
        raise DamagedError(
            f"the old table whatsapp_sessions holds a file name that {reason}",
            hint="remove that name from its session_data",
        )
    # As JSON.stringify wrote it: no blanks, no escapes beyond the needed.
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    content = text.encode("utf-8", "surrogatepass")
    return Row(path, content, content_entry(content))
