"""What operators ask of a session's row: its status, its owners, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from authsync.store.connection import Connection, Database
from authsync.store.leases import Fence

STATUS = """
SELECT s.state, s.revision, s.generation, s.file_count, s.total_bytes, s.scope, s.owner::text, s.token,
       s.expires_at > clock_timestamp() AS held, s.created_at, s.updated_at, clock_timestamp(),
       (SELECT count(*) FROM {s}.snapshots k WHERE k.session_id = s.session_id),
       (SELECT max(taken_at) FROM {s}.snapshots k WHERE k.session_id = s.session_id),
       encode(s.manifest_digest, 'hex')
  FROM {s}.sessions s WHERE s.session_id = %(session)s
"""

OWNERS = """
SELECT number, owner::text, command, scope, deployment, host, version, asked_at, acquired_at, ended_at, outcome
  FROM {s}.owners WHERE session_id = %(session)s AND acquired_at IS NOT NULL ORDER BY number DESC LIMIT %(most)s
"""

CREDS_FILES = """
SELECT path, content FROM {s}.files
 WHERE session_id = %(session)s AND branch = 0 AND died IS NULL AND (path = 'creds.json' OR path LIKE '%%/creds.json')
"""

# The row stays as a tombstone: with a new revision and writer, so that no folder of before counts as its lineage.
ENTOMB = """
UPDATE {s}.sessions
   SET state = 'deleted', revision = revision + 1, last_writer = owner, last_push_id = NULL, standing_order = NULL,
       manifest_digest = decode(repeat('00', 32), 'hex'), file_count = 0, total_bytes = 0,
       updated_at = clock_timestamp()
 WHERE session_id = %(session)s AND owner = %(owner)s AND token = %(token)s
"""
REMOVE_FILES = "DELETE FROM {s}.files WHERE session_id = %(session)s"
REMOVE_SNAPSHOTS = "DELETE FROM {s}.snapshots WHERE session_id = %(session)s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A session's row, for people."""

    state: str
    revision: int
    generation: int
    file_count: int
    total_bytes: int
    scope: str | None
    owner: str | None
    token: int
    held: bool
    """Whether the owner's lease has not expired."""
    created_at: datetime
    updated_at: datetime
    now: datetime
    """The database's clock."""
    snapshot_count: int
    newest_snapshot_at: datetime | None
    manifest_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerChange:
    """One start that held the session."""

    number: int
    owner: str
    command: str
    scope: str | None
    deployment: str | None
    host: str | None
    version: str | None
    asked_at: datetime
    acquired_at: datetime
    ended_at: datetime | None
    outcome: str | None


def status(connection: Connection, db: Database, session_id: str) -> Status | None:
    """The session's row, or None."""
    row = connection.execute(db.sql(STATUS), {"session": session_id}).fetchone()
    if row is None:
        return None
    fields: dict[str, Any] = dict(zip(Status.__slots__, row, strict=True))
    return Status(**{**fields, "held": bool(fields["held"])})


def owners(connection: Connection, db: Database, session_id: str, *, most: int) -> list[OwnerChange]:
    """The newest changes of owner, the newest first."""
    rows = connection.execute(db.sql(OWNERS), {"session": session_id, "most": most})
    return [OwnerChange(**dict(zip(OwnerChange.__slots__, row, strict=True))) for row in rows]


def creds_files(connection: Connection, db: Database, session_id: str) -> dict[str, bytes]:
    """The stored ``creds.json`` of each bot."""
    with connection.cursor(binary=True) as cursor:
        return {path: bytes(content) for path, content in cursor.execute(db.sql(CREDS_FILES), {"session": session_id})}


def delete(connection: Connection, db: Database, fence: Fence) -> bool:
    """Remove files and history of a session that we own, and leave a tombstone.

    Returns:
        False where it is no longer ours.
    """
    with connection.transaction():
        entombed = connection.execute(db.sql(ENTOMB), fence.params).rowcount == 1
        if entombed:
            connection.execute(db.sql(REMOVE_FILES), fence.params)
            connection.execute(db.sql(REMOVE_SNAPSHOTS), fence.params)
    return entombed
