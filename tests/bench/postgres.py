"""A PostgreSQL as its users run one: durable, on a disk.

The tests' server is another (``tests/support/postgres.py``): in RAM, with ``fsync`` and full-page images off. Commits
are nearly free there, and the WAL is not what a user's server writes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from authsync.store.pgserver import Programs, end, find_programs, free_port, server_account, serving_port

if TYPE_CHECKING:
    from collections.abc import Iterator

START_TIMEOUT_S = 60.0
# All that makes a commit durable keeps its default. Checkpoints come when a measurement asks for one, so that full-page
# images are counted where they belong.
_OPTIONS = ("checkpoint_timeout=1h", "max_wal_size=8GB", "shared_buffers=128MB", "max_connections=30")


class Postgres:
    """A running server."""

    def __init__(self, programs: Programs, port: int) -> None:
        self._programs = programs
        self._port = port
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            row = connection.execute("SELECT current_setting('server_version'), current_setting('fsync')").fetchone()
            assert row is not None
            self.version, fsync = row
            assert fsync == "on"

    def create_database(self) -> str:
        """Make an empty database and return its connection string."""
        name = f"bench_{secrets.token_hex(4)}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self._dsn(name)

    @property
    def psql(self) -> str:
        """The real program: some distributions have a Perl script before it."""
        return str(self._programs.bin_dir / "psql")

    def _dsn(self, database: str) -> str:
        return make_conninfo(host="127.0.0.1", port=self._port, dbname=database, user="postgres", sslmode="disable")


@contextmanager
def serving(work: Path) -> Iterator[Postgres]:
    """Run a server with its data in ``work``."""
    base = work / "postgres"
    base.mkdir()
    account = server_account(base.stat())
    descriptor = os.open(base, os.O_RDONLY)
    account.own(descriptor)
    os.close(descriptor)
    programs = find_programs(account, copies=base)
    data = base / "data"
    words = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")
    code, output = programs.run("initdb", "-D", str(data), *words)
    assert code == 0, output
    port = free_port()
    log = base / "log"
    with log.open("ab") as file:
        process = programs.spawn(data, port, _OPTIONS, log_fd=file.fileno())
    try:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while serving_port(data) != port:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up_at, log.read_text()
            time.sleep(0.01)
        yield Postgres(programs, port)
    finally:
        end(process)
        shutil.rmtree(base, ignore_errors=True)


class Wal:
    """The WAL between two moments, and how much of it is full-page images: those come once a page and checkpoint."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self._connection = connection
        available = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_walinspect'").fetchone()
        self.splits = available is not None
        if self.splits:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")

    def position(self) -> str:
        """The end of the WAL now."""
        return str(self._one("SELECT pg_current_wal_insert_lsn()::text"))

    def between(self, start: str, stop: str) -> tuple[float, float]:
        """Bytes written without full-page images, and bytes of these (0 where they cannot be told apart)."""
        written = float(str(self._one("SELECT pg_wal_lsn_diff(%s::pg_lsn, %s::pg_lsn)", stop, start)))
        if not self.splits or not written:
            return written, 0.0
        images = self._one(
            "SELECT coalesce(sum(fpi_size), 0) FROM pg_get_wal_stats(%s::pg_lsn, %s::pg_lsn)", start, stop
        )
        return written - float(str(images)), float(str(images))

    def _one(self, query: str, *params: object) -> object:
        row = self._connection.execute(query.encode(), params).fetchone()
        assert row is not None
        return row[0]


def file_system_of(path: Path) -> str:
    """The kind of file system that holds ``path``: on a tmpfs no number here means what it says."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [(len(words[1]), words[2]) for words in mounts if path.resolve().is_relative_to(words[1])]
    return max(inside)[1]
