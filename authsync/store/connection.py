"""One connection that comes back: every statement has a deadline, every error is translated, every retry has a budget.

All statements work through PgBouncer in transaction mode: no session ``SET``, advisory session lock, LISTEN or named
prepared statement, and no ``options`` in the start-up packet.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any, Self, TypeVar

import psycopg
from psycopg import conninfo, sql
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from authsync.errors import AuthsyncError, BugError, ConfigError, MissingSchemaError, RightsError, UnreachableError
from authsync.store import embedded

T = TypeVar("T")
Connection = psycopg.Connection[tuple[Any, ...]]

CONNECT_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_S = 10.0
"""A peer that keeps TCP alive and never answers is only ended by our own deadline."""
TCP_USER_TIMEOUT_MS = 5000
"""Ends a connection whose packets are dropped."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 3.0
"""Between tries, with jitter: many containers meet a database that comes back."""

_RETRIED_CLASSES = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""SQLSTATE classes that pass: connection, read-only after a failover, rollback, resources, locks, shutdown, system."""

_REFUSALS: tuple[tuple[str, type[AuthsyncError], str, str], ...] = (
    # libpq gives no SQLSTATE for a refused connection, so its English text decides; another language is retried.
    (
        "password authentication failed",
        RightsError,
        "the database refuses the password",
        "check the password in DATABASE_URL",
    ),
    ("no password supplied", RightsError, "the database wants a password", "add the password to DATABASE_URL"),
    (
        "SASL authentication failed",
        RightsError,
        "the database refuses the password",
        "check the password in DATABASE_URL",
    ),
    (
        "no pg_hba.conf entry",
        RightsError,
        "the database admits no connection from here",
        "add a line to pg_hba.conf, or sslmode=require to DATABASE_URL",
    ),
    ("role ", RightsError, "the database does not know this user", "check the user in DATABASE_URL"),
    ("no such user", RightsError, "the pooler does not know this user", "check the user in DATABASE_URL"),
    (
        "permission denied for database",
        RightsError,
        "this user may not connect to the database",
        "GRANT CONNECT ON DATABASE … TO …",
    ),
    ("database ", ConfigError, "the server has no such database", "check the database's name in DATABASE_URL"),
    ("no such database", ConfigError, "the pooler has no such database", "check the database's name in DATABASE_URL"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A try that failed and will be repeated."""

    number: int
    elapsed_s: float
    remaining_s: float
    error: AuthsyncError


class Patience:
    """How pauses between tries are spent: ``hurry()`` shortens them from now on, ``cancel()`` ends the tries."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self._hurried = False
        self.cancelled = False

    def hurry(self) -> None:
        """Pause no longer than FIRST_PAUSE_S from now on: we were told to stop."""
        self._hurried = True
        self._woken.set()

    def cancel(self) -> None:
        """End the current tries; the last error is raised."""
        self.cancelled = True
        self._woken.set()

    def pause(self, seconds: float) -> None:
        """Wait for ``seconds``, or until somebody hurries us."""
        if self._hurried:
            time.sleep(min(seconds, FIRST_PAUSE_S))
        else:
            self._woken.wait(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trying:
    """How long a piece of database work is tried, and who hears of it."""

    budget_s: float
    patience: Patience = field(default_factory=Patience)
    on_retry: Callable[[Attempt], None] = lambda _attempt: None


class Database:
    """A lazily made, self-repairing connection. Not shared between threads: each has its own."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._schema = sql.Identifier(schema).as_string(None)
        self._connection: Connection | None = None
        self._deadline = _Deadline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection, and end a server that this process started."""
        self.close()
        embedded.stop()

    @property
    def host(self) -> str:
        """Where the database is, for people."""
        return host_of(self._url)

    def sql(self, text: str) -> bytes:
        """``text`` with ``{s}`` replaced by the quoted schema."""
        return text.replace("{s}", self._schema).encode()

    def call(self, operation: Callable[[Connection], T], *, timeout_s: float = STATEMENT_TIMEOUT_S) -> T:
        """Run ``operation`` on a live connection; at ``timeout_s`` the socket is shut down.

        Raises:
            UnreachableError: worth another try; whether the operation took effect is unknown.
            RightsError, ConfigError, MissingSchemaError: not worth one.
            BugError: PostgreSQL does not understand us.
        """
        try:
            connection = self._live()
            with self._deadline.shutting_down(connection, timeout_s):
                return operation(connection)
        except psycopg.Error as error:
            self.close()
            raise translated(error, self.host) from error
        except BaseException:
            self.close()  # the operation stopped half-way: what the server still sends belongs to nobody
            raise

    def retrying(
        self, operation: Callable[[Connection], T], trying: Trying, *, timeout_s: float = STATEMENT_TIMEOUT_S
    ) -> T:
        """As ``call``, repeated with jitter within ``trying``'s budget while the database is unreachable.

        ``operation`` must be idempotent: a COMMIT may have been applied although its answer was lost.
        """
        patience = trying.patience

        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, AuthsyncError):
                elapsed_s = state.seconds_since_start or 0.0
                trying.on_retry(
                    Attempt(
                        number=state.attempt_number,
                        elapsed_s=round(elapsed_s, 2),
                        remaining_s=round(max(0.0, trying.budget_s - elapsed_s), 2),
                        error=error,
                    )
                )

        budget = stop_after_delay(trying.budget_s)
        tries = Retrying(
            stop=lambda state: patience.cancelled or budget(state),
            wait=wait_random_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            retry=retry_if_exception_type(UnreachableError),
            sleep=patience.pause,
            before_sleep=tell,
            reraise=True,
        )
        return tries(lambda: self.call(operation, timeout_s=timeout_s))

    def still_coming(self, timeout_s: float = STATEMENT_TIMEOUT_S) -> None:
        """Rows arrive, so the running call gets its time anew: a stream is limited by its pauses, not its size."""
        self._deadline.move(timeout_s)

    def close(self) -> None:
        """Close the connection; the next call makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _live(self) -> Connection:
        if self._connection is None or self._connection.closed:
            url = embedded.ensure(self._url) if embedded.is_embedded(self._url) else self._url
            self._connection = psycopg.connect(
                url,
                autocommit=True,
                prepare_threshold=None,
                application_name="authsync",
                client_encoding="utf8",
                connect_timeout=int(CONNECT_TIMEOUT_S),
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=2,
                tcp_user_timeout=TCP_USER_TIMEOUT_MS,
            )
            encoding = self._connection.info.parameter_status("server_encoding")
            if encoding not in {None, "UTF8"}:
                self.close()
                raise ConfigError(
                    f"the database's encoding is {encoding}; file names need UTF8",
                    hint="CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
                )
        return self._connection


class _Deadline:
    """Shuts a connection's socket down at a moment, from a thread of its own that sleeps when nothing is armed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._at: float | None = None
        self._fd = -1
        self._wakes_at = inf

    @contextlib.contextmanager
    def shutting_down(self, connection: Connection, timeout_s: float) -> Iterator[None]:
        with self._condition:
            self._at, self._fd = time.monotonic() + timeout_s, connection.fileno()
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="deadline", daemon=True)
                self._thread.start()
            elif self._at < self._wakes_at:
                self._condition.notify()
        try:
            yield
        finally:
            with self._condition:
                self._at = None

    def move(self, timeout_s: float) -> None:
        with self._condition:
            if self._at is not None:
                self._at = time.monotonic() + timeout_s

    def _watch(self) -> None:
        with self._condition:
            while True:
                # Disarming wakes nobody: a flush a second must not cost a thread switch each.
                self._wakes_at = inf if self._at is None else self._at
                self._condition.wait(None if self._at is None else max(0.0, self._at - time.monotonic()))
                if self._at is not None and time.monotonic() >= self._at:
                    self._at = None
                    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as twin:
                        twin.shutdown(socket.SHUT_RDWR)


def host_of(url: str) -> str:
    """The host in ``url``, or what stands in its place."""
    if embedded.is_embedded(url):
        return "embedded"
    if "://" in url:
        return re.split(r"[/?]", url.rpartition("@")[2].rpartition("://")[2], maxsplit=1)[0] or "localhost"
    with contextlib.suppress(psycopg.Error):
        return str(conninfo.conninfo_to_dict(url).get("host") or "localhost")
    return "?"


def translated(error: psycopg.Error, host: str) -> AuthsyncError:
    """``error`` as one of ours. Server messages carry no values of ours: statements send them as parameters."""
    state = error.sqlstate or ""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if state in {"42P01", "3F000"}:
        return MissingSchemaError("the database has no authsync tables", hint="run: authsync init")
    if state == "42501":
        return RightsError(
            f"the database user lacks a right: {text}", hint="authsync init --print-sql shows what to grant"
        )
    if state[:2] == "28":
        return RightsError(f"the database refuses this user: {text}", hint="check user and password in DATABASE_URL")
    if state and state[:2] not in _RETRIED_CLASSES:
        return BugError(f"PostgreSQL answered {state}: {text}", hint="please report this, with --log-level debug")
    if not state:
        whole = str(error)
        if isinstance(error, psycopg.ProgrammingError):  # its text may quote a part of the password
            return ConfigError(
                "the database URL cannot be read",
                hint="postgresql://USER:PASSWORD@HOST:5432/DATABASE, special characters percent-encoded (@ is %40)",
            )
        for needle, kind, message, hint in _REFUSALS:
            if "FATAL" in whole and needle in whole and ("does not exist" in whole or not needle.endswith(" ")):
                return kind(f"{message} ({host})", hint=hint)
    if "failed to resolve host" in text:
        text = "its name cannot be resolved"
    return UnreachableError(
        f"the database at {host} does not answer: {text}",
        hint="check that it runs and that DATABASE_URL names its host and port",
    )
