"""What the one-shot commands do: restore, backup, delete. Each leaves a ``clean`` folder, or changes nothing."""

from __future__ import annotations

import fnmatch
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from authsync.config import Settings
from authsync.core.manifest import Delta, Totals, is_creds
from authsync.core.ownership import HOLDING, Refusal, refusal
from authsync.core.reconcile import Folder, Outcome, SessionState, Stored, classify_folder, classify_stored, decide
from authsync.directory import Directory
from authsync.errors import FolderError, OwnedError, UsageError
from authsync.leasethread import LeaseThread, Outage
from authsync.marker import Mark, Marker
from authsync.reconcile import flush_local, import_old_table, inspect, load_line, write_marker, write_restoring
from authsync.restore import Progress, Restored, read_difference, restore, restore_to
from authsync.start import Opening, Tell, acquire, ensure_schema, make_directory, new_start
from authsync.store import files, leases, schema, sessions, snapshots
from authsync.store.connection import Connection, Database, Patience, Trying
from authsync.store.files import Row, View
from authsync.store.leases import Lease, Order
from authsync.store.snapshots import Kept

ORDER_TIMEOUT_S = 60.0
"""How long a one-shot waits for the owner to carry its order out: a flush and a snapshot."""
ORDER_POLL_S = 0.3
DELETE_TIMEOUT_S = 300.0
"""Removing the rows of a large session with all its history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUp:
    """What a backup did."""

    by_owner: bool
    """Whether the session's owner did it on request."""
    revision: int
    files: int
    changed: int
    removed: int
    snapshot: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """What a rollback did."""

    revision: int
    written: int
    removed: int
    snapshot_before: int | None
    """The state that it replaced."""


class OneShot:
    """One command over one session and folder."""

    def __init__(self, settings: Settings, db: Database, *, command: str, tell: Tell) -> None:
        self._settings = settings
        self._db = db
        self._directory = make_directory(settings)
        self._marker = Marker(self._directory.root)
        self._trying = Trying(budget_s=settings.budget_s)
        self._opening = Opening(
            settings=settings,
            start=new_start(settings, command),
            db=db,
            directory=self._directory,
            marker=self._marker,
            tell=tell,
        )

    # restore

    def plan_restore(self) -> tuple[Delta, int]:
        """What a restore would change here, and the number of stored files. Changes nothing."""
        scan = self._directory.scan()

        def read(connection: Connection) -> tuple[Delta, int]:
            with files.one_moment(connection):
                stored = files.read_manifest(connection, self._db, View(session_id=self._settings.session_id))
            return scan.manifest.delta_to(stored), len(stored)

        return self._db.retrying(read, self._trying)

    def restore(self, *, force: bool, progress: Progress) -> tuple[Restored | None, Path | None]:
        """Make the folder what is stored; never writes the database.

        Returns:
            What was done (None: nothing live is stored), and where ``force`` kept the folder's own files.

        Raises:
            OwnedError: a bot of ours runs in the folder.
            FolderError: the folder holds changes that are not stored, or cannot be written.
        """
        self._db.retrying(lambda connection: schema.require(connection, self._db), self._trying)
        found = self._db.retrying(
            lambda connection: files.read_head(connection, self._db, self._settings.session_id), self._trying
        )
        head = found[0] if found is not None else None
        if head is None or classify_stored(head) is not Stored.LIVE:
            return None, None
        self._directory.make()
        self._marker.lock()
        scan, local, mark = inspect(self._opening)
        trace = mark.trace(self._settings.session_id) if mark is not None else None
        aside = None
        unstored = classify_folder(head, trace, local) in {Folder.OURS, Folder.OURS_BARE, Folder.STRANGE}
        if unstored and local.digest != head.digest:
            if not force:
                raise FolderError(
                    f"{self._directory.root} holds changes that are not stored",
                    hint="store them with `authsync backup`, or use --force, which keeps them beside the folder",
                )
            self._marker.unlock()
            aside = self._directory.set_aside(time.strftime("%Y%m%dT%H%M%S"))
            self._marker.lock()
            scan = self._directory.scan()

        def attempt(connection: Connection) -> Restored:
            with files.one_moment(connection):
                now = files.read_head(connection, self._db, self._settings.session_id)
                assert now is not None
                restored = restore(
                    connection,
                    self._db,
                    self._directory,
                    View(session_id=self._settings.session_id),
                    now[1],
                    local=scan,
                    before_change=lambda: write_restoring(self._opening),
                    progress=progress,
                )
            self._write_clean(now[0].revision, restored.manifest.digest)
            return restored

        restored = self._db.call(attempt)
        self._marker.unlock()
        return restored, aside

    def _write_clean(self, revision: int, digest: bytes) -> None:
        self._marker.write(
            Mark(
                session=self._settings.session_id,
                owner=None,  # we wrote nothing to the line; revision and digest tell the lineage
                clean=True,
                revision=revision,
                digest=digest,
                host=self._opening.start.host,
                boot_id=self._opening.start.boot_id,
            )
        )

    def restore_to(
        self,
        target: Path,
        *,
        snapshot: int | None,
        at: datetime | timedelta | None,
        only: str | None,
        progress: Progress,
    ) -> Restored:
        """Write a restore point into another, empty folder.

        Raises:
            UsageError: there is no such restore point.
            FolderError: the folder is not empty.
        """
        directory = Directory(
            target, names=self._settings.names, max_file_size_bytes=self._settings.max_file_size_bytes
        )
        directory.make()
        if any(target.iterdir()):
            raise FolderError(f"{target} is not empty", hint="name an empty or a new folder with --to")

        def attempt(connection: Connection) -> Restored:
            schema.require(connection, self._db)
            with files.one_moment(connection):
                view, totals = self._restore_point(connection, snapshot, at)
                return restore_to(
                    connection,
                    self._db,
                    directory,
                    view,
                    totals,
                    wanted=_matching(only),
                    progress=progress,
                )

        return self._db.call(attempt)

    def _restore_point(
        self, connection: Connection, number: int | None, at: datetime | timedelta | None
    ) -> tuple[View, Totals]:
        kept = snapshots.list_all(connection, self._db, self._settings.session_id)
        if number is not None:
            chosen = next((snapshot for snapshot in kept if snapshot.number == number), None)
        elif at is not None:
            moment = snapshots.database_time(connection) - at if isinstance(at, timedelta) else at
            status = sessions.status(connection, self._db, self._settings.session_id)
            if status is not None and status.updated_at <= moment:
                return self._live(connection)
            chosen = max(
                (snapshot for snapshot in kept if snapshot.taken_at <= moment and not snapshot.view.branch),
                key=lambda snapshot: snapshot.number,
                default=None,
            )
        else:
            return self._live(connection)
        if chosen is None:
            raise UsageError("there is no such restore point", hint="the kept ones: " + (_numbers(kept) or "none"))
        return chosen.view, chosen.totals

    def _live(self, connection: Connection) -> tuple[View, Totals]:
        found = files.read_head(connection, self._db, self._settings.session_id)
        if found is None or found[0].revision == 0:
            raise UsageError(f"nothing is stored for session {self._settings.session_id!r}", hint="check --session-id")
        return View(session_id=self._settings.session_id), found[1]

    # backup

    def plan_backup(self) -> Delta:
        """What a backup would change in the database. Changes nothing."""
        scan = self._directory.scan()

        def read(connection: Connection) -> Delta:
            if schema.current_version(connection, self._db) == 0:
                return Delta(changed=dict(scan.manifest.items()))
            stored = files.read_manifest(connection, self._db, View(session_id=self._settings.session_id))
            return stored.delta_to(scan.manifest)

        return self._db.retrying(read, self._trying)

    def backup(self, *, reason: str | None, force: bool) -> BackedUp:
        """Store the folder once, and keep a snapshot; through the owner where one runs.

        Raises:
            OwnedError: the stored state is newer than this folder, or belongs to another service.
        """
        ensure_schema(self._opening, self._trying)
        ordered = self._order(reason)
        if ordered is not None:
            return ordered
        if not self._directory.exists():
            raise FolderError(f"there is no folder {self._directory.root}", hint="name the bot's folder with --dir")
        self._marker.lock()
        with self._owned() as acquired:
            lease = import_old_table(self._opening, acquired, self._trying)
            scan, local, mark = inspect(self._opening)
            plan = decide(lease.head, mark.trace(self._settings.session_id) if mark is not None else None, local)
            line = load_line(self._opening, lease, self._trying)
            stale = plan.outcome not in {Outcome.ADOPT, Outcome.FLUSH} and local.digest != lease.head.digest
            if stale and (not force or not local.file_count):
                raise OwnedError(
                    "the stored session is newer than this folder, or of another origin",
                    hint="see `authsync status`; --force stores the folder after a snapshot of what is stored",
                )
            if stale:
                line.take_snapshot("manual", trying=self._trying, note="before a forced backup")
            report = flush_local(self._opening, line, scan, self._trying, replace=stale)
            number = line.take_snapshot("manual", trying=self._trying, note=reason)
            write_marker(self._opening, line, clean=True)
        return BackedUp(
            by_owner=False,
            revision=line.revision,
            files=len(line.manifest),
            changed=report.files,
            removed=report.removed,
            snapshot=number,
        )

    def _order(self, reason: str | None) -> BackedUp | None:
        """Have the session's owner do it; None where nobody owns it."""
        session_id = self._settings.session_id
        claim = self._db.retrying(lambda c: leases.read_claim(c, self._db, session_id), self._trying)
        if claim is None or claim.owner is None or not claim.expires_in_s or claim.expires_in_s <= 0:
            return None
        if refusal(claim, scope=self._settings.scope) is Refusal.OTHER_SCOPE:
            raise OwnedError(
                f"the session {session_id!r} belongs to another service ({claim.scope})",
                hint="set --session-id, or --scope if this is meant",
            )
        order = Order(id=str(uuid.uuid4()), kind="backup", note=reason)
        if self._db.retrying(lambda c: leases.give_order(c, self._db, session_id, order), self._trying) is None:
            return None
        patience, give_up_at = Patience(), time.monotonic() + ORDER_TIMEOUT_S
        while time.monotonic() < give_up_at:
            outcome = self._db.retrying(lambda c: leases.read_outcome(c, self._db, session_id, order.id), self._trying)
            if outcome is not None:
                return BackedUp(
                    by_owner=True,
                    revision=outcome["revision"],
                    files=outcome["files"],
                    changed=0,
                    removed=0,
                    snapshot=outcome["snapshot"],
                )
            patience.pause(ORDER_POLL_S)
        raise OwnedError(
            f"the owner on {claim.owner_host or 'another host'} did not carry the backup out in {ORDER_TIMEOUT_S:g} s",
            hint="see its log; its own flushes go on",
        )

    # rollback

    def rollback(self, *, snapshot: int | None, at: datetime | timedelta | None, only: str | None) -> RolledBack:
        """Make an older restore point, or the part of it that ``only`` names, the live state, as a new revision.

        Raises:
            OwnedError: a running process owns the session.
            UsageError: there is no such restore point.
            DamagedError: it is not whole.
        """
        ensure_schema(self._opening, self._trying)
        with self._owned() as lease:
            line = load_line(self._opening, lease, self._trying)

            def read(connection: Connection) -> tuple[Delta, list[Row]]:
                with files.one_moment(connection):
                    view, totals = self._restore_point(connection, snapshot, at)
                    return read_difference(connection, self._db, view, totals, line.manifest, wanted=_matching(only))

            delta, rows = self._db.retrying(read, self._trying)
            before = line.take_snapshot("rollback", trying=self._trying, note="before a rollback")
            if delta:
                live = line.manifest.bots or any(is_creds(path) for path in delta.changed)
                line.push_rows(
                    rows, removed=delta.removed, state=SessionState.LIVE if live else None, trying=self._trying
                )
        return RolledBack(
            revision=line.revision, written=len(delta.changed), removed=len(delta.removed), snapshot_before=before
        )

    # delete

    def delete(self) -> bool:
        """Remove the session's files and history, and leave a tombstone; False where there was nothing.

        Raises:
            OwnedError: a running process owns it.
        """
        ensure_schema(self._opening, self._trying)
        with self._owned(any_scope=True) as lease:
            deleted = self._db.call(lambda c: sessions.delete(c, self._db, lease.fence), timeout_s=DELETE_TIMEOUT_S)
            return deleted and lease.head.revision > 0

    @contextmanager
    def _owned(self, *, any_scope: bool = False) -> Iterator[Lease]:
        """Own the session for the length of a command; the lease is renewed while it lasts."""
        lease = acquire(self._opening, self._trying, wait=False, any_scope=any_scope)
        renewing = LeaseThread(
            Database(self._settings.database_url, self._settings.schema),
            lambda: lease.fence,
            post=lambda _message: None,  # a lost fence is found by the next statement
            outage=Outage(),
        )
        renewing.start()
        outcome = "failed"
        try:
            yield lease
            outcome = "done"
        finally:
            renewing.stop(HOLDING.renew_s)
            self._db.call(lambda c: leases.release(c, self._db, lease.fence, outcome=outcome))
            self._marker.unlock()


def _matching(glob: str | None) -> Callable[[str], bool]:
    return lambda path: glob is None or fnmatch.fnmatchcase(path, glob)


def _numbers(kept: list[Kept]) -> str:
    return ", ".join(str(snapshot.number) for snapshot in kept[-20:])
