"""The lease and the registry of starts. Every expiry is by the database's ``clock_timestamp()``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from authsync.core.ownership import Claim, FenceView, NoRow, why_no_row
from authsync.core.reconcile import Head, SessionState
from authsync.store.connection import Connection, Database

KEPT_STARTS = 200
"""Rows of ``owners`` that are kept of one session: a crash loop must not fill the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """What every statement that writes the line must still find in the session's row."""

    session_id: str
    owner: str
    token: int

    @property
    def params(self) -> dict[str, Any]:
        """As named parameters of ``FENCED``."""
        return {"session": self.session_id, "owner": self.owner, "token": self.token}


FENCED = "session_id = %(session)s AND owner = %(owner)s AND token = %(token)s"
"""Owner id and token: a token alone recurs after a row was deleted and made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of a program, as the registry keeps it."""

    owner: str
    command: str
    scope: str
    deployment: str | None
    host: str
    boot_id: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An acquired session: its fence, and the line as it was at that moment."""

    fence: Fence
    head: Head
    file_count: int
    total_bytes: int
    age_s: float
    """Since the last committed flush."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a one-shot wants of the owner."""

    id: str
    kind: str
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A renewed lease, and what waits for its owner."""

    revision: int
    """Of the line."""
    order: Order | None


REGISTER = """
INSERT INTO {s}.owners (session_id, owner, command, scope, deployment, host, boot_id, version)
VALUES (%(session)s, %(owner)s, %(command)s, %(scope)s, %(deployment)s, %(host)s, %(boot_id)s, %(version)s)
RETURNING number
"""

ACQUIRE = """
INSERT INTO {s}.sessions AS held (session_id, scope, owner, token, expires_at)
VALUES (%(session)s, %(scope)s, %(owner)s, %(least_token)s + 1, clock_timestamp() + make_interval(secs => %(ttl_s)s))
ON CONFLICT (session_id) DO UPDATE
   SET owner = excluded.owner, token = greatest(held.token + 1, excluded.token), expires_at = excluded.expires_at,
       scope = CASE WHEN held.revision = 0 OR held.scope IS NULL OR %(force)s THEN excluded.scope ELSE held.scope END
 WHERE (held.owner IS NULL OR held.expires_at <= clock_timestamp() OR %(force)s
        OR held.owner IN (excluded.owner, %(predecessor)s))
   AND (held.revision = 0 OR held.scope IS NULL OR held.scope = excluded.scope OR %(force)s OR %(any_scope)s)
RETURNING token, state, revision, manifest_digest, last_writer::text, file_count, total_bytes,
          extract(epoch FROM clock_timestamp() - updated_at)::float8
"""

READ_CLAIM = """
SELECT scope, revision, s.owner::text,
       (SELECT o.host FROM {s}.owners o
         WHERE o.session_id = s.session_id AND o.owner = s.owner ORDER BY number DESC LIMIT 1),
       extract(epoch FROM expires_at - clock_timestamp())::float8
  FROM {s}.sessions s WHERE session_id = %(session)s
"""

# Whoever held the session before and never said goodbye lost it to us.
RECORD_ACQUISITION = """
WITH previous AS (
    UPDATE {s}.owners SET ended_at = clock_timestamp(), outcome = 'lost'
     WHERE session_id = %(session)s AND acquired_at IS NOT NULL AND ended_at IS NULL AND owner <> %(owner)s
), forgotten AS (
    DELETE FROM {s}.owners
     WHERE session_id = %(session)s AND number <= (
           SELECT number FROM {s}.owners WHERE session_id = %(session)s ORDER BY number DESC OFFSET %(kept)s LIMIT 1)
)
UPDATE {s}.owners SET acquired_at = clock_timestamp() WHERE session_id = %(session)s AND number = %(number)s
"""

READ_PREVIOUS = """
SELECT host, outcome FROM {s}.owners
 WHERE session_id = %(session)s AND acquired_at IS NOT NULL AND number < %(number)s
 ORDER BY number DESC LIMIT 1
"""

RENEW = f"""
UPDATE {{s}}.sessions SET expires_at = clock_timestamp() + make_interval(secs => %(ttl_s)s)
 WHERE {FENCED}
RETURNING standing_order, revision
"""

READ_FENCE = """
SELECT state = 'deleted', owner::text, token, last_push_id::text FROM {s}.sessions WHERE session_id = %(session)s
"""

RELEASE = f"UPDATE {{s}}.sessions SET owner = NULL, expires_at = NULL WHERE {FENCED}"

RECORD_END = """
UPDATE {s}.owners SET ended_at = clock_timestamp(), outcome = %(outcome)s
 WHERE session_id = %(session)s AND owner = %(owner)s AND ended_at IS NULL
"""

GIVE_ORDER = """
UPDATE {s}.sessions SET standing_order = %(order)s::jsonb
 WHERE session_id = %(session)s AND owner IS NOT NULL AND expires_at > clock_timestamp()
RETURNING owner::text
"""
READ_OUTCOME = "SELECT order_outcome FROM {s}.sessions WHERE session_id = %(session)s"
FINISH_ORDER = f"""
UPDATE {{s}}.sessions SET standing_order = NULL, order_outcome = %(outcome)s::jsonb
 WHERE {FENCED} AND standing_order ->> 'id' = %(id)s
"""


def register(connection: Connection, db: Database, session_id: str, start: Start) -> int:
    """Enter a start in the registry; the number is the database's."""
    params = {"session": session_id, **{name: getattr(start, name) for name in start.__slots__}}
    row = connection.execute(db.sql(REGISTER), params).fetchone()
    assert row is not None
    return int(row[0])


def acquire(
    connection: Connection,
    db: Database,
    session_id: str,
    start: Start,
    *,
    ttl_s: float,
    predecessor: str | None = None,
    force: bool = False,
    any_scope: bool = False,
    least_token: int = 0,
) -> Lease | None:
    """Take the lease if it is free, expired, already ours, or our dead predecessor's; ``force`` takes it from anybody.

    The new token is above ``least_token``, whatever the row says: a database that was put back must not reuse one.

    Returns:
        None where it is held, or the session belongs to another scope (``read_claim`` tells which).
    """
    row = connection.execute(
        db.sql(ACQUIRE),
        {
            "session": session_id,
            "scope": start.scope,
            "owner": start.owner,
            "ttl_s": ttl_s,
            "predecessor": predecessor or start.owner,
            "force": force,
            "any_scope": any_scope,
            "least_token": least_token,
        },
    ).fetchone()
    if row is None:
        return None
    token, state, revision, digest, last_writer, file_count, total_bytes, age_s = row
    return Lease(
        fence=Fence(session_id=session_id, owner=start.owner, token=token),
        head=Head(state=SessionState(state), revision=revision, digest=bytes(digest), last_writer=last_writer),
        file_count=file_count,
        total_bytes=total_bytes,
        age_s=round(age_s, 1),
    )


def read_claim(connection: Connection, db: Database, session_id: str) -> Claim | None:
    """Who holds the session, for somebody who was refused; None if the row is gone."""
    row = connection.execute(db.sql(READ_CLAIM), {"session": session_id}).fetchone()
    if row is None:
        return None
    scope, revision, owner, host, expires_in_s = row
    return Claim(scope=scope, revision=revision, owner=owner, owner_host=host, expires_in_s=expires_in_s)


def record_acquisition(connection: Connection, db: Database, fence: Fence, number: int) -> tuple[str, str] | None:
    """Note that start ``number`` owns the session now.

    Returns:
        Host of the previous owner and how it ended, if there was one.
    """
    params = {**fence.params, "number": number, "kept": KEPT_STARTS}
    connection.execute(db.sql(RECORD_ACQUISITION), params)
    row = connection.execute(db.sql(READ_PREVIOUS), params).fetchone()
    return None if row is None else (row[0] or "?", row[1] or "?")


def why_not(connection: Connection, db: Database, fence: Fence, *, push_id: str) -> NoRow:
    """Why a fenced statement changed nothing."""
    view = connection.execute(db.sql(READ_FENCE), fence.params).fetchone()
    return why_no_row(
        FenceView(deleted=view[0], owner=view[1], token=view[2], last_push_id=view[3]) if view is not None else None,
        owner=fence.owner,
        token=fence.token,
        push_id=push_id,
    )


def renew(connection: Connection, db: Database, fence: Fence, *, ttl_s: float) -> Renewal | NoRow:
    """Renew the lease, or tell why it is no longer ours."""
    row = connection.execute(db.sql(RENEW), {**fence.params, "ttl_s": ttl_s}).fetchone()
    if row is None:
        return why_not(connection, db, fence, push_id="")
    order = row[0]
    return Renewal(
        revision=row[1], order=Order(id=order["id"], kind=order["kind"], note=order.get("note")) if order else None
    )


def release(connection: Connection, db: Database, fence: Fence, *, outcome: str) -> None:
    """Give the lease back and note how we ended. No effect on the lease where it is no longer ours."""
    connection.execute(db.sql(RELEASE), fence.params)
    end(connection, db, fence.session_id, fence.owner, outcome=outcome)


def end(connection: Connection, db: Database, session_id: str, owner: str, *, outcome: str) -> None:
    """Note how a start ended."""
    connection.execute(db.sql(RECORD_END), {"session": session_id, "owner": owner, "outcome": outcome})


def give_order(connection: Connection, db: Database, session_id: str, order: Order) -> str | None:
    """Leave an order for the live owner; None if there is none."""
    text = json.dumps({"id": order.id, "kind": order.kind, "note": order.note})
    row = connection.execute(db.sql(GIVE_ORDER), {"session": session_id, "order": text}).fetchone()
    return None if row is None else str(row[0])


def read_outcome(connection: Connection, db: Database, session_id: str, order_id: str) -> dict[str, Any] | None:
    """What the owner made of an order; None while it has not answered."""
    row = connection.execute(db.sql(READ_OUTCOME), {"session": session_id}).fetchone()
    outcome = row[0] if row is not None else None
    return outcome if isinstance(outcome, dict) and outcome.get("id") == order_id else None


def finish_order(connection: Connection, db: Database, fence: Fence, order_id: str, outcome: dict[str, Any]) -> None:
    """Clear an order under our fence, with what became of it."""
    text = json.dumps({"id": order_id, **outcome})
    connection.execute(db.sql(FINISH_ORDER), {**fence.params, "id": order_id, "outcome": text})
