"""The store thread: all database work of a ``run`` or ``watch``, in order, the opening included."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from authsync import log
from authsync.config import RunSettings
from authsync.core.clearing import Child
from authsync.core.debounce import Batch
from authsync.core.lifecycle import Closed, Failed, FenceLost, Opened, Waiting
from authsync.core.retention import to_forget
from authsync.errors import AuthsyncError, BugError, DamagedError, FencedError, TombstoneError
from authsync.leasethread import LeaseThread, Outage, PutBackSeen
from authsync.line import Line, PutBackError, Report
from authsync.marker import Marker
from authsync.reconcile import flush_local, inspect, load_line, open_session, write_marker, write_restoring
from authsync.start import Opening, acquire, ensure_schema, make_directory, new_start
from authsync.store import embedded, leases, snapshots
from authsync.store.connection import Database, Patience, Trying
from authsync.store.leases import Lease, Order

FLUSH_BUDGET_S = 30.0
"""Tries of one flush while the bot runs; then its paths go back to the schedule, and it is tried again."""
CLOSE_BUDGET_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BotLife:
    """What became of the bot's process, at the moment a flush is asked for."""

    child: Child
    signalled_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushDone:
    """A flush ended well."""

    batch: Batch
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushFailed:
    """A flush could not be stored; its batch is to be flushed again."""

    batch: Batch


class StoreThread:
    """Takes jobs, and posts what became of them."""

    def __init__(self, settings: RunSettings, *, command: str, post: Callable[[object], None]) -> None:
        self._settings = settings
        self._post = post
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.patience = Patience()
        self._outage = Outage()
        self.directory = make_directory(settings)
        self.marker = Marker(self.directory.root)
        self._db = Database(settings.database_url, settings.schema)
        self._opening = Opening(
            settings=settings,
            start=new_start(settings, command),
            db=self._db,
            directory=self.directory,
            marker=self.marker,
            tell=log.tell,
            force=settings.takeover == "force",
            watching=not settings.command,
            require_session=settings.require_session,
            on_wait=lambda: post(Waiting()),
        )
        self._lease: Lease | None = None
        self._order_id: str | None = None
        """The order that is being carried out."""
        self._lease_thread: LeaseThread | None = None
        self.line: Line | None = None
        self.error: AuthsyncError | None = None
        """What ended the opening, or cost us the session."""
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    def open(self) -> None:
        """Own the session and reconcile the folder: posts Opened or Failed."""
        self._thread.start()
        self._jobs.put(self._open)

    def flush(self, batch: Batch, *, bot: BotLife, budget_s: float, verify: bool = False) -> None:
        """Flush ``batch``: posts FlushDone, FlushFailed or FenceLost. ``verify``: see ``Line.flush``."""
        self._jobs.put(lambda: self._flush(batch, bot, budget_s, verify=verify))

    def repair(self, batch: Batch, *, bot: BotLife) -> None:
        """The session's row is gone or too old: own it anew and store the folder again. Posts as ``flush``."""
        self._jobs.put(lambda: self._flush(batch, bot, FLUSH_BUDGET_S, put_back=True))

    def snapshot(self, reason: str) -> None:
        """Keep the line as it is, and thin the older snapshots."""
        self._jobs.put(lambda: self._snapshot(reason))

    def carry_out(self, order: Order, *, bot: BotLife) -> None:
        """Flush everything and keep a snapshot, because a one-shot asked for it. It asks until it is answered."""
        if self._order_id != order.id:
            self._order_id = order.id
            self._jobs.put(lambda: self._carry_out(order, bot))

    def keep_copy(self, note: str) -> None:
        """Keep the folder beside the line: posts FlushDone (with nothing flushed) or FlushFailed."""
        self._jobs.put(lambda: self._keep_copy(note))

    def hurry(self) -> None:
        """We were told to stop: short lease, short pauses."""
        self.patience.hurry()
        if self._lease_thread is not None:
            self._lease_thread.hurry()

    def close(self, *, outcome: str, clean: bool) -> None:
        """Release the lease and say goodbye: posts Closed."""
        self.patience.cancel()
        self._jobs.put(lambda: self._close(outcome, clean=clean))
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except PutBackError:
                self._post(PutBackSeen())
            except (FencedError, TombstoneError) as error:
                self._lost(error)
            except AuthsyncError as error:
                self._outage.failed(error)
            except Exception as error:  # noqa: BLE001 - whatever happens to one job, the bot's next changes are stored
                self._outage.failed(_bug(error))

    def _trying(self, budget_s: float) -> Trying:
        return Trying(budget_s=budget_s, patience=self.patience, on_retry=self._outage.tried)

    def _open(self) -> None:
        try:
            self.line = self._opened()
        except AuthsyncError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - the last line of defence: a bug must end the process, not hang it
            self._failed(_bug(error))
        else:
            self._outage.over()
            self._outage.event = "database_away"
            self._post(Opened())

    def _opened(self) -> Line:
        trying = self._trying(self._settings.start_timeout_s)
        opening = self._opening
        self.directory.make()
        self.marker.lock()
        ensure_schema(opening, trying)
        self._outage.over()
        self._lease = acquire(opening, trying, wait=True)
        held = self._lease.fence
        self._lease_thread = LeaseThread(
            Database(self._settings.database_url, self._settings.schema),
            lambda: (self.line.fence, self.line.revision) if self.line is not None else (held, 0),
            post=self._post,
            outage=self._outage,
        )
        self._lease_thread.start()
        try:
            return open_session(opening, self._lease, trying)
        except DamagedError as error:
            return self._start_on_damage(error, trying)

    def _start_on_damage(self, error: DamagedError, trying: Trying) -> Line:
        """``--on-restore-failure``: ``fresh`` is for damage only, ``local`` needs a valid marker."""
        opening, lease = self._opening, self._lease
        assert lease is not None
        scan, _, mark = inspect(opening)
        policy = self._settings.on_restore_failure
        usable = mark is not None and mark.session == self._settings.session_id and not mark.restoring
        if policy == "fail" or (policy == "local" and not usable):
            raise error
        line = load_line(opening, lease, trying)
        line.take_snapshot("diverged", trying=trying, note="before a start on damage")
        if policy == "fresh":
            write_restoring(opening)
            opening.directory.remove([*scan.manifest, *scan.twins])
            opening.tell("restored_nothing", error=error.message)
        else:
            opening.tell("restored_local", error=error.message)
            flush_local(opening, line, scan, trying)
        write_marker(opening, line, clean=False)
        return line

    def _failed(self, error: AuthsyncError) -> None:
        if self.error is None:
            self.error = error
        self._post(Failed(error.exit_code))

    def _flush(
        self, batch: Batch, bot: BotLife, budget_s: float, *, put_back: bool = False, verify: bool = False
    ) -> None:
        assert self.line is not None
        try:
            report = self.line.flush(
                batch,
                child=bot.child,
                signalled_at=bot.signalled_at,
                trying=self._trying(budget_s),
                put_back=put_back,
                verify=verify,
            )
        except (FencedError, TombstoneError) as error:
            self._lost(error)
        except AuthsyncError as error:
            self._outage.failed(error)
            self._post(FlushFailed(batch=batch))
        except Exception as error:  # noqa: BLE001 - the bot runs on whatever happens here; the flush is tried again
            self._outage.failed(_bug(error))
            self._post(FlushFailed(batch=batch))
        else:
            if report.changed:
                self._outage.over()
            self._post(FlushDone(batch=batch, report=report))

    def _snapshot(self, reason: str) -> None:
        assert self.line is not None
        number = self.line.take_snapshot(reason, trying=self._trying(FLUSH_BUDGET_S))
        if number is not None:
            log.get().info("snapshot_taken", reason=reason, snapshot=number, revision=self.line.revision)
        self._forget()

    def _forget(self) -> None:
        session_id, trying = self._settings.session_id, self._trying(FLUSH_BUDGET_S)
        kept = self._db.retrying(lambda c: snapshots.list_all(c, self._db, session_id), trying)
        now = self._db.retrying(snapshots.database_time, trying)
        forgotten = to_forget(kept, self._settings.keep, now=now)
        if forgotten:
            self._db.retrying(lambda c: snapshots.forget(c, self._db, session_id, forgotten), trying)
            log.get().info("snapshots_pruned", snapshots=len(forgotten))
        self._jobs.put(self._prune)

    def _prune(self) -> None:
        """Remove some rows, then let what waits go first."""
        session_id = self._settings.session_id
        more = self._db.call(lambda c: snapshots.prune(c, self._db, session_id))
        if more and not self.patience.cancelled:
            self._jobs.put(self._prune)

    def _carry_out(self, order: Order, bot: BotLife) -> None:
        assert self.line is not None
        self._order_id = None  # should this fail, the order still stands, and is seen again
        trying = self._trying(FLUSH_BUDGET_S)
        batch = Batch(scan=True)
        self._post(
            FlushDone(
                batch=batch,
                report=self.line.flush(batch, child=bot.child, signalled_at=bot.signalled_at, trying=trying),
            )
        )
        number = self.line.take_snapshot("manual", trying=trying, note=order.note)
        outcome = {"snapshot": number, "revision": self.line.revision, "files": len(self.line.manifest)}
        fence = self.line.fence
        self._db.retrying(lambda c: leases.finish_order(c, self._db, fence, order.id, outcome), trying)
        log.get().info("order_carried_out", **outcome)

    def _lost(self, error: AuthsyncError) -> None:
        self._post(FenceLost(error.message))

    def _keep_copy(self, note: str) -> None:
        assert self.line is not None
        batch = Batch()
        try:
            number = self.line.keep_copy(note, trying=self._trying(self._settings.grace_s))
        except AuthsyncError as error:
            self._outage.failed(error)
            self._post(FlushFailed(batch=batch))
        else:
            if number is not None:
                log.get().warning("copy_kept", snapshot=number)
            self._post(FlushDone(batch=batch, report=Report(revision=self.line.revision)))

    def _close(self, outcome: str, *, clean: bool) -> None:
        began = time.monotonic()
        if self._lease_thread is not None:
            self._lease_thread.stop(CLOSE_BUDGET_S)
        try:
            if self.line is not None and clean and self.directory.exists():
                write_marker(self._opening, self.line, clean=True)
            self.marker.unlock()
            held = self.line.fence if self.line is not None else self._lease.fence if self._lease is not None else None
            if held is not None:
                left_s = max(0.5, CLOSE_BUDGET_S - (time.monotonic() - began))
                self._db.call(lambda c: leases.release(c, self._db, held, outcome=outcome), timeout_s=left_s)
        except AuthsyncError as error:
            log.get().warning("failed", error=error.message, hint="a successor waits until the lease has expired")
        finally:
            self._db.close()
            embedded.stop()
            self._post(Closed())


def _bug(error: Exception) -> BugError:
    return BugError(
        f"{type(error).__name__} in {error.__traceback__.tb_frame.f_code.co_name if error.__traceback__ else '?'}",
        hint="this is a bug in authsync: please report it, with --log-level debug",
    )
