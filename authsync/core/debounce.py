"""When to flush: a quiet period with a maximum delay over a set of dirty paths, full scans, and second looks.

The set is bounded by the number of files, however long the database is away. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one flush looks at."""

    paths: frozenset[str] = frozenset()
    scan: bool = False
    """Compare the whole folder: what events missed."""


class FlushSchedule:
    """The dirty paths and the moment at which they are due."""

    def __init__(self, *, quiet_s: float, max_delay_s: float, interval_s: float, now: float) -> None:
        self._quiet_s = quiet_s
        self._max_delay_s = max_delay_s
        self._interval_s = interval_s
        self._dirty: set[str] = set()
        self._first_at = inf
        self._last_at = -inf
        self._again: dict[str, float] = {}
        self._scan_at = now + interval_s
        self._not_before = -inf

    @property
    def waiting(self) -> frozenset[str]:
        """The paths that wait."""
        return frozenset(self._dirty | self._again.keys())

    def touch(self, paths: Iterable[str], now: float) -> None:
        """These paths changed just now."""
        touched = frozenset(paths)
        self._dirty |= touched
        if touched:
            self._first_at = min(self._first_at, now)
            self._last_at = now

    def look_again(self, times: Mapping[str, float]) -> None:
        """Look at these paths at their times, changed or not (a torn read, a deletion that waits)."""
        self._again.update(times)

    def scan_by(self, at: float) -> None:
        """Scan the whole folder no later than ``at``."""
        self._scan_at = min(self._scan_at, at)

    def scan_soon(self, now: float) -> None:
        """Scan after the quiet period: something happened that events cannot tell whole."""
        self.scan_by(now + self._quiet_s)

    def hold_off(self, until: float) -> None:
        """Flush nothing before ``until``: the database is away, and the paths only gather."""
        self._not_before = until

    @property
    def due_at(self) -> float:
        """When the next flush is due; never earlier than a hold-off, never infinite (the scan comes round)."""
        quiet = min(self._last_at + self._quiet_s, self._first_at + self._max_delay_s) if self._dirty else inf
        return max(self._not_before, min(quiet, self._scan_at, min(self._again.values(), default=inf)))

    def take(self, now: float, *, everything: bool = False) -> Batch:
        """What to flush now; the schedule then starts over. ``everything`` also takes what waits for a second look."""
        looks = {path for path, at in self._again.items() if everything or at <= now}
        scan = self._scan_at <= now
        batch = Batch(paths=frozenset(self._dirty | looks), scan=scan)
        for path in batch.paths:
            self._again.pop(path, None)
        self._dirty.clear()
        self._first_at, self._last_at = inf, -inf
        if scan:
            self._scan_at = now + self._interval_s
        return batch

    def give_back(self, batch: Batch, now: float) -> None:
        """``batch`` could not be stored: it waits again."""
        self.touch(batch.paths, now)
        if batch.scan:
            self.scan_by(now)
