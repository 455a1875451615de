"""Snapshots: kept restore points of the line, in O(1), and copies beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from authsync.core.manifest import Totals, copy_branch
from authsync.core.ownership import NoRow
from authsync.core.retention import REASONS, Snapshot
from authsync.store.connection import Connection, Database
from authsync.store.files import Row, View, write_copy
from authsync.store.leases import FENCED, Fence, why_not

PRUNE_ROWS = 1000
"""Rows removed by one statement, so that pruning never holds up a flush."""

# One statement, fenced. While the revision has not moved no snapshot is added: the newest takes over the reason that is
# kept longer, which also makes a retry harmless. Revision 0 has nothing to keep.
TAKE = f"""
WITH fence AS (
    SELECT session_id, generation, revision, file_count, total_bytes, manifest_digest FROM {{s}}.sessions
     WHERE {FENCED} FOR UPDATE
), same AS (
    UPDATE {{s}}.snapshots kept
       SET reason = CASE WHEN array_position(%(reasons)s::text[], kept.reason)
                              < array_position(%(reasons)s::text[], %(reason)s::text)
                         THEN %(reason)s ELSE kept.reason END,
           note = coalesce(%(note)s, kept.note), paired = kept.paired OR %(paired)s
      FROM fence
     WHERE kept.session_id = fence.session_id AND kept.branch = 0 AND kept.revision = fence.revision
       AND kept.generation = fence.generation - 1
    RETURNING kept.number
), moved AS (
    UPDATE {{s}}.sessions SET generation = sessions.generation + 1 FROM fence
     WHERE sessions.session_id = fence.session_id AND fence.revision > 0 AND NOT EXISTS (SELECT FROM same)
    RETURNING fence.*
), added AS (
    INSERT INTO {{s}}.snapshots (session_id, branch, generation, reason, note, revision, paired, file_count,
                                 total_bytes, manifest_digest)
    SELECT session_id, 0, generation, %(reason)s, %(note)s, revision, %(paired)s, file_count, total_bytes,
           manifest_digest FROM moved
    RETURNING number
)
SELECT (SELECT number FROM same UNION ALL SELECT number FROM added), EXISTS (SELECT FROM fence)
"""

RECORD_COPY = """
INSERT INTO {s}.snapshots (session_id, branch, generation, reason, note, revision, paired, file_count, total_bytes,
                           manifest_digest)
VALUES (%(session)s, %(branch)s, 1, 'diverged', %(note)s, %(revision)s, %(paired)s, %(file_count)s, %(total_bytes)s,
        %(digest)s)
ON CONFLICT (session_id, branch, generation) DO UPDATE SET taken_at = clock_timestamp()
RETURNING number
"""

LIST = """
SELECT number, taken_at, reason, paired, branch, generation, revision, file_count, total_bytes, manifest_digest, note
  FROM {s}.snapshots WHERE session_id = %(session)s ORDER BY number
"""

FORGET = """
DELETE FROM {s}.snapshots WHERE session_id = %(session)s AND number = ANY(%(numbers)s)
"""

# A closed row of the line is seen by the snapshots with born <= generation < died; a copy's rows go with its snapshot.
PRUNE = """
DELETE FROM {s}.files WHERE ctid = ANY (ARRAY(
    SELECT f.ctid FROM {s}.files f
     WHERE f.session_id = %(session)s AND f.branch = 0 AND f.died IS NOT NULL
       AND NOT EXISTS (SELECT FROM {s}.snapshots k
                        WHERE k.session_id = f.session_id AND k.branch = 0
                          AND k.generation >= f.born AND k.generation < f.died)
     LIMIT %(rows)s))
"""
PRUNE_COPIES = """
DELETE FROM {s}.files WHERE ctid = ANY (ARRAY(
    SELECT f.ctid FROM {s}.files f
     WHERE f.session_id = %(session)s AND f.branch > 0
       AND NOT EXISTS (SELECT FROM {s}.snapshots k WHERE k.session_id = f.session_id AND k.branch = f.branch)
     LIMIT %(rows)s))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept(Snapshot):
    """A restore point as the database lists it."""

    view: View
    revision: int
    totals: Totals
    note: str | None


def take(
    connection: Connection, db: Database, fence: Fence, *, reason: str, paired: bool, note: str | None = None
) -> int | NoRow | None:
    """Keep the line as it is, under the fence.

    Returns:
        The snapshot's number; None where nothing was ever stored; why, where we are no longer the owner.
    """
    row = connection.execute(
        db.sql(TAKE), {**fence.params, "reason": reason, "note": note, "paired": paired, "reasons": list(REASONS)}
    ).fetchone()
    assert row is not None
    number, is_ours = row
    if not is_ours:
        return why_not(connection, db, fence, push_id="")
    return None if number is None else int(number)


def keep_copy(
    connection: Connection,
    db: Database,
    session_id: str,
    *,
    totals: Totals,
    revision: int,
    paired: bool,
    note: str,
    rows: Iterable[Row],
) -> int:
    """Keep a folder's files beside the line, once however often it is met; needs no lease.

    Returns:
        The number of its snapshot.
    """
    view = View(session_id=session_id, branch=copy_branch(totals.digest), generation=1)
    with connection.transaction():
        row = connection.execute(
            db.sql(RECORD_COPY),
            {
                "session": session_id,
                "branch": view.branch,
                "note": note,
                "revision": revision,
                "paired": paired,
                "file_count": totals.file_count,
                "total_bytes": totals.total_bytes,
                "digest": totals.digest,
            },
        ).fetchone()
        # After its snapshot: pruning then leaves them alone, also where it removes what is left of an earlier one.
        write_copy(connection, db, view, rows)
    assert row is not None
    return int(row[0])


def list_all(connection: Connection, db: Database, session_id: str) -> list[Kept]:
    """All restore points of a session, the oldest first."""
    return [
        Kept(
            number=number,
            taken_at=taken_at,
            reason=reason,
            paired=paired,
            view=View(session_id=session_id, branch=branch, generation=generation),
            revision=revision,
            totals=Totals(digest=bytes(digest), file_count=file_count, total_bytes=total_bytes),
            note=note,
        )
        for number, taken_at, reason, paired, branch, generation, revision, file_count, total_bytes, digest, note in (
            connection.execute(db.sql(LIST), {"session": session_id})
        )
    ]


def database_time(connection: Connection) -> datetime:
    """The database's clock: ages of snapshots are by it, not by a container's."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def forget(connection: Connection, db: Database, session_id: str, numbers: Iterable[int]) -> None:
    """Remove restore points; ``prune`` then removes the rows that only they saw."""
    connection.execute(db.sql(FORGET), {"session": session_id, "numbers": list(numbers)})


def prune(connection: Connection, db: Database, session_id: str) -> bool:
    """Remove some rows that no kept snapshot sees, of the line and of forgotten copies.

    Returns:
        Whether there may be more.
    """
    params = {"session": session_id, "rows": PRUNE_ROWS}
    removed = [connection.execute(db.sql(query), params).rowcount for query in (PRUNE, PRUNE_COPIES)]
    return PRUNE_ROWS in removed
