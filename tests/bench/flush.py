"""Flushes: how long after close(2) a change is durable, and what it costs beside the old way.

The old way, which authsync replaces, read the whole folder and wrote it as one JSONB value at each change of the
credentials. Here it does that alone, without the HTTP request and the second of waiting that came before it.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg.types.json import Jsonb

from tests.bench import corpus
from tests.bench.postgres import Postgres, Wal
from tests.bench.product import Installed, Running, logged_at
from tests.bench.samples import Row, Spread, paired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

QUIET_MS = 50.0
"""authsync's default --debounce: it waits so long by intention, and both are stated."""
WAL_TARGET_KB = 8.0
WARM_UP_FLUSHES = 40
"""After a checkpoint, until each page that a flush touches has had its full-page image; the old way takes new pages."""

SETTLE_S = 0.3
"""After an old save: the megabytes that it left to write are not the next flush's."""

# The table of the system that authsync replaces.
_OLD_TABLE = """
CREATE TABLE whatsapp_sessions (
    id SERIAL PRIMARY KEY,
    session_id VARCHAR(100) DEFAULT 'default' UNIQUE,
    session_data JSONB NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
)
"""
_OLD_SAVE = """
INSERT INTO whatsapp_sessions (session_id, session_data) VALUES ('default', %s)
ON CONFLICT (session_id) DO UPDATE SET session_data = excluded.session_data, updated_at = CURRENT_TIMESTAMP
"""

Connection = psycopg.Connection[tuple[object, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """Of one change."""

    ms: float
    wal_kb: float
    images_kb: float


class _Bot:
    """Writes ``creds.json`` as Baileys does, and sees when authsync has stored it."""

    def __init__(self, folder: Path, running: Running) -> None:
        self._path = folder / "creds.json"
        self._running = running
        self.counter = 0

    def change(self) -> bytes:
        """Write the next version: truncate, write, close."""
        self.counter += 1
        content = corpus.creds(self.counter)
        self._path.write_bytes(content)
        return content

    def flush(self) -> float:
        """Milliseconds from close(2) until the process had the answer to its commit."""
        self._running.forget_lines()
        self.change()
        closed_at = time.time()
        return (logged_at(self._running.wait_for("flush_done")) - closed_at) * 1000


@contextmanager
def _running_bot(installed: Installed, dsn: str, folder: Path, count: int) -> Iterator[_Bot]:
    corpus.write_folder(folder, count)
    with Running(installed.command("run", "--dir", str(folder), "--", "sleep", "86400"), dsn) as running:
        running.wait_for("child_started")
        time.sleep(1.0)  # the scan that follows the watch
        yield _Bot(folder, running)


def latency(postgres: Postgres, installed: Installed, work: Path, *, quick: bool) -> Iterator[Row]:
    """close(2) of a ``creds.json`` to its durable commit, against a bare UPDATE of the same bytes."""
    dsn = postgres.create_database()
    pairs = []
    with (
        _running_bot(installed, dsn, work / "latency", 1000) as bot,
        psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection,
    ):
        connection.execute("CREATE TABLE bare (id int PRIMARY KEY, content bytea)")
        connection.execute("INSERT INTO bare VALUES (1, '')")
        for number in range(30 if quick else 200):
            baseline = 0.0 if number % 2 else _bare_update(connection, bot.counter + 1)
            ours = bot.flush()
            pairs.append((ours, baseline or _bare_update(connection, bot.counter)))
    del pairs[:5]  # a warm-up
    yield Row(
        suite="flush latency",
        what="close(2) to commit, the quiet period included",
        unit="ms",
        ours=Spread.of([ours for ours, _ in pairs]),
        against=f"quiet period: {QUIET_MS:g} ms",
    )
    yield paired(
        "flush latency",
        "the same less the quiet period",
        "ms",
        [(ours - QUIET_MS, baseline) for ours, baseline in pairs],
        against="a bare UPDATE of the bytes",
    )


def _bare_update(connection: Connection, counter: int) -> float:
    content = corpus.creds(counter)
    began = time.perf_counter()
    connection.execute("UPDATE bare SET content = %b WHERE id = 1", (content,))
    return (time.perf_counter() - began) * 1000


def cost(postgres: Postgres, installed: Installed, work: Path, *, quick: bool) -> Iterator[Row]:
    """Time and WAL per changed ``creds.json``, against the whole folder as one JSONB value."""
    for count in (100, 1000) if quick else (100, 1000, 10_000):
        pairs, images = _costs(postgres.create_database(), installed, work / f"cost-{count}", count, quick=quick)
        suite, against = f"flush of 1 in {count:,} files", "the folder as one JSONB"
        yield paired(suite, "time, the quiet period apart", "ms", [(a.ms, b.ms) for a, b in pairs], against=against)
        yield paired(
            suite,
            "WAL between checkpoints",
            "KB",
            [(a.wal_kb, b.wal_kb) for a, b in pairs],
            against=against,
            target=WAL_TARGET_KB,
            limited="ours",
        )
        if images is not None:
            what = "full-page images after a checkpoint, in all"
            yield paired(suite, what, "KB", [images], against=against)


def _costs(
    dsn: str, installed: Installed, folder: Path, count: int, *, quick: bool
) -> tuple[list[tuple[_Cost, _Cost]], tuple[float, float] | None]:
    """Of each change, ours and the old way's; and the KB of full-page images that came before them, once."""
    rounds = max(5, min(40, 20_000 // count)) // (2 if quick else 1)
    with (
        _running_bot(installed, dsn, folder, count) as bot,
        psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection,
    ):
        wal = Wal(connection)
        connection.execute(_OLD_TABLE.encode())
        _old_save(connection, folder)

        def measured(change: Callable[[], float], times: int = 1) -> _Cost:
            start = wal.position()
            ms = sum(change() for _ in range(times)) / times
            written, images = wal.between(start, wal.position())
            return _Cost(ms=ms, wal_kb=written / 1024, images_kb=images / 1024)

        def ours() -> _Cost:
            time.sleep(SETTLE_S)
            return measured(lambda: bot.flush() - QUIET_MS)

        def old() -> _Cost:
            return measured(lambda: _old_save(connection, folder))

        connection.execute("CHECKPOINT")
        first = measured(bot.flush, WARM_UP_FLUSHES), measured(lambda: _old_save(connection, folder), 3)
        # The old way saves the version that authsync has just stored: both handle the same change.
        pairs = [(ours(), old()) for _ in range(rounds)]
    return pairs, (first[0].images_kb, first[1].images_kb) if wal.splits else None


def _old_save(connection: Connection, folder: Path) -> float:
    began = time.perf_counter()
    content = {path.name: json.loads(path.read_bytes()) for path in folder.iterdir() if not path.name.startswith(".")}
    connection.execute(_OLD_SAVE.encode(), (Jsonb(content),))
    return (time.perf_counter() - began) * 1000
