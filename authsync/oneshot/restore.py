"""Database -> folder, by hand: never writes the database."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

from authsync.core.manifest import Delta
from authsync.core.reconcile import Folder, Stored, classify_folder, classify_stored
from authsync.directory import Directory
from authsync.errors import FolderError
from authsync.marker import Mark
from authsync.oneshot.base import OneShot
from authsync.oneshot.points import matching, restore_point
from authsync.reconcile import inspect, write_restoring
from authsync.restore import Progress, Restored, restore, restore_to
from authsync.store import files, schema
from authsync.store.connection import Connection
from authsync.store.files import View


class Restore(OneShot):
    """``authsync restore``."""

    def plan_restore(self) -> tuple[Delta, int]:
        """What a restore would change here, and the number of stored files. Changes nothing."""
        scan = self.directory.scan()

        def read(connection: Connection) -> tuple[Delta, int]:
            schema.require(connection, self.db)
            with files.one_moment(connection):
                found = files.read_head(connection, self.db, self.settings.session_id)
                if found is None or classify_stored(found[0]) is not Stored.LIVE:
                    return Delta(), 0
                stored = files.read_manifest(connection, self.db, View(session_id=self.settings.session_id))
            return scan.manifest.delta_to(stored), len(stored)

        return self.db.retrying(read, self.trying)

    def restore(self, *, force: bool, progress: Progress) -> tuple[Restored | None, Path | None]:
        """Make the folder what is stored; never writes the database.

        Returns:
            What was done (None: nothing live is stored), and where ``force`` kept the folder's own files.

        Raises:
            OwnedError: a bot of ours runs in the folder.
            FolderError: the folder holds changes that are not stored, or cannot be written.
        """
        self.db.retrying(lambda connection: schema.require(connection, self.db), self.trying)
        found = self.db.retrying(
            lambda connection: files.read_head(connection, self.db, self.settings.session_id), self.trying
        )
        head = found[0] if found is not None else None
        if head is None or classify_stored(head) is not Stored.LIVE:
            return None, None
        self.directory.make()
        self.marker.lock()
        scan, local, mark = inspect(self.opening)
        trace = mark.trace(self.settings.session_id) if mark is not None else None
        aside = None
        unstored = classify_folder(head, trace, local) not in {
            Folder.EMPTY,
            Folder.EQUAL,
            Folder.KNOWN,
            Folder.OURS_KNOWN,
            Folder.OURS_BARE_KNOWN,
        }
        if unstored and local.digest != head.digest:
            if not force:
                raise FolderError(
                    f"{self.directory.root} holds changes that are not stored",
                    hint="store them with `authsync backup`, or use --force, which keeps them beside the folder",
                )
            self.marker.unlock()
            aside = self.directory.set_aside(time.strftime("%Y-%m-%dT%H-%M-%S"))
            self.marker.lock()
            scan = self.directory.scan()

        def attempt(connection: Connection) -> Restored:
            with files.one_moment(connection):
                now = files.read_head(connection, self.db, self.settings.session_id)
                assert now is not None
                restored = restore(
                    connection,
                    self.db,
                    self.directory,
                    View(session_id=self.settings.session_id),
                    now[1],
                    local=scan,
                    before_change=lambda: write_restoring(self.opening),
                    progress=progress,
                )
            self._write_clean(now[0].revision, restored.manifest.digest)
            return restored

        restored = self.db.call(attempt)
        self.marker.unlock()
        return restored, aside

    def _write_clean(self, revision: int, digest: bytes) -> None:
        self.marker.write(
            Mark(
                session=self.settings.session_id,
                owner=None,  # we wrote nothing to the line; revision and digest tell the lineage
                clean=True,
                revision=revision,
                digest=digest,
                host=self.opening.start.host,
                boot_id=self.opening.start.boot_id,
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
        directory = Directory(target, names=self.settings.names, max_file_size_bytes=self.settings.max_file_size_bytes)
        directory.make()
        if any(target.iterdir()):
            raise FolderError(f"{target} is not empty", hint="name an empty or a new folder with --to")

        def attempt(connection: Connection) -> Restored:
            schema.require(connection, self.db)
            with files.one_moment(connection):
                view, totals = restore_point(connection, self.db, self.settings.session_id, snapshot, at)
                return restore_to(
                    connection,
                    self.db,
                    directory,
                    view,
                    totals,
                    wanted=matching(only),
                    progress=progress,
                )

        return self.db.call(attempt)
