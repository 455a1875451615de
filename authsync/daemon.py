"""The composition root of ``run`` and ``watch``: one mailbox, and the effects of ``core/lifecycle``.

The main thread reads the mailbox, steps the state machine, starts the child and decides when to flush. The store thread
does the database work, the lease thread renews; watchdog's threads and the reaper only post.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from queue import Empty
from signal import SIGKILL, SIGUSR1, Signals

from authsync import __version__, log, signals
from authsync.child import Child, find_command
from authsync.config import RunSettings
from authsync.core import lifecycle
from authsync.core.debounce import Batch, FlushSchedule
from authsync.core.flushplan import NoteKind
from authsync.core.lifecycle import Effect, Phase, SendSignal, State, step
from authsync.errors import AuthsyncError, FencedError, UnstoredError
from authsync.folderwatch import FolderWatch, Woken
from authsync.leasethread import OrderSeen, PutBackSeen
from authsync.reporting import Reporter
from authsync.store.connection import host_of
from authsync.storethread import FLUSH_BUDGET_S, BotLife, FlushDone, FlushFailed, StoreThread

LONGEST_WAIT_S = 0.5
"""A ``SimpleQueue.get`` that two signals interrupt at once may sleep on beside a full queue, until its timeout."""
HOLD_OFF_S = 1.0
"""After a flush that could not be stored."""
DRAIN_RETRY_S = 0.2
"""The same, once we were told to stop."""
PAIRED_SCAN_S = 5.0
HOURLY_S = 3600.0
LAST_ROUNDS = 5
"""Flushes of a drain: each looks again at what still moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How it ended."""

    exit_code: int
    error: AuthsyncError | None


class Daemon:
    """One ``run`` or ``watch``."""

    def __init__(self, settings: RunSettings) -> None:
        now = time.monotonic()
        self._settings = settings
        self._mailbox = signals.mailbox
        self._state = State(limits=settings.limits, has_child=bool(settings.command))
        self._schedule = FlushSchedule(
            quiet_s=settings.debounce_s, max_delay_s=settings.max_delay_s, interval_s=settings.interval_s, now=now
        )
        self._store = StoreThread(settings, command="run" if settings.command else "watch", post=self._mailbox.put)
        self._reporter = Reporter(now)
        self._folder = FolderWatch(self._store, self._schedule, self._reporter, post=self._mailbox.put)
        self._process: Child | None = None
        self._error: AuthsyncError | None = None
        self._in_flight: Batch | None = None
        self._last: Batch | None = None
        """The flush that may be the last: submitted after the bot had ended."""
        self._drain_at = inf
        self._drain_rounds = 0
        self._hourly_at = inf
        self._paired_scan_at = inf
        self._on_message: dict[type, Callable[..., None]] = {
            Signals: self._signalled,
            Woken: lambda _message, now: self._folder.collect(now),
            FlushDone: self._flush_done,
            FlushFailed: self._flush_failed,
            OrderSeen: self._order_seen,
            PutBackSeen: self._put_back_seen,
        }
        self._effects: dict[Effect, Callable[[float], None]] = {
            Effect.START_CHILD: self._start_child,
            Effect.CANCEL_OPENING: lambda _now: self._store.patience.cancel(),
            Effect.FLUSH_NOW: self._flush_soon,
            Effect.HURRY: self._hurry,
            Effect.KILL_CHILD: self._kill_child,
            Effect.DRAIN: self._drain,
            Effect.KEEP_COPY: self._keep_copy,
            Effect.CLOSE: self._close,
        }

    def run(self) -> Ended:
        """Run until the end."""
        settings = self._settings
        if settings.command:
            find_command(settings.command)  # before anything is touched
        log.get().info(
            "started",
            version=__version__,
            directory=str(self._store.directory.root),
            session=settings.session_id,
            scope=settings.scope,
            deployment=settings.deployment,
            database_host=host_of(settings.database_url),
            stop_timeout_s=settings.stop_timeout_s,
            grace_s=settings.grace_s,
        )
        self._store.open()
        while self._state.phase is not Phase.ENDED:
            try:
                timeout_s = max(0.0, self._next_at() - time.monotonic())
                message = self._mailbox.get(timeout=min(timeout_s, LONGEST_WAIT_S))
            except Empty:
                message = lifecycle.Tick()
            self._receive(message)
            self._do_what_is_due()
        self._folder.stop()
        return self._ended()

    def _ended(self) -> Ended:
        state, line = self._state, self._store.line
        in_flight = self._in_flight.paths if self._in_flight is not None else frozenset()
        unstored = max(1, len(self._schedule.waiting | in_flight)) if state.unstored else 0
        if unstored:
            log.get().warning("changes_unstored", paths=unstored)
        log.get().info(
            "stopped",
            code=state.exit_code,
            reason=self._reason(),
            unflushed=unstored + len(self._reporter.torn),
            revision=line.revision if line is not None else None,
        )
        error = self._error or self._store.error
        if state.exit_code == UnstoredError.exit_code and state.unstored:
            error = UnstoredError(
                f"the bot ended well, but {unstored} changed paths could not be stored",
                hint="the folder still holds them: start again here, or `authsync backup` when the database answers",
            )
        return Ended(exit_code=state.exit_code, error=error)

    def _next_at(self) -> float:
        flush_at = self._schedule.due_at if self._may_flush() else inf
        look_at = self._folder.look_at if self._bot_may_write() else inf
        return min(
            self._state.deadline, flush_at, look_at, self._drain_at, self._hourly_at, time.monotonic() + HOURLY_S
        )

    def _receive(self, message: object) -> None:
        """One message: the state machine's events are stepped, the others go to their handlers."""
        now = time.monotonic()
        handler = self._on_message.get(type(message))
        if handler is not None:
            handler(message, now)
        else:
            assert isinstance(message, lifecycle.Event)
            self._before_step(message, now)
            self._step(message, now)
        self._step(lifecycle.Tick(), now)

    def _before_step(self, event: lifecycle.Event, now: float) -> None:
        match event:
            case lifecycle.Opened():
                self._hourly_at = now + HOURLY_S
                self._folder.start(now)  # before the child: no event is missed
                if not self._settings.command:
                    log.get().info("watch_ready")
            case lifecycle.FenceLost():
                self._fence_lost(event.reason)
            case lifecycle.ChildEnded():
                log.get().info("child_ended", code=event.code)

    def _step(self, event: lifecycle.Event, now: float) -> None:
        self._state, effects = step(self._state, event, now)
        for effect in effects:
            if isinstance(effect, SendSignal):
                self._signal(effect.signum)
            else:
                self._effects[effect](now)

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        if now >= self._drain_at:
            self._drain_at = inf
            self._drain(now)
        if now >= self._hourly_at:
            self._hourly_at = now + HOURLY_S
            self._store.snapshot("hourly")
        if self._bot_may_write():
            self._folder.look(now)
        if self._may_flush() and self._schedule.due_at <= now:
            self._submit(self._schedule.take(now), FLUSH_BUDGET_S)

    def _bot_may_write(self) -> bool:
        return self._state.phase in {Phase.RUNNING, Phase.STOPPING}

    def _may_flush(self) -> bool:
        return self._bot_may_write() and self._in_flight is None and not self._state.fenced

    def _reason(self) -> str:
        state = self._state
        if state.failure is not None:
            return "failed"
        if state.fenced:
            return "fence lost"
        return Signals(state.signum).name if state.signum is not None else "child ended"

    def _signalled(self, signum: Signals, now: float) -> None:
        self._step(lifecycle.FlushAsked() if signum is SIGUSR1 else lifecycle.Signalled(int(signum)), now)

    # What became of a job

    def _flush_done(self, done: FlushDone, now: float) -> None:
        if done.batch is self._in_flight:
            self._in_flight = None
        report = done.report
        self._reporter.report(report, now)
        self._schedule.look_again(report.look_again)
        if report.rescan:
            self._schedule.scan_by(now)
        if any(note.kind is NoteKind.PAIRED for note in report.notes):
            self._paired_scan_at = now + PAIRED_SCAN_S
            self._schedule.scan_by(self._paired_scan_at)
        if done.batch.scan:
            self._reporter.summarise(now)
            if now >= self._paired_scan_at or (self._paired_scan_at < inf and self._state.phase is Phase.DRAINING):
                self._paired_scan_at = inf
                self._store.snapshot("paired")
        if self._state.phase is Phase.DRAINING:
            self._drained(done, now)

    def _fence_lost(self, reason: str) -> None:
        if self._error is None:
            self._error = FencedError(reason, hint="nothing more was written; see `authsync status` for its owners")
            log.get().error("fence_lost", error=reason)

    def _drained(self, done: FlushDone, now: float) -> None:
        """One flush of the drain ended: another while something is held or moves, or the end."""
        held_until = done.report.held_until
        if self._state.fenced:
            self._step(lifecycle.FlushSettled(stored=False), now)
        elif done.batch is not self._last:
            self._drain(now)  # that one was submitted while the bot still wrote
        elif held_until is not None:
            self._drain_at = held_until
        elif done.report.look_again and self._drain_rounds < LAST_ROUNDS:
            self._drain_at = now + DRAIN_RETRY_S
        else:
            self._step(lifecycle.FlushSettled(stored=True), now)

    def _flush_failed(self, failed: FlushFailed, now: float) -> None:
        if failed.batch is self._in_flight:
            self._in_flight = None
        self._schedule.give_back(failed.batch, now)
        if self._state.fenced:
            self._step(lifecycle.FlushSettled(stored=False), now)
        elif self._state.phase is Phase.DRAINING:
            self._drain_at = now + DRAIN_RETRY_S
        else:
            self._schedule.hold_off(now + HOLD_OFF_S)

    def _order_seen(self, seen: OrderSeen, now: float) -> None:
        if self._state.phase is Phase.RUNNING:
            self._folder.collect(now)
            self._store.carry_out(seen.order, bot=self._bot())

    def _put_back_seen(self, _seen: PutBackSeen, _now: float) -> None:
        if self._may_flush():
            self._in_flight = Batch(scan=True)
            self._store.repair(self._in_flight, bot=self._bot())

    # Effects

    def _signal(self, signum: int) -> None:
        if self._process is not None:
            self._process.signal(signum)

    def _start_child(self, now: float) -> None:
        try:
            self._process = Child(
                self._settings.command,
                on_leader_ended=lambda code: self._mailbox.put(lifecycle.LeaderEnded(code)),
                on_ended=lambda code: self._mailbox.put(lifecycle.ChildEnded(code)),
            )
        except AuthsyncError as error:
            self._error = error
            self._step(lifecycle.Failed(error.exit_code), now)
        else:
            log.get().info("child_started", pid=self._process.pid)

    def _kill_child(self, _now: float) -> None:
        log.get().warning("child_killed", stop_timeout_s=self._settings.stop_timeout_s)
        self._signal(SIGKILL)

    def _flush_soon(self, now: float) -> None:
        self._folder.collect(now)
        self._schedule.scan_by(now)

    def _hurry(self, _now: float) -> None:
        log.get().info("stop_asked", signal=self._reason())
        self._store.hurry()

    def _submit(self, batch: Batch, budget_s: float) -> None:
        self._in_flight = batch
        self._store.flush(batch, bot=self._bot(), budget_s=budget_s, verify=batch is self._last)

    def _bot(self) -> BotLife:
        return BotLife(child=self._state.child, signalled_at=self._state.signalled_at)

    def _drain(self, now: float) -> None:
        """Flush everything, by a full scan."""
        if self._in_flight is not None or self._state.phase is not Phase.DRAINING:
            return  # the end of the one in flight comes back here
        self._drain_rounds += 1
        self._folder.collect(now)
        batch = self._schedule.take(now, everything=True)
        self._last = Batch(paths=batch.paths, scan=True)
        self._submit(self._last, max(0.1, self._state.end_at - now))

    def _keep_copy(self, _now: float) -> None:
        self._store.keep_copy("what an owner had when it lost the session")

    def _close(self, _now: float) -> None:
        self._folder.stop()
        self._hourly_at = self._drain_at = inf
        state = self._state
        stored = not (state.unstored or state.fenced or state.failure is not None or self._reporter.torn)
        self._store.close(outcome=f"{self._reason()}, code {state.exit_code}", clean=stored)
