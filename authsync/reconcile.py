"""Carries out what ``core/reconcile`` decides at a start: the folder becomes one that a bot may use.

Used by ``run``, ``watch`` and ``backup``; the first two perform it on the store thread, so that a signal is answered
in every phase.
"""

from __future__ import annotations

from typing import Any

from authsync.core.clearing import Child
from authsync.core.debounce import Batch
from authsync.core.flushplan import Absence, Before, FlushPlan, NoteKind, Version, plan_flush
from authsync.core.identity import read_identity
from authsync.core.manifest import bot_of, folder_of, is_creds
from authsync.core.reconcile import Local, Outcome, Plan, Stored, classify_stored, decide
from authsync.directory import Scan
from authsync.errors import ConfigError, DamagedError, FencedError
from authsync.line import Line, Report
from authsync.marker import Mark
from authsync.restore import Restored, read_identities, restore
from authsync.start import Opening
from authsync.store import files, legacy
from authsync.store.connection import Connection, Trying
from authsync.store.files import View
from authsync.store.leases import Lease


def inspect(opening: Opening) -> tuple[Scan, Local, Mark | None]:
    """What lies in the folder.

    Raises:
        FolderError: it cannot be read.
    """
    scan = opening.directory.scan()
    local = Local(file_count=len(scan.manifest), digest=scan.manifest.digest, has_creds=bool(scan.manifest.bots))
    return scan, local, opening.marker.read()


def load_line(opening: Opening, lease: Lease, trying: Trying) -> Line:
    """The line as the database holds it."""
    session_id = opening.settings.session_id

    def load(connection: Connection) -> dict[str, Any]:
        with files.one_moment(connection):
            return {
                "manifest": files.read_manifest(connection, opening.db, View(session_id=session_id)),
                "identities": read_identities(connection, opening.db, session_id),
            }

    return _line(opening, lease, **opening.db.retrying(load, trying))


def _line(opening: Opening, lease: Lease, **fields: Any) -> Line:  # noqa: ANN401 - Line checks them
    return Line(
        db=opening.db,
        directory=opening.directory,
        start=opening.start,
        fence=lease.fence,
        revision=lease.head.revision,
        watching=opening.watching,
        **fields,
    )


def import_old_table(opening: Opening, lease: Lease, trying: Trying) -> Lease:
    """Import the session from an old table as revision 1, if nothing was ever stored here and it is there."""
    session_id = opening.settings.session_id
    if lease.head.revision > 0:
        if opening.db.retrying(lambda c: legacy.moved_since_import(c, opening.db, session_id), trying):
            opening.tell("legacy_still_written")
        return lease
    old = opening.db.retrying(lambda connection: legacy.read(connection, session_id), trying)
    if old is None or not old.rows:
        return lease
    line = load_line(opening, lease, trying)
    rows = [row for row in old.rows if opening.directory.belongs(row.path)]
    line.push_rows(rows, trying=trying)
    opening.db.retrying(lambda c: legacy.record_import(c, opening.db, session_id, old.updated_at), trying)
    opening.tell("legacy_imported", files=len(rows), revision=line.revision)
    found = opening.db.retrying(lambda connection: files.read_head(connection, opening.db, session_id), trying)
    if found is None:
        raise FencedError("the session's row vanished while it was imported", hint="start again")
    head, totals = found
    return Lease(fence=lease.fence, head=head, file_count=totals.file_count, total_bytes=totals.total_bytes, age_s=0.0)


def open_session(opening: Opening, lease: Lease, trying: Trying) -> Line:
    """Reconcile the folder with what is stored; the bot may start when this returns.

    Raises:
        DamagedError: what is stored cannot be restored; the folder was not used.
        ConfigError: nothing is stored, and a session is required.
    """
    lease = import_old_table(opening, lease, trying)
    if opening.require_session and classify_stored(lease.head) is not Stored.LIVE:
        raise ConfigError(
            f"nothing is stored for session {opening.settings.session_id!r}, and --require-session is set",
            hint="check --session-id and DATABASE_URL, or start once without --require-session to pair",
        )
    scan, local, mark = inspect(opening)
    trace = mark.trace(opening.settings.session_id) if mark is not None else None
    plan = decide(lease.head, trace, local)
    line = _carry_out(opening, lease, plan, scan, trying)
    if lease.head.revision > 0 and plan.outcome is not Outcome.START_FRESH:
        line.take_snapshot("start", trying=trying)
    write_marker(opening, line, clean=False)
    return line


def _carry_out(opening: Opening, lease: Lease, plan: Plan, scan: Scan, trying: Trying) -> Line:
    opening.directory.drop_stage()
    if plan.keep_copy:
        line = load_line(opening, lease, trying)
        opening.tell("copy_kept", snapshot=line.keep_copy("the folder at a start", trying=trying))
    match plan.outcome:
        case Outcome.RESTORE:
            line, restored = restore_line(opening, lease, scan, trying)
            opening.tell(
                "restore_done",
                session=opening.settings.session_id,
                files=len(restored.manifest),
                bytes=restored.manifest.totals.total_bytes,
                files_written=restored.files_written,
                files_removed=restored.files_removed,
                took_ms=restored.took_ms,
                files_per_s=round(len(restored.manifest) / max(restored.took_ms / 1000, 0.001)),
                revision=lease.head.revision,
            )
            return line
        case Outcome.START_FRESH:
            if scan.manifest or scan.twins:
                write_restoring(opening)
                opening.directory.remove([*scan.manifest, *scan.twins])
            opening.tell("session_absent", session=opening.settings.session_id)
            opening.tell("fresh_start")
            line = load_line(opening, lease, trying)
            line.absent.update(line.manifest)  # what belonged to no bot outlives a logout
            return line
        case Outcome.ADOPT | Outcome.FLUSH:
            line = load_line(opening, lease, trying)
            report = flush_local(opening, line, scan, trying)
            for note in report.notes:
                if note.kind is not NoteKind.TORN:  # repaired from the store
                    opening.tell(note.kind.value, bot=note.about or ".", snapshot=report.snapshot)
            if report.changed:
                opening.tell("flush_done", files=report.files, removed=report.removed, revision=report.revision)
            return line


def restore_line(opening: Opening, lease: Lease, scan: Scan, trying: Trying) -> tuple[Line, Restored]:
    """Restore the live line into the folder, under the marker's ``restoring``."""
    view = View(session_id=opening.settings.session_id)
    local = scan

    def attempt(connection: Connection) -> Restored:
        nonlocal local
        with files.one_moment(connection):
            found = files.read_head(connection, opening.db, opening.settings.session_id)
            if found is None:
                raise DamagedError("the session's row vanished during the restore", hint="start again")
            try:
                return restore(
                    connection,
                    opening.db,
                    opening.directory,
                    view,
                    found[1],
                    local=local,
                    before_change=lambda: write_restoring(opening),
                )
            except BaseException:
                local = opening.directory.scan()  # another try finds what this one left
                raise

    restored = opening.db.retrying(attempt, trying)
    line = _line(opening, lease, manifest=restored.manifest, identities=restored.identities)
    return line, restored


def flush_local(opening: Opening, line: Line, scan: Scan, trying: Trying, *, replace: bool = False) -> Report:
    """Local is the newer: store what differs; what is torn or missing here comes from the store.

    A bot whose identity changed is not repaired: its old rows are closed, after a snapshot. With ``replace`` (a forced
    backup) nothing is repaired: what is missing here is closed.
    """
    report = Report(revision=line.revision, unsynced=dict(scan.unsynced), unsupported=dict(scan.unsupported))
    plan, repair = _plan_local(opening, line, scan, trying, report)
    if replace:
        plan.remove |= {path for path in repair if path not in scan.manifest}
        repair = [path for path in repair if path in scan.manifest]
    line.carry_out(plan, trying, report)
    if repair:
        contents = line.read_stored(repair, trying=trying)
        write_restoring(opening)
        with opening.directory.writing(staged=True) as writer:
            for path, content in contents.items():
                writer.write(path, content)
        opening.directory.publish(contents)
    opening.directory.remove(scan.twins)
    report.revision = line.revision
    return report


def _plan_local(
    opening: Opening, line: Line, scan: Scan, trying: Trying, report: Report
) -> tuple[FlushPlan, list[str]]:
    """The plan of what to store, and the paths to repair from the store."""
    delta = line.manifest.delta_to(scan.manifest)
    seen = line.look(Batch(paths=frozenset(delta.changed)), trying, report)
    before = Before(
        line=line.manifest,
        identities=line.identities,
        missing_since={},
        cleared=frozenset(),
        child=Child.SIGNALLED,  # whoever wrote here was stopped, maybe in the middle of a file
        watching=opening.watching,
    )
    plan = plan_flush(before, seen, now=0.0)
    local = {
        folder_of(path): identity
        for path, what in seen.items()
        if is_creds(path) and isinstance(what, Version) and (identity := read_identity(what.content)) is not None
    }
    changed = {
        bot
        for bot, identity in local.items()
        if bot in line.identities and line.identities[bot].key_id != identity.key_id
    }
    lacking = [path for path in delta.removed if not scan.hides(path)]
    kept = {path for path in seen if path not in plan.write and seen[path] is not Absence.UNSYNCED}
    unwritten = [path for path in [*lacking, *kept] if path in line.manifest]
    closed = {path for path in unwritten if bot_of(path, line.manifest.bots) in changed}
    plan.remove |= closed
    if closed or changed:
        plan.want_snapshot("identity")
    plan.look_again.clear()
    return plan, [path for path in unwritten if path not in plan.remove]


def write_restoring(opening: Opening) -> None:
    """Say that the folder is being changed: until this is replaced, nobody flushes it or starts on it."""
    opening.marker.write(
        Mark(
            session=opening.settings.session_id,
            owner=opening.start.owner,  # a restart in place after a crash in the middle need not wait for the lease
            restoring=True,
            host=opening.start.host,
            boot_id=opening.start.boot_id,
        )
    )


def write_marker(opening: Opening, line: Line, *, clean: bool) -> None:
    """Say that the folder equals the line as it is now."""
    opening.marker.write(
        Mark(
            session=opening.settings.session_id,
            owner=opening.start.owner,
            token=line.fence.token,
            clean=clean,
            revision=line.revision,
            digest=line.manifest.digest,
            host=opening.start.host,
            boot_id=opening.start.boot_id,
        )
    )
