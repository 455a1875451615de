"""What missing files mean: ordinary deletions, a logout, or a wipe that must not be followed.

A bot that lost its ``creds.json``, or over a quarter of its files, is *wiped*: its deletions are held for HOLD_S,
because removing thousands of files takes longer than a flush's maximum delay, and half a logout must never be stored.
Then:

================================================  ==========================================
what the folder shows after the hold              what happens
================================================  ==========================================
somebody signalled the bot, before it or meanwhile  kept: many bots wipe on every clean stop
``creds.json`` is still gone                      cleared (``watch`` waits WATCH_HOLD_S)
the same identity is still, or again, there       snapshot, then ordinary deletions
another identity is there                         snapshot, and one flush replaces the bot
================================================  ==========================================

Only deletions that happened while we watched get here: what is missing at start comes back from the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

DELETION_DELAY_S = 1.0
"""An ordinary deletion is flushed when the file has been gone for so long."""
HOLD_S = 2.0
SIGNAL_SLACK_S = 0.5
"""A platform that signals every process reaches the bot so much before us, at most."""
WATCH_HOLD_S = 60.0
"""``watch`` cannot know whether the bot was signalled, so a logout there waits for new credentials or for this."""
UNCLEAR_LOOK_S = 0.1
"""Whose identity comes after a wipe decides what it was: a ``creds.json`` in the middle of a write is read again."""
WIPE_SHARE = 4
"""Over one file in so many gone at once is a wipe."""
MIN_WIPE_OF_NO_BOT = 5
"""A lock file beside the bots' folders comes and goes: files of no bot are wiped in numbers only."""


class Child(Enum):
    """What became of the bot's process, as far as clearing cares."""

    ALIVE = auto()
    ENDED = auto()
    """It ended by itself; nobody signalled it."""
    STOPPING = auto()
    """Somebody signalled it, and it may still be wiping its folder: no deletion is believed yet."""
    SIGNALLED = auto()
    """It is gone, and somebody had signalled it."""


class Creds(Enum):
    """What the bot's ``creds.json`` shows."""

    SAME = auto()
    NEW = auto()
    GONE = auto()
    UNCLEAR = auto()
    """It is there, and cannot be read whole yet."""
    NONE = auto()
    """These files never belonged to a bot."""


class Action(Enum):
    """What to do with one bot's missing files."""

    DELETE = auto()
    HOLD = auto()
    """Nothing of this bot is flushed until ``look_at``."""
    KEEP = auto()
    """The deletions are not followed."""
    CLEAR = auto()
    """The whole bot goes, after a snapshot."""
    REPLACE = auto()
    """Deletions and the new identity's files in one flush, after a snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The missing files of one bot (or of the files that belong to none)."""

    missing: Mapping[str, float]
    """Path -> when it was first seen missing, in seconds of the monotonic clock. Never empty."""
    stored_count: int
    """How many files the line holds of this bot, the missing ones included."""
    creds: Creds
    creds_gone_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What happens to a removal now."""

    action: Action
    paths: frozenset[str] = frozenset()
    """What a DELETE or REPLACE removes."""
    snapshot: bool = False
    look_at: float | None = None
    """When to decide again, if anything waits."""


def is_wipe(removal: Removal) -> bool:
    """Whether this is more than ordinary deletions."""
    if removal.creds is Creds.NONE and len(removal.missing) < MIN_WIPE_OF_NO_BOT:
        return False
    return removal.creds is Creds.GONE or len(removal.missing) * WIPE_SHARE > removal.stored_count


def decide(
    removal: Removal, *, child: Child, watching: bool, now: float, signalled_at: float | None = None
) -> Decision:
    """What to do with ``removal``; see the module's table."""
    everything = frozenset(removal.missing)
    if not is_wipe(removal):
        if child is Child.STOPPING:
            return Decision(action=Action.DELETE)  # maybe the first of a wipe; the last flush decides
        if child is not Child.ALIVE:
            return Decision(action=Action.DELETE, paths=everything)
        due = frozenset(path for path, since in removal.missing.items() if now - since >= DELETION_DELAY_S)
        waiting = [since for path, since in removal.missing.items() if path not in due]
        return Decision(action=Action.DELETE, paths=due, look_at=min(waiting) + DELETION_DELAY_S if waiting else None)
    gone_since = removal.creds_gone_since if removal.creds_gone_since is not None else min(removal.missing.values())
    # Some platforms signal the bot just before us, so a wipe right before the signal counts as made on it.
    before_any_signal = signalled_at is not None and gone_since + SIGNAL_SLACK_S < signalled_at
    if child in {Child.STOPPING, Child.SIGNALLED} and not before_any_signal:
        return Decision(action=Action.KEEP)
    if now < gone_since + HOLD_S:
        return Decision(action=Action.HOLD, look_at=gone_since + HOLD_S)
    if removal.creds is Creds.UNCLEAR and child is Child.ALIVE:
        return Decision(action=Action.HOLD, look_at=now + UNCLEAR_LOOK_S)
    if removal.creds in {Creds.GONE, Creds.UNCLEAR}:
        if watching and now < gone_since + WATCH_HOLD_S:
            return Decision(action=Action.HOLD, look_at=gone_since + WATCH_HOLD_S)
        return Decision(action=Action.CLEAR, snapshot=True)
    action = Action.REPLACE if removal.creds is Creds.NEW else Action.DELETE
    return Decision(action=action, paths=everything, snapshot=True)
