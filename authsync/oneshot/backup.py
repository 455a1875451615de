"""Folder -> database once, by hand, or through the owner that runs."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from authsync.core.manifest import Delta
from authsync.core.ownership import Refusal, refusal
from authsync.core.reconcile import Outcome, decide
from authsync.errors import FolderError, OwnedError
from authsync.oneshot.base import OneShot
from authsync.reconcile import flush_local, import_old_table, inspect, load_line, write_marker
from authsync.start import ensure_schema
from authsync.store import files, leases, schema
from authsync.store.connection import Connection, Patience
from authsync.store.files import View
from authsync.store.leases import Order

ORDER_TIMEOUT_S = 60.0
"""How long a one-shot waits for the owner to carry its order out: a flush and a snapshot."""
ORDER_POLL_S = 0.3


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


class Backup(OneShot):
    """``authsync backup``."""

    def plan_backup(self) -> Delta:
        """What a backup would change in the database. Changes nothing."""
        scan = self.directory.scan()

        def read(connection: Connection) -> Delta:
            if schema.current_version(connection, self.db) == 0:
                return Delta(changed=dict(scan.manifest.items()))
            stored = files.read_manifest(connection, self.db, View(session_id=self.settings.session_id))
            return stored.delta_to(scan.manifest)

        return self.db.retrying(read, self.trying)

    def backup(self, *, reason: str | None, force: bool) -> BackedUp:
        """Store the folder once, and keep a snapshot; through the owner where one runs.

        Raises:
            OwnedError: the stored state is newer than this folder, or belongs to another service.
        """
        ensure_schema(self.opening, self.trying)
        ordered = self._order(reason)
        if ordered is not None:
            return ordered
        if not self.directory.exists():
            raise FolderError(f"there is no folder {self.directory.root}", hint="name the bot's folder with --dir")
        self.marker.lock()
        with self.owned() as acquired:
            lease = import_old_table(self.opening, acquired, self.trying)
            scan, local, mark = inspect(self.opening)
            plan = decide(lease.head, mark.trace(self.settings.session_id) if mark is not None else None, local)
            line = load_line(self.opening, lease, self.trying)
            stale = plan.outcome not in {Outcome.ADOPT, Outcome.FLUSH} and local.digest != lease.head.digest
            if stale and (not force or not local.file_count):
                raise OwnedError(
                    "the stored session is newer than this folder, or of another origin",
                    hint="see `authsync status`; --force stores the folder after a snapshot of what is stored",
                )
            if stale:
                line.take_snapshot("manual", trying=self.trying, note="before a forced backup")
            report = flush_local(self.opening, line, scan, self.trying, replace=stale)
            number = line.take_snapshot("manual", trying=self.trying, note=reason)
            write_marker(self.opening, line, clean=True)
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
        session_id = self.settings.session_id
        claim = self.db.retrying(lambda c: leases.read_claim(c, self.db, session_id), self.trying)
        if claim is None or claim.owner is None or not claim.expires_in_s or claim.expires_in_s <= 0:
            return None
        if refusal(claim, scope=self.settings.scope) is Refusal.OTHER_SCOPE:
            raise OwnedError(
                f"the session {session_id!r} belongs to another service ({claim.scope})",
                hint="set --session-id, or --scope if this is meant",
            )
        order = Order(id=str(uuid.uuid4()), kind="backup", note=reason)
        if self.db.retrying(lambda c: leases.give_order(c, self.db, session_id, order), self.trying) is None:
            return None
        patience, give_up_at = Patience(), time.monotonic() + ORDER_TIMEOUT_S
        while time.monotonic() < give_up_at:
            outcome = self.db.retrying(lambda c: leases.read_outcome(c, self.db, session_id, order.id), self.trying)
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
