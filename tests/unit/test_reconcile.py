"""What a start does: each cell of the table of a start, written out in words, and every small world."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest

from authsync.core.reconcile import Head, Local, Outcome, Plan, SessionState, Trace, decide

LINE, HERE, EARLIER = (bytes([number]) * 32 for number in (1, 2, 3))
"""Set digests: of the line, of a folder that differs from it, of what either was before."""
REVISION = 7
US, OTHERS = "owner-1", "owner-2"

FRESH = Plan(outcome=Outcome.START_FRESH)
COPY_FRESH = Plan(outcome=Outcome.START_FRESH, keep_copy=True)
ADOPT = Plan(outcome=Outcome.ADOPT)
FLUSH = Plan(outcome=Outcome.FLUSH)
RESTORE = Plan(outcome=Outcome.RESTORE)
COPY_RESTORE = Plan(outcome=Outcome.RESTORE, keep_copy=True)

STORED = {
    "no row": None,
    "revision 0": Head(state=SessionState.LIVE, revision=0, digest=bytes(32), last_writer=None),
    "live": Head(state=SessionState.LIVE, revision=REVISION, digest=LINE, last_writer=US),
    "cleared": Head(state=SessionState.CLEARED, revision=REVISION, digest=LINE, last_writer=US),
    "deleted": Head(state=SessionState.DELETED, revision=REVISION, digest=LINE, last_writer=US),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A folder, and what a start does with it over what is stored."""

    local: Local
    trace: Trace | None
    nothing: Plan
    live: Plan
    cleared: Plan
    deleted: Plan


def files(digest: bytes = HERE, *, creds: bool = True) -> Local:
    """A folder with files."""
    return Local(file_count=3, digest=digest, has_creds=creds)


NO_FILES = Local(file_count=0, digest=bytes(32), has_creds=False)
RESTORING = Trace(restoring=True)
CLEAN_THEN = Trace(owner=OTHERS, clean=True, revision=REVISION - 1, digest=HERE)

TABLE = {
    "empty": Row(local=NO_FILES, trace=None, nothing=FRESH, live=RESTORE, cleared=FRESH, deleted=FRESH),
    "empty, its marker is the last writer's": Row(
        local=NO_FILES, trace=Trace(owner=US), nothing=FRESH, live=RESTORE, cleared=FRESH, deleted=FRESH
    ),
    "empty, restoring": Row(local=NO_FILES, trace=RESTORING, nothing=FRESH, live=RESTORE, cleared=FRESH, deleted=FRESH),
    "restoring": Row(local=files(), trace=RESTORING, nothing=FRESH, live=RESTORE, cleared=FRESH, deleted=FRESH),
    "restoring, and equal": Row(
        local=files(LINE), trace=RESTORING, nothing=FRESH, live=RESTORE, cleared=FRESH, deleted=FRESH
    ),
    "restoring, marker of the last writer": Row(
        local=files(),
        trace=Trace(restoring=True, owner=US, revision=REVISION, digest=LINE),
        nothing=FRESH,
        live=RESTORE,
        cleared=FRESH,
        deleted=FRESH,
    ),
    "same lineage by owner": Row(
        local=files(),
        trace=Trace(owner=US, revision=REVISION - 2, digest=EARLIER),
        nothing=ADOPT,
        live=FLUSH,
        cleared=FLUSH,
        deleted=COPY_FRESH,
    ),
    "same lineage by owner, no creds.json": Row(
        local=files(creds=False),
        trace=Trace(owner=US, revision=REVISION - 2, digest=EARLIER),
        nothing=ADOPT,
        live=FLUSH,
        cleared=COPY_FRESH,
        deleted=COPY_FRESH,
    ),
    "same lineage by revision and digest": Row(
        local=files(),
        trace=Trace(owner=OTHERS, revision=REVISION, digest=LINE),
        nothing=ADOPT,
        live=FLUSH,
        cleared=FLUSH,
        deleted=COPY_FRESH,
    ),
    "same lineage by revision and digest, no creds.json": Row(
        local=files(creds=False),
        trace=Trace(owner=OTHERS, revision=REVISION, digest=LINE),
        nothing=ADOPT,
        live=FLUSH,
        cleared=COPY_FRESH,
        deleted=COPY_FRESH,
    ),
    "same lineage, and equal": Row(
        local=files(LINE),
        trace=Trace(owner=US, clean=True, revision=REVISION, digest=LINE),
        nothing=ADOPT,
        live=FLUSH,
        cleared=FLUSH,
        deleted=COPY_FRESH,
    ),
    "same lineage, and known": Row(
        local=files(),
        trace=Trace(owner=US, clean=True, revision=REVISION - 1, digest=HERE),
        nothing=ADOPT,
        live=FLUSH,
        cleared=FLUSH,
        deleted=FRESH,
    ),
    "same lineage, and known, no creds.json": Row(
        local=files(creds=False),
        trace=Trace(owner=US, clean=True, revision=REVISION - 1, digest=HERE),
        nothing=ADOPT,
        live=FLUSH,
        cleared=FRESH,
        deleted=FRESH,
    ),
    "equal": Row(local=files(LINE), trace=None, nothing=ADOPT, live=RESTORE, cleared=COPY_FRESH, deleted=COPY_FRESH),
    "equal, and known": Row(
        local=files(LINE),
        trace=Trace(owner=OTHERS, clean=True, revision=REVISION - 1, digest=LINE),
        nothing=ADOPT,
        live=RESTORE,
        cleared=FRESH,
        deleted=FRESH,
    ),
    "known": Row(local=files(), trace=CLEAN_THEN, nothing=ADOPT, live=RESTORE, cleared=FRESH, deleted=FRESH),
    "known, no creds.json": Row(
        local=files(creds=False), trace=CLEAN_THEN, nothing=ADOPT, live=RESTORE, cleared=FRESH, deleted=FRESH
    ),
    "known, but not clean": Row(
        local=files(),
        trace=Trace(owner=OTHERS, clean=False, revision=REVISION - 1, digest=HERE),
        nothing=ADOPT,
        live=COPY_RESTORE,
        cleared=COPY_FRESH,
        deleted=COPY_FRESH,
    ),
    "known, but changed since": Row(
        local=files(),
        trace=Trace(owner=OTHERS, clean=True, revision=REVISION - 1, digest=EARLIER),
        nothing=ADOPT,
        live=COPY_RESTORE,
        cleared=COPY_FRESH,
        deleted=COPY_FRESH,
    ),
    "clean at the stored revision, with another digest": Row(
        local=files(),
        trace=Trace(owner=OTHERS, clean=True, revision=REVISION, digest=HERE),
        nothing=ADOPT,
        live=COPY_RESTORE,
        cleared=COPY_FRESH,
        deleted=COPY_FRESH,
    ),
    "clean at a revision above the stored one": Row(
        local=files(),
        trace=Trace(owner=OTHERS, clean=True, revision=REVISION + 1, digest=HERE),
        nothing=ADOPT,
        live=COPY_RESTORE,
        cleared=COPY_FRESH,
        deleted=COPY_FRESH,
    ),
    "the stored digest at another revision": Row(
        local=files(),
        trace=Trace(owner=OTHERS, revision=REVISION - 1, digest=LINE),
        nothing=ADOPT,
        live=COPY_RESTORE,
        cleared=COPY_FRESH,
        deleted=COPY_FRESH,
    ),
    "no marker": Row(
        local=files(), trace=None, nothing=ADOPT, live=COPY_RESTORE, cleared=COPY_FRESH, deleted=COPY_FRESH
    ),
    "a marker without owner": Row(
        local=files(), trace=Trace(), nothing=ADOPT, live=COPY_RESTORE, cleared=COPY_FRESH, deleted=COPY_FRESH
    ),
    "no marker, no creds.json": Row(
        local=files(creds=False), trace=None, nothing=ADOPT, live=COPY_RESTORE, cleared=COPY_FRESH, deleted=COPY_FRESH
    ),
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("folder", TABLE)
def test_cell(folder: str, stored: str) -> None:
    """The outcome for each folder over each kind of stored state, and whether the folder is kept as a copy first."""
    row = TABLE[folder]
    expected = row.nothing if stored in {"no row", "revision 0"} else getattr(row, stored)
    assert decide(STORED[stored], row.trace, row.local) == expected


@pytest.mark.parametrize("state", SessionState)
def test_never_written(state: SessionState) -> None:
    """A row of revision 0 is nothing, whatever it says: a folder with files is adopted."""
    head = Head(state=state, revision=0, digest=bytes(32), last_writer=US)
    assert decide(head, Trace(owner=US), files()) == ADOPT


def test_no_last_writer() -> None:
    """Nobody is not somebody: a marker without an owner is no lineage of a line without a writer."""
    head = Head(state=SessionState.LIVE, revision=REVISION, digest=LINE, last_writer=None)
    assert decide(head, Trace(owner=None), files()) == COPY_RESTORE


def wanted(head: Head | None, trace: Trace | None, local: Local) -> Plan:
    """The contract's table in its order, its words turned into conditions."""
    empty = local.file_count == 0 or (trace is not None and trace.restoring)
    if head is None or head.revision == 0:
        return FRESH if empty else ADOPT
    if empty:
        return RESTORE if head.state is SessionState.LIVE else FRESH
    lineage = trace is not None and (
        (trace.owner is not None and trace.owner == head.last_writer)
        or (trace.revision, trace.digest) == (head.revision, head.digest)
    )
    known = (
        trace is not None and trace.clean and trace.digest == local.digest and trace.revision < head.revision
    )  # the folder still is what it was then, and the line has gone on since
    if head.state is SessionState.LIVE:
        if lineage:
            return FLUSH
        return RESTORE if known or local.digest == head.digest else COPY_RESTORE
    if head.state is SessionState.CLEARED and lineage and local.has_creds:
        return FLUSH
    return FRESH if known else COPY_FRESH


HEADS = [
    None,
    *(
        Head(state=state, revision=revision, digest=LINE, last_writer=writer)
        for state, revision, writer in product(SessionState, (0, 1, REVISION), (None, US))
    ),
]
TRACES = [
    None,
    *(
        Trace(restoring=restoring, owner=owner, clean=clean, revision=revision, digest=digest)
        for restoring, owner, clean, revision, digest in product(
            (False, True), (None, US, OTHERS), (False, True), (0, 1, REVISION - 1, REVISION, REVISION + 1), (LINE, HERE)
        )
    ),
]
LOCALS = [NO_FILES, *(files(digest, creds=creds) for digest, creds in product((LINE, HERE, EARLIER), (False, True)))]


def test_all_small_worlds() -> None:
    """In every combination of what is stored, the marker and the folder the outcome is as written."""
    differing = [
        (head, trace, local)
        for head, trace, local in product(HEADS, TRACES, LOCALS)
        if decide(head, trace, local) != wanted(head, trace, local)
    ]
    assert not differing, f"{len(differing)} worlds, the first: {differing[0]}"


def test_nothing_overwritten_unseen() -> None:
    """A folder that is emptied or overwritten is half a restore, the stored state, one that the line knows, or kept."""
    for head, trace, local in product(HEADS, TRACES, LOCALS):
        plan = decide(head, trace, local)
        if plan.keep_copy or plan.outcome in {Outcome.ADOPT, Outcome.FLUSH} or not local.file_count:
            continue
        stored = head is not None and head.state is SessionState.LIVE and local.digest == head.digest
        restoring = trace is not None and trace.restoring
        known = trace is not None and trace.clean and trace.digest == local.digest
        assert stored or restoring or known
