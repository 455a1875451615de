"""The lease thread: renews on a connection of its own, so that no restore, flush or retry ever costs the lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from authsync import log
from authsync.core.lifecycle import FenceLost
from authsync.core.ownership import HOLDING, LEAVING, LeaseTimes, NoRow
from authsync.errors import FENCED_MESSAGE, TOMBSTONE_MESSAGE, AuthsyncError, MissingSchemaError, UnreachableError
from authsync.store import leases
from authsync.store.connection import Attempt, Database
from authsync.store.leases import Fence, Order

RENEWAL_TIMEOUT_S = 4.0
"""Under half of the TTL: a renewal that hangs leaves time for another."""
RETRY_S = 0.5
STORE, LEASE = "store", "lease"
"""Who meets an outage: flushes may fail (a full disk) while renewals work."""
LINE_EVERY_S = 10.0
"""A database that is away is worth one log line in so many seconds."""


@dataclass(frozen=True, slots=True)
class OrderSeen:
    """A one-shot left an order for us."""

    order: Order


@dataclass(frozen=True, slots=True)
class PutBackSeen:
    """The session's row is gone or older than we are: the next flush finds out what to do."""


class Outage:
    """Says at most every LINE_EVERY_S that the database is away, and once that it is back. Shared by all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}
        self._told_at = 0.0
        self.event = "database_waited_for"
        """What is told: this at a start, where no bot runs yet."""

    def tried(self, attempt: Attempt) -> None:
        """A try failed and will be repeated."""
        self.failed(attempt.error, attempt=attempt.number, elapsed_s=attempt.elapsed_s, remaining_s=attempt.remaining_s)

    def failed(self, error: AuthsyncError, *, of: str = STORE, **fields: float) -> None:
        """The database did not do what one thread asked."""
        with self._lock:
            now = time.monotonic()
            since = self._since.setdefault(of, now)
            if now - self._told_at < LINE_EVERY_S:
                return
            self._told_at = now
            event = self.event if isinstance(error, UnreachableError) else "flush_failed"
        log.get().warning(event, error=error.message, hint=error.hint, away_s=round(now - since, 1), **fields)

    def over(self, *, of: str = STORE) -> None:
        """The database did what one thread asked; it is back when no thread waits any more."""
        with self._lock:
            since = self._since.pop(of, None)
            if since is None or self._since:
                return
            told_at, self._told_at = self._told_at, 0.0
        if told_at:
            log.get().info("database_back", away_s=round(time.monotonic() - since, 1))


class LeaseThread:
    """Renews until it is stopped or the fence is lost."""

    def __init__(
        self, db: Database, line: Callable[[], tuple[Fence, int]], *, post: Callable[[object], None], outage: Outage
    ) -> None:
        self._db = db
        self._line = line
        self._post = post
        self._outage = outage
        self._times: LeaseTimes = HOLDING
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def hurry(self) -> None:
        """We were told to stop: from now on a short lease, so that a successor does not wait for a killed process."""
        self._times = LEAVING
        self._wake.set()

    def stop(self, timeout_s: float) -> None:
        """Renew no more."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        pause_s = self._times.renew_s
        while True:
            self._wake.wait(pause_s)
            self._wake.clear()
            if self._stopped:
                break
            times = self._times
            try:
                cause = self._renew(times)
            except MissingSchemaError:
                cause = NoRow.PUT_BACK  # somebody dropped our tables
            except AuthsyncError as error:
                self._outage.failed(error, of=LEASE)
                pause_s = RETRY_S
                continue
            pause_s = times.renew_s
            self._outage.over(of=LEASE)
            if cause is NoRow.PUT_BACK:
                self._post(PutBackSeen())
            elif cause is not None:
                self._post(FenceLost(TOMBSTONE_MESSAGE if cause is NoRow.TOMBSTONE else FENCED_MESSAGE))
                break
        self._db.close()

    def _renew(self, times: LeaseTimes) -> NoRow | None:
        fence, revision = self._line()
        renewal = self._db.call(
            lambda connection: leases.renew(connection, self._db, fence, ttl_s=times.ttl_s),
            timeout_s=RENEWAL_TIMEOUT_S,
        )
        if isinstance(renewal, NoRow):
            # The store thread may have acquired anew meanwhile, after the database was put back.
            return None if self._line()[0] != fence else renewal
        if renewal.revision < revision:  # read before the renewal was sent, so no flush in between explains it
            return NoRow.PUT_BACK
        if renewal.order is not None:
            self._post(OrderSeen(renewal.order))
        return None
