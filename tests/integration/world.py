"""What these tests work on: a database with the schema, folders, and starts of authsync in them; all of it is real."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg.conninfo import conninfo_to_dict

from authsync.config import Settings
from authsync.core.clearing import Child
from authsync.core.debounce import Batch
from authsync.core.manifest import Delta, Entry, Manifest, content_entry
from authsync.marker import Marker
from authsync.reconcile import open_session, write_marker
from authsync.start import Opening, acquire, ensure_schema, make_directory, new_start
from authsync.store import files, leases, snapshots
from authsync.store.connection import Database, Trying
from authsync.store.files import Push, Row
from authsync.store.leases import Lease, Start
from tests.support.proxy import FaultyProxy
from tests.support.stored import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from authsync.core.ownership import NoRow
    from authsync.core.reconcile import SessionState
    from authsync.line import Line, Report

TTL_S = 10.0
PATIENT = Trying(budget_s=20.0)
ONCE = Trying(budget_s=0.0)
"""One try."""
WAIT_S = 60.0
"""How long a condition may take to come true before it counts as never."""

T = TypeVar("T")
Rows = list[dict[str, Any]]


def until(condition: Callable[[], T], what: str) -> T:
    """Wait for a condition, and return the true value that it gave."""
    give_up_at = time.monotonic() + WAIT_S
    while not (value := condition()):
        assert time.monotonic() < give_up_at, f"never: {what}"
        time.sleep(0.005)
    return value


def wait_for_moment(moment: float) -> None:
    """Wait until the monotonic clock is past ``moment``, which the code under test named."""
    until(lambda: time.monotonic() > moment, "the moment came")


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Do something beside the test; ``result`` gives what it returned, or raises what it raised."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - carried to the test
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class World:
    """One database with the schema, and a place for folders."""

    def __init__(self, dsn: str, home: Path, stack: contextlib.ExitStack) -> None:
        self.dsn = dsn
        self.home = home
        self.stored = Stored(dsn)
        self._stack = stack

    def database(self, dsn: str | None = None, schema: str = "authsync") -> Database:
        """A database as one thread of a process has it; closed after the test."""
        db = Database(dsn or self.dsn, schema)
        self._stack.callback(db.close)
        return db

    def proxy(self) -> FaultyProxy:
        """A proxy before the server."""
        fields = conninfo_to_dict(self.dsn)
        return self._stack.enter_context(FaultyProxy((str(fields["host"]), int(str(fields["port"])))))

    def settings(
        self, folder: str = "auth_info", *, dsn: str | None = None, session: str = "default", scope: str = "shop"
    ) -> Settings:
        """The settings of a command."""
        return Settings(
            database_url=dsn or self.dsn, directory=self.home / folder, session_id=session, scope=scope, budget_s=20.0
        )

    def start(self, folder: str = "auth_info", *, dsn: str | None = None) -> Started:
        """A start that owns the session and has reconciled its folder."""
        started = self.begin(folder, dsn=dsn)
        started.acquire()
        started.open()
        return started

    def begin(
        self,
        folder: str = "auth_info",
        *,
        force: bool = False,
        required: bool = False,
        dsn: str | None = None,
        scope: str = "shop",
    ) -> Started:
        """A start that has its folder and the marker's lock, and nothing else yet."""
        started = Started(self, self.settings(folder, dsn=dsn, scope=scope), force=force, required=required)
        self._stack.callback(started.opening.marker.unlock)
        return started

    def owner(self, session: str = "default", *, scope: str = "shop", dsn: str | None = None) -> Owner:
        """Somebody who just took the session, whoever had it."""
        return Owner(self, self.database(dsn), session, scope)

    # What the database holds

    def lines(self, *tables: str) -> dict[str, Rows]:
        """All rows of tables, and when each was written: equal before and after if nothing wrote them."""
        return {
            table: sorted(self.stored.rows(f"SELECT xmin::text, * FROM {{s}}.{table}"), key=repr) for table in tables
        }

    def history(self, path: str) -> list[tuple[int, int | None, bytes]]:
        """All rows of a file of the line: born, died, content."""
        rows = self.stored.rows(
            "SELECT born, died, content FROM {s}.files WHERE session_id = 'default' AND branch = 0 AND path = %s"
            " ORDER BY born",
            path,
        )
        return [(row["born"], row["died"], bytes(row["content"])) for row in rows]

    def count(self, what: str, *values: object) -> int:
        """Count the rows of a table, or of whatever may follow FROM."""
        return int(self.stored.rows(f"SELECT count(*) FROM {what}", *values)[0]["count"])

    def expire(self, session: str = "default") -> None:
        """End a lease, as its time would."""
        self.stored.execute(
            "UPDATE {s}.sessions SET expires_at = clock_timestamp() - interval '1 ms' WHERE session_id = %s", session
        )

    def wait_locked(self, count: int = 1) -> None:
        """Wait until so many statements of authsync wait for a lock."""
        until(
            lambda: (
                self.count(
                    "pg_stat_activity WHERE application_name = 'authsync' AND datname = current_database()"
                    " AND wait_event_type = 'Lock'"
                )
                >= count
            ),
            "a statement waits for a lock",
        )


class Started:
    """One start of authsync in one folder, as the threads of ``run`` perform it."""

    def __init__(self, world: World, settings: Settings, *, force: bool, required: bool) -> None:
        self.world = world
        self.told: list[tuple[str, dict[str, object]]] = []
        db = world.database(settings.database_url)
        directory = make_directory(settings)
        directory.make()
        marker = Marker(directory.root)
        marker.lock()
        self.opening = Opening(
            settings=settings,
            start=new_start(settings, "run"),
            db=db,
            directory=directory,
            marker=marker,
            tell=lambda event, **fields: self.told.append((event, fields)),
            force=force,
            require_session=required,
        )
        self.root = directory.root
        self._lease: Lease | None = None
        self._line: Line | None = None

    def acquire(self, *, wait: bool = False) -> Lease:
        """Own the session."""
        ensure_schema(self.opening, PATIENT)
        self._lease = acquire(self.opening, PATIENT, wait=wait)
        return self._lease

    def open(self) -> Line:
        """Reconcile the folder."""
        assert self._lease is not None
        self._line = open_session(self.opening, self._lease, PATIENT)
        return self._line

    @property
    def line(self) -> Line:
        """The line, once opened."""
        assert self._line is not None
        return self._line

    def flush(self, *paths: str, child: Child = Child.ALIVE, trying: Trying = PATIENT) -> Report:
        """Flush these paths, or compare the whole folder if none is named."""
        return self.line.flush(Batch(paths=frozenset(paths), scan=not paths), child=child, trying=trying)

    def events(self) -> list[str]:
        """What it told, without the fields."""
        return [event for event, _ in self.told]

    def end(self) -> None:
        """End in good order: the folder is clean, the session free."""
        write_marker(self.opening, self.line, clean=True)
        self.die()
        self.opening.db.call(lambda c: leases.release(c, self.opening.db, self.line.fence, outcome="done"))

    def die(self) -> None:
        """End as by SIGKILL: nothing is said to anybody, and the kernel frees the marker's lock."""
        self.opening.marker.unlock()


class Owner:
    """An owner at the level of statements: what it believes the line to be, and its fence."""

    def __init__(self, world: World, db: Database, session: str, scope: str) -> None:
        self.world = world
        self.db = db
        self.start = a_start(scope=scope)
        lease = db.call(lambda c: leases.acquire(c, db, session, self.start, ttl_s=TTL_S, force=True))
        assert lease is not None
        self.fence = lease.fence
        self.revision = lease.head.revision
        held = Stored(world.dsn, session).files()
        self.manifest = Manifest({path: content_entry(content) for path, content in held.items()})

    def order(
        self, write: Mapping[str, bytes], remove: Iterable[str] = (), *, state: SessionState | None = None
    ) -> Push:
        """A flush of these changes, not yet sent."""
        return Push(
            push_id=str(uuid.uuid4()),
            fence=self.fence,
            revision=self.revision,
            totals=self.manifest.totals_after(self._delta(write, remove)),
            state=state,
            rows=[Row(path, content, content_entry(content)) for path, content in write.items()],
            removed=list(remove),
        )

    def send(self, push: Push) -> int | NoRow:
        """Send a flush: the new revision, or why there is none."""
        return self.db.call(lambda c: files.push(c, self.db, push, ttl_s=TTL_S))

    def flush(
        self, write: Mapping[str, bytes], remove: Iterable[str] = (), *, state: SessionState | None = None
    ) -> int:
        """Flush these changes, which has to succeed."""
        revision = self.send(self.order(write, remove, state=state))
        assert isinstance(revision, int), revision
        self.revision = revision
        self.manifest.apply(self._delta(write, remove))
        return revision

    def snapshot(self, reason: str = "manual", *, paired: bool = False, note: str | None = None) -> int | NoRow | None:
        """Take a snapshot."""
        return self.db.call(lambda c: snapshots.take(c, self.db, self.fence, reason=reason, paired=paired, note=note))

    def kept(self, reason: str = "manual", *, paired: bool = False) -> int:
        """Take a snapshot, which has to give one."""
        number = self.snapshot(reason, paired=paired)
        assert isinstance(number, int), number
        return number

    def release(self) -> None:
        """Give the session back."""
        self.db.call(lambda c: leases.release(c, self.db, self.fence, outcome="done"))

    @staticmethod
    def _delta(write: Mapping[str, bytes], remove: Iterable[str]) -> Delta:
        changed: dict[str, Entry] = {path: content_entry(content) for path, content in write.items()}
        return Delta(changed=changed, removed=frozenset(remove))


def a_start(*, scope: str = "shop", host: str = "here") -> Start:
    """A start for the registry."""
    return Start(
        owner=str(uuid.uuid4()),
        command="run",
        scope=scope,
        deployment=None,
        host=host,
        boot_id="boot",
        version="1.0",
    )
