"""What the database holds of a session, read as another program would read it: by its documented tables alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIVE = "session_id = %s AND branch = 0 AND died IS NULL"


class Stored:
    """One session in one database; each question is asked on a connection of its own."""

    def __init__(self, dsn: str, session: str = "default", schema: str = "authsync") -> None:
        self._dsn = dsn
        self._session = session
        self._schema = schema

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """The rows of a query; ``{s}`` is the schema."""
        with psycopg.connect(self._dsn, row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(query.replace("{s}", self._schema).encode(), values).fetchall()

    def execute(self, statement: str, *values: object) -> None:
        """Run a statement that gives no rows; ``{s}`` is the schema."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(statement.replace("{s}", self._schema).encode(), values)

    @property
    def session(self) -> dict[str, Any]:
        """The session's row; empty where there is none, or no table."""
        try:
            found = self.rows("SELECT * FROM {s}.sessions WHERE session_id = %s", self._session)
        except psycopg.errors.UndefinedTable:
            return {}
        return found[0] if found else {}

    @property
    def revision(self) -> int:
        """The number of committed flushes."""
        return int(self.session.get("revision", 0))

    def files(self) -> dict[str, bytes]:
        """The live line: path -> content."""
        rows = self.rows(f"SELECT path, content FROM {{s}}.files WHERE {_LIVE}", self._session)
        return {row["path"]: bytes(row["content"]) for row in rows}

    def file(self, path: str) -> bytes | None:
        """The content of one live file."""
        rows = self.rows(f"SELECT content FROM {{s}}.files WHERE {_LIVE} AND path = %s", self._session, path)
        return bytes(rows[0]["content"]) if rows else None

    def copies(self) -> list[dict[str, bytes]]:
        """What is kept beside the line, the oldest first."""
        found: dict[int, dict[str, bytes]] = {}
        for row in self.rows(
            "SELECT f.branch, path, content FROM {s}.files f JOIN {s}.snapshots s USING (session_id, branch)"
            " WHERE session_id = %s AND f.branch <> 0 ORDER BY s.number",
            self._session,
        ):
            found.setdefault(row["branch"], {})[row["path"]] = bytes(row["content"])
        return list(found.values())

    def snapshots(self) -> list[dict[str, Any]]:
        """All restore points, the oldest first."""
        return self.rows("SELECT * FROM {s}.snapshots WHERE session_id = %s ORDER BY number", self._session)

    def snapshot_files(self, number: int) -> dict[str, bytes]:
        """What a restore point of the line shows."""
        rows = self.rows(
            "SELECT path, content FROM {s}.files f, {s}.snapshots s WHERE f.session_id = s.session_id"
            " AND s.session_id = %s AND s.number = %s AND f.branch = s.branch AND f.born <= s.generation"
            " AND (f.died IS NULL OR f.died > s.generation)",
            self._session,
            number,
        )
        return {row["path"]: bytes(row["content"]) for row in rows}

    def owners(self) -> list[dict[str, Any]]:
        """All starts, the oldest first."""
        return self.rows("SELECT * FROM {s}.owners WHERE session_id = %s ORDER BY number", self._session)

    def connections(self) -> int:
        """How many connections of authsync the server still serves."""
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'authsync'"
        return len(self.rows(query))


def digest_of(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the text of ``LC_ALL=C sha256sum -- *``, as the Baileys workload reports it."""
    lines = [f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
