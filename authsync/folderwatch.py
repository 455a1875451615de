"""Looks after the watched folder: its events, its watcher's life, its root made anew, a bot that writes elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from authsync import log
from authsync.core.debounce import FlushSchedule
from authsync.errors import AuthsyncError
from authsync.reporting import Reporter
from authsync.storethread import StoreThread
from authsync.watcher import Watcher

LOOK_EVERY_S = 1.0
ROOT_GONE_LOOK_S = 0.2
"""While the root is gone: a bot that logged out makes it anew and pairs at once."""
POLL_S = 2.0
"""A full scan so often where file events cannot be had."""
EMPTY_AFTER_S, EMPTY_EVERY_S = 60.0, 300.0


@dataclass(frozen=True, slots=True)
class Woken:
    """The watcher has paths."""


class FolderWatch:
    """Keeps the schedule informed of what happens in the folder. Used by the main thread."""

    def __init__(
        self, store: StoreThread, schedule: FlushSchedule, reporter: Reporter, *, post: Callable[[object], None]
    ) -> None:
        self._store = store
        self._schedule = schedule
        self._reporter = reporter
        self._watcher = Watcher(str(store.directory.root), belongs=store.directory.belongs, wake=lambda: post(Woken()))
        self._polling = False
        self._root_gone = False
        self._started_at = inf
        self._empty_told_at = -inf
        self.look_at = inf
        """When ``look`` is due."""

    def start(self, now: float) -> None:
        """Watch the folder from now on."""
        self._started_at, self.look_at = now, now + LOOK_EVERY_S
        self._watch(now)

    def stop(self) -> None:
        """Watch no more."""
        self.look_at = inf
        self._watcher.stop()

    def collect(self, now: float) -> None:
        """Hand the watcher's paths to the schedule."""
        paths, scan = self._watcher.take()
        self._schedule.touch(paths, now)
        if scan:
            self._schedule.scan_soon(now)

    def look(self, now: float) -> None:
        """See whether the watcher lives and the root is the same; what events missed is found by a scan."""
        if now < self.look_at:
            return
        self.look_at = now + LOOK_EVERY_S
        if self._polling:
            self._schedule.scan_by(now + POLL_S)
        elif not self._watcher.alive():
            self._revive(now)
        self._keep_marker()
        self._warn_if_empty(now)

    def _watch(self, now: float) -> None:
        try:
            self._watcher.start()
        except OSError as error:
            if self._store.directory.exists():
                self._polling = True
                self._reporter.warn_once("watcher_failed", "", every_s=POLL_S, error=error.strerror)
        self._schedule.scan_by(now)  # what changed before the watch was set

    def _revive(self, now: float) -> None:
        """The watcher's thread dies with its root; a root made anew is watched again."""
        if not self._store.directory.exists():
            if not self._root_gone:
                self._root_gone = True
                self._schedule.scan_by(now)
            self.look_at = now + ROOT_GONE_LOOK_S
            return
        self._root_gone = False
        self._watch(now)
        log.get().info("watcher_restarted")

    def _keep_marker(self) -> None:
        """A bot that logs out removes everything, our marker too; without it a crash would cost the lineage."""
        try:
            self._store.marker.restore_if_gone()
        except AuthsyncError as error:
            self._reporter.warn_once("failed", "marker", error=error.message, hint=error.hint)

    def _warn_if_empty(self, now: float) -> None:
        line = self._store.line
        if line is None or len(line.manifest) or now - self._started_at < EMPTY_AFTER_S:
            return
        if now - self._empty_told_at >= EMPTY_EVERY_S:
            self._empty_told_at = now
            log.get().warning("folder_empty", found=", ".join(self._store.directory.creds_nearby()) or "none")
