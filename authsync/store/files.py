"""The rows of a session's files: the one statement of a flush, and the streams of a restore.

A row is live while ``branch = 0 AND died IS NULL``. Within one generation a changed file is updated in place; the first
change after a snapshot closes the old row and inserts a new one (copy-on-write).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from authsync.core.manifest import Entry, Manifest, Totals
from authsync.core.ownership import NoRow
from authsync.core.reconcile import Head, SessionState
from authsync.store.connection import STATEMENT_TIMEOUT_S, Connection, Database
from authsync.store.leases import FENCED, Fence, why_not

LIVE_GENERATION = (1 << 63) - 1
"""Sees what no generation has closed: the live rows."""
CHUNK_ROWS, CHUNK_BYTES = 2000, 4 << 20
"""A flush within these is one statement; a larger one is chunked in one transaction."""
STREAM_ROWS = 500
STILL_COMING_ROWS = 16
"""A stream moves its deadline this often: what takes the rows may need long for each (a network disk)."""
IDLE_IN_TRANSACTION_MS = 10_000
"""A process that freezes inside a transaction would hold its row locks for ever."""
SLOWEST_BYTES_PER_S = 256 << 10
"""How slow a link may be before a large flush is given up."""


class Row(NamedTuple):
    """One file to write."""

    path: str
    content: bytes
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One flush, complete: a retry resends exactly this."""

    push_id: str
    fence: Fence
    revision: int
    """Of the line before; the statement finds it unchanged or does nothing."""
    totals: Totals
    """Of the line after."""
    state: SessionState | None
    rows: Sequence[Row] = field(repr=False)
    removed: Sequence[str] = field(repr=False)

    @property
    def bytes(self) -> int:
        """Bytes of content that it carries."""
        return sum(row.entry.size_bytes for row in self.rows)

    @property
    def timeout_s(self) -> float:
        """How long it may take before the connection counts as dead."""
        return STATEMENT_TIMEOUT_S + self.bytes / SLOWEST_BYTES_PER_S


# In one generation a removed file's row goes, an older one is closed; both follow the fence, so that one who lost it
# removes nothing either.
_CHANGE_FILES = """
, dropped AS (
    DELETE FROM {s}.files USING fence
     WHERE files.session_id = %(session)s AND branch = 0 AND died IS NULL
       AND path = ANY(%(removed)b::text[]) AND born = fence.generation
), closed AS (
    UPDATE {s}.files SET died = fence.generation FROM fence
     WHERE files.session_id = %(session)s AND branch = 0 AND died IS NULL
       AND path = ANY(%(removed)b::text[] || %(paths)b::text[]) AND born < fence.generation
), written AS (
    INSERT INTO {s}.files (session_id, branch, path, born, size, sha256, is_text, content)
    SELECT %(session)s, 0, new.path, fence.generation, new.size, new.sha256, new.is_text, new.content
      FROM fence, unnest(%(paths)b::text[], %(sizes)b::bigint[], %(digests)b::bytea[], %(texts)b::boolean[],
                         %(contents)b::bytea[]) AS new (path, size, sha256, is_text, content)
    ON CONFLICT (session_id, branch, path, born) DO UPDATE
       SET size = excluded.size, sha256 = excluded.sha256, is_text = excluded.is_text, content = excluded.content
)
SELECT revision FROM fence
"""

FLUSH = f"""
WITH fence AS (
    UPDATE {{s}}.sessions
       SET revision = revision + 1, last_push_id = %(push)s, last_writer = %(owner)s, manifest_digest = %(digest)s,
           file_count = %(file_count)s, total_bytes = %(total_bytes)s, state = coalesce(%(state)s, state),
           updated_at = clock_timestamp()
     WHERE {FENCED} AND revision = %(revision)s
    RETURNING revision, generation
){_CHANGE_FILES}"""

FLUSH_MORE = f"""
WITH fence AS (
    SELECT revision, generation FROM {{s}}.sessions
     WHERE {FENCED} AND revision = %(revision)s + 1 AND last_push_id = %(push)s
){_CHANGE_FILES}"""

# The transaction began long ago: its now() would be an expiry in the past.
FLUSH_LEASE = f"""
UPDATE {{s}}.sessions SET expires_at = greatest(expires_at, clock_timestamp() + make_interval(secs => %(ttl_s)s))
 WHERE {FENCED}
"""

READ_HEAD = """
SELECT state, revision, manifest_digest, last_writer::text, file_count, total_bytes
  FROM {s}.sessions WHERE session_id = %(session)s
"""

_SEEN_BY = """
 FROM {s}.files
WHERE session_id = %(session)s AND branch = %(branch)s AND born <= %(generation)s
  AND (died IS NULL OR died > %(generation)s)
"""
READ_MANIFEST = f"SELECT path, sha256, size {_SEEN_BY}"
READ_FILES = f"SELECT path, content, sha256 {_SEEN_BY}"
READ_SOME_FILES = f"{READ_FILES} AND path = ANY(%(paths)b::text[])"

COPY_FILES = """
INSERT INTO {s}.files (session_id, branch, path, born, size, sha256, is_text, content)
SELECT %(session)s, %(branch)s, new.path, 1, new.size, new.sha256, new.is_text, new.content
  FROM unnest(%(paths)b::text[], %(sizes)b::bigint[], %(digests)b::bytea[], %(texts)b::boolean[], %(contents)b::bytea[])
       AS new (path, size, sha256, is_text, content)
ON CONFLICT (session_id, branch, path, born) DO UPDATE SET content = excluded.content
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Which files of a session are meant: the live line, a snapshot of it, or a copy."""

    session_id: str
    branch: int = 0
    generation: int = LIVE_GENERATION

    @property
    def params(self) -> dict[str, Any]:
        """As named parameters."""
        return {"session": self.session_id, "branch": self.branch, "generation": self.generation}


def push(connection: Connection, db: Database, order: Push, *, ttl_s: float) -> int | NoRow:
    """Perform one flush, atomically and fenced.

    Returns:
        The new revision, or why nothing was written.
    """
    params: dict[str, Any] = {
        **order.fence.params,
        "push": order.push_id,
        "revision": order.revision,
        "digest": order.totals.digest,
        "file_count": order.totals.file_count,
        "total_bytes": order.totals.total_bytes,
        "state": order.state.value if order.state is not None else None,
    }
    chunks = list(_chunks(order.rows))
    first = {**params, "removed": list(order.removed), **chunks[0]}
    if len(chunks) == 1:
        row = connection.execute(db.sql(FLUSH), first).fetchone()
    else:
        with connection.transaction():
            connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}".encode())
            row = connection.execute(db.sql(FLUSH), first).fetchone()
            for chunk in chunks[1:] if row is not None else ():
                row = connection.execute(db.sql(FLUSH_MORE), {**params, "removed": [], **chunk}).fetchone()
            connection.execute(db.sql(FLUSH_LEASE), {**order.fence.params, "ttl_s": ttl_s})
    if row is not None:
        return int(row[0])
    return why_not(connection, db, order.fence, push_id=order.push_id)


def read_head(connection: Connection, db: Database, session_id: str) -> tuple[Head, Totals] | None:
    """The line as its row describes it, and its totals; None if there is no row."""
    row = connection.execute(db.sql(READ_HEAD), {"session": session_id}).fetchone()
    if row is None:
        return None
    state, revision, digest, last_writer, file_count, total_bytes = row
    return (
        Head(state=SessionState(state), revision=revision, digest=bytes(digest), last_writer=last_writer),
        Totals(digest=bytes(digest), file_count=file_count, total_bytes=total_bytes),
    )


@contextlib.contextmanager
def one_moment(connection: Connection) -> Iterator[None]:
    """All reads inside see the database at one moment."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    yield
    connection.execute("COMMIT")


def read_manifest(connection: Connection, db: Database, view: View) -> Manifest:
    """Paths, digests and sizes of the files in ``view``."""
    manifest = Manifest()
    with connection.cursor(binary=True) as cursor:
        for path, sha256, size in cursor.stream(db.sql(READ_MANIFEST), view.params, size=STREAM_ROWS):
            if not len(manifest) % STREAM_ROWS:
                db.still_coming()
            manifest.put(path, Entry(bytes(sha256), size))
    return manifest


def stream_files(
    connection: Connection, db: Database, view: View, *, paths: Iterable[str] | None = None
) -> Iterator[tuple[str, bytes, bytes]]:
    """Path, content and stored digest of the files in ``view`` (of ``paths`` alone if given), in no order."""
    query, params = READ_FILES, view.params
    if paths is not None:
        query, params = READ_SOME_FILES, {**view.params, "paths": list(paths)}
    with connection.cursor(binary=True) as cursor:
        for number, row in enumerate(cursor.stream(db.sql(query), params, size=STREAM_ROWS)):
            if not number % STILL_COMING_ROWS:
                db.still_coming()
            yield row


def write_copy(connection: Connection, db: Database, view: View, rows: Iterable[Row]) -> None:
    """Store files beside the line. What is there already is the same, and gets locked: nothing prunes it meanwhile."""
    for chunk in _chunks(rows):
        connection.execute(db.sql(COPY_FILES), {"session": view.session_id, "branch": view.branch, **chunk})


def _chunks(rows: Iterable[Row]) -> Iterator[Mapping[str, Any]]:
    """Column arrays within CHUNK_ROWS and CHUNK_BYTES; at least one, which may be empty."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        if chunk and (len(chunk) >= CHUNK_ROWS or size + row.entry.size_bytes > CHUNK_BYTES):
            yield _columns(chunk)
            chunk, size = [], 0
        chunk.append(row)
        size += row.entry.size_bytes
    yield _columns(chunk)


def _columns(rows: Sequence[Row]) -> Mapping[str, Any]:
    return {
        "paths": [row.path for row in rows],
        "sizes": [row.entry.size_bytes for row in rows],
        "digests": [row.entry.sha256 for row in rows],
        "texts": [_is_text(row.content) for row in rows],
        "contents": [row.content for row in rows],
    }


def _is_text(content: bytes) -> bool:
    """Whether PostgreSQL can show ``content`` as text: valid UTF-8 without NUL."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content
