"""What a start does with what is stored and what lies in the folder, as a table.

=======================  ====================================  ============================================
stored                   folder                                outcome
=======================  ====================================  ============================================
nothing                  empty, or ``restoring``               empty it, start fresh
nothing                  files                                 adopt: first backup
cleared, same lineage    has a ``creds.json``                  flush: live again
cleared or deleted       empty, ``restoring`` or known         empty it, start fresh
cleared or deleted       else                                  a copy; empty it, start fresh
live                     empty, or ``restoring``               restore
live                     same lineage                          local is the newer: flush, repair from the store
live                     equal, or known                       restore what differs
live                     else                                  a copy, then restore
=======================  ====================================  ============================================

An old table of the system that authsync replaces is imported as revision 1 first; then its session is live.

*Same lineage*: the line was last written by the marker's owner, or the marker's revision and digest are the stored
ones. *Known*: the marker is ``clean``, the folder still has its digest, and its revision is below the stored one, so
that nothing lies here that the line has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class SessionState(Enum):
    """What the session's row says; the values are the database's."""

    LIVE = "live"
    CLEARED = "cleared"
    DELETED = "deleted"


class Stored(Enum):
    """What is stored, as far as this decision cares."""

    NOTHING = auto()
    LIVE = auto()
    CLEARED = auto()
    DELETED = auto()


class Folder(Enum):
    """What lies in the folder, seen from what is stored."""

    EMPTY = auto()
    """No files, or the rest of a restore that did not finish."""
    OURS = auto()
    """Same lineage, with a ``creds.json``."""
    OURS_BARE = auto()
    """Same lineage, without one."""
    OURS_KNOWN = auto()
    """Same lineage and known, with a ``creds.json``."""
    OURS_BARE_KNOWN = auto()
    EQUAL = auto()
    KNOWN = auto()
    STRANGE = auto()


class Outcome(Enum):
    """What to do."""

    START_FRESH = auto()
    """Empty the folder; the bot will pair anew."""
    ADOPT = auto()
    """Store the folder as it is."""
    FLUSH = auto()
    """Store what differs; what is torn or missing here comes from the store."""
    RESTORE = auto()
    """Make the folder what is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The line as the session's row describes it."""

    state: SessionState
    revision: int
    digest: bytes
    last_writer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What the marker in the folder says, if it is this session's (``restoring`` counts whosever it is)."""

    restoring: bool = False
    owner: str | None = None
    clean: bool = False
    revision: int = -1
    digest: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """The folder's files. Torn ones are part of the digest."""

    file_count: int
    digest: bytes
    has_creds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome, and whether the folder is kept as a copy first."""

    outcome: Outcome
    keep_copy: bool = False


_FRESH = Plan(outcome=Outcome.START_FRESH)
_FRESH_WITH_COPY = Plan(outcome=Outcome.START_FRESH, keep_copy=True)
_ADOPT = Plan(outcome=Outcome.ADOPT)
_FLUSH = Plan(outcome=Outcome.FLUSH)
_RESTORE = Plan(outcome=Outcome.RESTORE)
_RESTORE_WITH_COPY = Plan(outcome=Outcome.RESTORE, keep_copy=True)

TABLE: dict[Stored, dict[Folder, Plan]] = {
    Stored.NOTHING: {
        Folder.EMPTY: _FRESH,
        Folder.OURS: _ADOPT,
        Folder.OURS_BARE: _ADOPT,
        Folder.EQUAL: _ADOPT,
        Folder.KNOWN: _ADOPT,
        Folder.STRANGE: _ADOPT,
        Folder.OURS_KNOWN: _ADOPT,
        Folder.OURS_BARE_KNOWN: _ADOPT,
    },
    Stored.CLEARED: {
        Folder.EMPTY: _FRESH,
        Folder.OURS: _FLUSH,
        Folder.OURS_BARE: _FRESH_WITH_COPY,
        Folder.EQUAL: _FRESH_WITH_COPY,
        Folder.KNOWN: _FRESH,
        Folder.STRANGE: _FRESH_WITH_COPY,
        Folder.OURS_KNOWN: _FLUSH,
        Folder.OURS_BARE_KNOWN: _FRESH,
    },
    Stored.DELETED: {
        Folder.EMPTY: _FRESH,
        Folder.OURS: _FRESH_WITH_COPY,
        Folder.OURS_BARE: _FRESH_WITH_COPY,
        Folder.EQUAL: _FRESH_WITH_COPY,
        Folder.KNOWN: _FRESH,
        Folder.STRANGE: _FRESH_WITH_COPY,
        Folder.OURS_KNOWN: _FRESH,
        Folder.OURS_BARE_KNOWN: _FRESH,
    },
    Stored.LIVE: {
        Folder.EMPTY: _RESTORE,
        Folder.OURS: _FLUSH,
        Folder.OURS_BARE: _FLUSH,
        Folder.EQUAL: _RESTORE,
        Folder.KNOWN: _RESTORE,
        Folder.STRANGE: _RESTORE_WITH_COPY,
        Folder.OURS_KNOWN: _FLUSH,
        Folder.OURS_BARE_KNOWN: _FLUSH,
    },
}

_BY_STATE = {
    SessionState.LIVE: Stored.LIVE,
    SessionState.CLEARED: Stored.CLEARED,
    SessionState.DELETED: Stored.DELETED,
}


def classify_stored(head: Head | None) -> Stored:
    """The row of the table. Revision 0 is a row that somebody owned and never wrote: nothing."""
    return Stored.NOTHING if head is None or head.revision == 0 else _BY_STATE[head.state]


def classify_folder(head: Head | None, trace: Trace | None, local: Local) -> Folder:
    """The column of the table."""
    if local.file_count == 0 or (trace is not None and trace.restoring):
        return Folder.EMPTY
    if head is None:
        return Folder.STRANGE
    known = trace is not None and trace.clean and local.digest == trace.digest and trace.revision < head.revision
    if trace is not None and (
        (trace.owner is not None and trace.owner == head.last_writer)
        or (trace.revision == head.revision and trace.digest == head.digest)
    ):
        if local.has_creds:
            return Folder.OURS_KNOWN if known else Folder.OURS
        return Folder.OURS_BARE_KNOWN if known else Folder.OURS_BARE
    if known:
        return Folder.KNOWN
    return Folder.EQUAL if local.digest == head.digest else Folder.STRANGE


def decide(head: Head | None, trace: Trace | None, local: Local) -> Plan:
    """What a start does; see the module's table."""
    return TABLE[classify_stored(head)][classify_folder(head, trace, local)]
