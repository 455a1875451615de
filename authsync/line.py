"""The line: what is stored of one session that we own, and one flush of the folder into it.

One flush, from paths to commit: look (directory) -> plan (core/flushplan) -> snapshot if the plan wants one -> push
(one statement, store/files) -> remember. A push whose answer was lost is kept and resent, identical, before anything
newer.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from authsync.core.clearing import Child
from authsync.core.debounce import Batch
from authsync.core.flushplan import Absence, Before, FlushPlan, Note, Version, plan_flush
from authsync.core.identity import Identity
from authsync.core.manifest import Manifest, content_entry, is_creds
from authsync.core.names import printable, unsafe_reason
from authsync.core.ownership import HOLDING, NoRow
from authsync.core.reconcile import SessionState
from authsync.core.torn import OPAQUE_AFTER_S, StoredForm, parses
from authsync.directory import Directory, StableRead
from authsync.errors import (
    FENCED_MESSAGE,
    TOMBSTONE_MESSAGE,
    AuthsyncError,
    BugError,
    DamagedError,
    FencedError,
    MissingSchemaError,
    TombstoneError,
    UnreachableError,
)
from authsync.store import files, leases, schema, snapshots
from authsync.store.connection import Connection, Database, Trying
from authsync.store.files import Push, Row, View
from authsync.store.leases import Fence, Start

COPY_ROUNDS = 5
"""Reads of a file that a copy tries while it moves."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What one flush did."""

    revision: int
    files: int = 0
    removed: int = 0
    bytes: int = 0
    took_ms: float = 0.0
    snapshot: int | None = None
    notes: list[Note] = field(default_factory=list)
    look_again: dict[str, float] = field(default_factory=dict)
    looked: frozenset[str] = frozenset()
    """What was read."""
    unsynced: dict[str, str] = field(default_factory=dict)
    unsupported: dict[str, str] = field(default_factory=dict)
    held_until: float | None = None
    """When the last deletion that is held gets decided."""
    rescan: bool = False
    put_back: bool = False
    """The database had been put back to an older state, and was written again."""

    @property
    def changed(self) -> bool:
        """Whether a revision was committed."""
        return bool(self.files or self.removed)


class Line:
    """What the database holds of the session, as its owner knows it. Used by one thread."""

    def __init__(
        self,
        *,
        db: Database,
        directory: Directory,
        start: Start,
        fence: Fence,
        revision: int,
        manifest: Manifest,
        identities: dict[str, Identity],
        watching: bool = False,
    ) -> None:
        self.db = db
        self.directory = directory
        self.fence = fence
        self.revision = revision
        self.manifest = manifest
        self.identities = identities
        self.absent: set[str] = set()
        """Stored paths that a fresh start did not put into the folder: that they lack there is no deletion."""
        self._start = start
        self._watching = watching
        self._missing: dict[str, float] = {}
        self._resurrected: frozenset[str] = frozenset()
        """Rows that a database which was put back holds, and that we had seen deleted: they go with the next push."""
        self._cleared: frozenset[str] = frozenset()
        self._json: set[str] = set()
        self._opaque: set[str] = set()
        self._unsettled: tuple[Push, FlushPlan] | None = None

    @property
    def paired(self) -> bool:
        """Whether any stored bot is paired."""
        return any(identity.paired for identity in self.identities.values())

    def flush(
        self,
        batch: Batch,
        *,
        child: Child,
        signalled_at: float | None = None,
        trying: Trying,
        put_back: bool = False,
        verify: bool = False,
    ) -> Report:
        """Store what changed among ``batch``; ``put_back`` tells that the lease found the row gone or too old.

        ``verify`` asks whether the database still is where we left it, changes or not: the last flush does.

        Raises:
            UnreachableError: the database is away; flush the same batch again later.
            FencedError, TombstoneError: the session is no longer ours.
        """
        began = time.monotonic()
        report = Report(revision=self.revision)
        try:
            if put_back:
                self._raise(NoRow.PUT_BACK)
            if verify:
                self._verify(trying)
            self._settle(trying, report)
            self._flush(batch, child, signalled_at, trying, report)
        except (PutBackError, MissingSchemaError):
            self._adopt_what_is_there(trying)
            report.put_back = True
            self._flush(Batch(paths=batch.paths, scan=True), child, signalled_at, trying, report)
        report.revision = self.revision
        report.took_ms = round((time.monotonic() - began) * 1000, 1)
        return report

    def _verify(self, trying: Trying) -> None:
        if self._unsettled is not None:
            return  # sending it again tells
        found = self.db.retrying(lambda connection: files.read_head(connection, self.db, self.fence.session_id), trying)
        if found is None or found[0].revision < self.revision:
            self._raise(NoRow.PUT_BACK)

    def take_snapshot(self, reason: str, *, trying: Trying, note: str | None = None) -> int | None:
        """Keep the line as it is now.

        Returns:
            The snapshot's number; None where nothing was ever stored.
        """
        taken = self.db.retrying(
            lambda connection: snapshots.take(
                connection, self.db, self.fence, reason=reason, paired=self.paired, note=note
            ),
            trying,
        )
        if isinstance(taken, NoRow):
            self._raise(taken)
        return taken

    def keep_copy(self, note: str, *, trying: Trying) -> int | None:
        """Keep the folder as it is beside the line; needs no lease. None where that would keep nothing new."""
        rows = self._rows()
        totals = Manifest({row.path: row.entry for row in rows}).totals
        if not rows or totals.digest == self.manifest.digest:
            return None
        return self.db.retrying(
            lambda connection: snapshots.keep_copy(
                connection,
                self.db,
                self.fence.session_id,
                totals=totals,
                revision=self.revision,
                paired=self.paired,
                note=note,
                rows=rows,
            ),
            trying,
        )

    def read_stored(self, paths: Iterable[str], *, trying: Trying) -> dict[str, bytes]:
        """The stored contents of ``paths``.

        Raises:
            DamagedError: one is missing, or does not match its digest.
        """
        wanted = frozenset(paths)
        contents = self.db.retrying(
            lambda connection: {
                path: bytes(content)
                for path, content, _ in files.stream_files(
                    connection, self.db, View(session_id=self.fence.session_id), paths=wanted
                )
            },
            trying,
        )
        for path in sorted(wanted):
            if path not in contents or content_entry(contents[path]) != self.manifest.get(path):
                raise DamagedError(
                    f"the stored file {path} is missing or does not match its digest",
                    hint="restore an older snapshot with `authsync rollback`",
                )
        return contents

    def push_rows(
        self,
        rows: Iterable[Row],
        *,
        trying: Trying,
        removed: Iterable[str] = (),
        state: SessionState | None = None,
    ) -> None:
        """Store ``rows`` as they are, as one revision: an import, a rollback."""
        plan = FlushPlan(
            write={
                row.path: Version(content=row.content, entry=row.entry, still_s=0.0, stored=StoredForm.NOTHING)
                for row in rows
            },
            remove=set(removed),
            state=state,
        )
        self._push(plan, trying)

    def _flush(self, batch: Batch, child: Child, signalled_at: float | None, trying: Trying, report: Report) -> None:
        seen = self.look(batch, trying, report)
        gone = [path for path, what in seen.items() if what is Absence.MISSING and is_creds(path)]
        before = Before(
            line=self.manifest,
            identities=self.identities,
            missing_since=self._missing,
            cleared=self._cleared,
            child=child,
            signalled_at=signalled_at,
            watching=self._watching,
        )
        plan = plan_flush(before, seen, twins=self.directory.rewritten(gone), now=time.monotonic())
        plan.remove |= self._resurrected - plan.write.keys()
        self.carry_out(plan, trying, report)

    def carry_out(self, plan: FlushPlan, trying: Trying, report: Report) -> None:
        """Perform a plan, and tell of it in ``report``."""
        if plan.snapshot is not None:
            report.snapshot = self.take_snapshot(plan.snapshot, trying=trying)
        if plan.write or plan.remove:
            self._push(plan, trying)
            self._count(plan, report)
        self._remember(plan)
        report.notes.extend(plan.notes)
        report.look_again = plan.look_again
        report.held_until = max((at for path, at in plan.look_again.items() if path in plan.missing), default=None)
        report.rescan = report.rescan or plan.rescan

    def look(self, batch: Batch, trying: Trying, report: Report) -> dict[str, Version | Absence]:
        """Read what may have changed. Only a scan costs what exists; all else costs what changed."""
        paths = set(self._missing)
        for path in filter(self.directory.belongs, batch.paths):
            reason = unsafe_reason(path)
            if reason is None:
                paths.add(path)
            else:
                report.unsynced[printable(path)] = f"its name {reason}"
        if batch.scan:
            scan = self.directory.scan()
            delta = self.manifest.delta_to(scan.manifest)
            unseen = self.absent | self._resurrected
            paths |= delta.changed.keys()
            paths |= {path for path in delta.removed if path not in unseen and not scan.hides(path)}
            report.unsynced.update(scan.unsynced)
            report.unsupported.update(scan.unsupported)
        reads = self.directory.read(sorted(paths), on_unsynced=report.unsynced.__setitem__)
        report.looked |= reads.keys()
        return {
            path: Version(
                content=what.content,
                entry=what.entry,
                still_s=what.still_s,
                stored=self._form(path, what.content, what.still_s, trying),
            )
            if not isinstance(what, Absence)
            else what
            for path, what in reads.items()
        }

    def _form(self, path: str, content: bytes, still_s: float, trying: Trying) -> StoredForm:
        """What is stored at ``path``. A ``.json`` counts as JSON until a file that stays odd makes us look."""
        entry = self.manifest.get(path)
        if entry is None:
            return StoredForm.NOTHING
        if entry.size_bytes == 0:
            return StoredForm.EMPTY
        if path in self._opaque or not path.endswith(".json"):
            return StoredForm.OPAQUE
        if path not in self._json and content and still_s >= OPAQUE_AFTER_S and not parses(content):
            try:
                stored = self.read_stored([path], trying=trying)[path]
            except DamagedError:
                stored = b""  # what it was cannot be told; the local one may replace what is damaged anyway
            (self._json if parses(stored) else self._opaque).add(path)
        return StoredForm.OPAQUE if path in self._opaque else StoredForm.JSON

    def _push(self, plan: FlushPlan, trying: Trying) -> None:
        push = Push(
            push_id=str(uuid.uuid4()),
            fence=self.fence,
            revision=self.revision,
            totals=self.manifest.totals_after(plan.delta),
            state=plan.state,
            rows=[Row(path, version.content, version.entry) for path, version in plan.write.items()],
            removed=sorted(plan.remove),
        )
        self._unsettled = (push, plan)
        self._send(trying)

    def _send(self, trying: Trying) -> None:
        assert self._unsettled is not None
        push, plan = self._unsettled
        try:
            outcome = self.db.retrying(
                lambda connection: files.push(connection, self.db, push, ttl_s=HOLDING.ttl_s),
                trying,
                timeout_s=push.timeout_s,
            )
        except UnreachableError:
            raise  # whether it was committed is unknown: it is sent again, identical, before anything else
        except AuthsyncError:
            self._unsettled = None  # refused, so certainly not committed
            raise
        self._unsettled = None
        if isinstance(outcome, NoRow) and outcome is not NoRow.OWN_COMMIT:
            self._raise(outcome)
        self.revision = push.revision + 1
        self.manifest.apply(plan.delta)
        for bot in [bot for bot in self.identities if bot not in self.manifest.bots]:
            del self.identities[bot]
        self.identities.update(plan.identities)
        self.absent.difference_update(plan.write, plan.remove)
        self._resurrected = frozenset(path for path in self._resurrected if path in self.manifest)
        self._json.difference_update(plan.write)
        self._opaque.difference_update(plan.write)
        self._opaque.update(
            path for path, version in plan.write.items() if path.endswith(".json") and not parses(version.content)
        )

    def _settle(self, trying: Trying, report: Report) -> None:
        """Resend a push whose outcome is unknown, identical; newer changes wait."""
        if self._unsettled is not None:
            _, plan = self._unsettled
            self._send(trying)
            self._count(plan, report)
            self._remember(plan)
            report.notes.extend(plan.notes)

    def _count(self, plan: FlushPlan, report: Report) -> None:
        report.files += len(plan.write)
        report.removed += len(plan.remove)
        report.bytes += sum(version.entry.size_bytes for version in plan.write.values())

    def _remember(self, plan: FlushPlan) -> None:
        self._missing = {path: since for path, since in plan.missing.items() if path in self.manifest}
        self._cleared = plan.cleared

    @staticmethod
    def _raise(cause: NoRow) -> NoReturn:
        if cause is NoRow.FENCED:
            raise FencedError(FENCED_MESSAGE, hint="this one writes nothing more; its own changes are kept as a copy")
        if cause is NoRow.TOMBSTONE:
            raise TombstoneError(TOMBSTONE_MESSAGE, hint="start the bot again to pair it anew")
        if cause is NoRow.PUT_BACK:
            raise PutBackError
        raise BugError(f"a statement ended in {cause}")

    def _adopt_what_is_there(self, trying: Trying) -> None:
        """The database was put back: own what it holds now, keep that as a snapshot, and compare everything."""

        def acquire(connection: Connection) -> leases.Lease | None:
            schema.ensure(connection, self.db)
            return leases.acquire(
                connection,
                self.db,
                self.fence.session_id,
                self._start,
                ttl_s=HOLDING.ttl_s,
                any_scope=True,
                least_token=self.fence.token,
            )

        lease = self.db.retrying(acquire, trying)
        if lease is None:
            self._raise(NoRow.FENCED)
        self.fence, self.revision = lease.fence, lease.head.revision
        self.take_snapshot("diverged", trying=trying, note="the database was put back")
        ours = self.manifest
        self.manifest = self.db.retrying(
            lambda connection: files.read_manifest(connection, self.db, View(session_id=self.fence.session_id)),
            trying,
        )
        self._missing, self._unsettled = {}, None
        self._resurrected = frozenset(path for path in self.manifest if path not in ours)
        self._json.clear()
        self._opaque.clear()

    def _rows(self) -> list[Row]:
        """The folder as it is, torn files too; what moves is read until it stands still, a few times."""
        rows: dict[str, Row] = {}
        waiting = list(self.directory.scan().manifest)
        for _ in range(COPY_ROUNDS):
            reads = self.directory.read(waiting, on_unsynced=lambda _path, _reason: None)
            rows.update(
                {
                    path: Row(path, what.content, what.entry)
                    for path, what in reads.items()
                    if isinstance(what, StableRead)
                }
            )
            waiting = [path for path, what in reads.items() if what is Absence.MOVING]
        return list(rows.values())


class PutBackError(Exception):
    """The stored session is older than what we wrote, or gone."""
