"""Which snapshots are kept: thinned like restic's, some pinned whatever the policy says.

Reasons are ordered: where two would be taken of one revision, the snapshot carries the one that is kept longer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

PINNED_FOR = timedelta(days=30)
PINNED = frozenset({"cleared", "identity", "diverged", "rollback", "manual"})
"""Reasons that are kept for PINNED_FOR, whatever the policy says."""

REASONS = ("hourly", "start", "paired", "manual", "rollback", "diverged", "identity", "cleared")
"""All reasons, the one that is kept longest last."""

_PERIODS = {"hourly": "%Y-%m-%d %H", "daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A restore point, as far as keeping it is concerned."""

    number: int
    taken_at: datetime
    reason: str
    paired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPolicy:
    """How many snapshots to keep: the newest ``last``, and the newest of each of so many periods."""

    last: int = 8
    periods: tuple[tuple[str, int], ...] = (("hourly", 24), ("daily", 7))


def parse_keep(text: str) -> KeepPolicy:
    """The policy that ``last=8,hourly=24,daily=7`` describes; what is not named is not kept.

    Raises:
        ValueError: an unknown period, or a count that is no number.
    """
    last, periods = 0, []
    for item in text.split(","):
        name, _, count = item.strip().partition("=")
        if not count.isdecimal():
            raise ValueError(f"{item.strip()!r} is not like last=8")
        if name == "last":
            last = int(count)
        elif name in _PERIODS:
            periods.append((name, int(count)))
        else:
            raise ValueError(f"{name!r} is none of last, {', '.join(_PERIODS)}")
    return KeepPolicy(last=last, periods=tuple(periods))


def longer_kept(one: str, other: str) -> str:
    """Of two reasons, the one that keeps a snapshot longer."""
    return max(one, other, key=REASONS.index)


def to_forget(snapshots: Iterable[Snapshot], policy: KeepPolicy, *, now: datetime) -> frozenset[int]:
    """The numbers of the snapshots that nothing keeps.

    The newest snapshot of a paired identity is always kept.
    """
    newest_first = sorted(snapshots, key=lambda s: (s.taken_at, s.number), reverse=True)
    kept = {s.number for s in newest_first[: policy.last]}
    kept |= {s.number for s in newest_first if s.reason in PINNED and now - s.taken_at < PINNED_FOR}
    kept |= {s.number for s in [s for s in newest_first if s.paired][:1]}
    for period, count in policy.periods:
        newest_of: dict[str, int] = {}
        for snapshot in newest_first:
            newest_of.setdefault(snapshot.taken_at.strftime(_PERIODS[period]), snapshot.number)
        kept |= set(list(newest_of.values())[:count])
    return frozenset(s.number for s in newest_first if s.number not in kept)
