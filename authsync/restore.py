"""Database -> folder: streamed, every digest checked, and the set's digest and count, before anything may use it.

A fresh folder is written directly; one with files gets what differs through the stage inside it, published by renames.
The caller has the marker say ``restoring`` from before the first visible change.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from authsync.core.identity import Identity, read_identity
from authsync.core.manifest import Delta, Entry, Manifest, Totals, content_entry, folder_of, is_creds
from authsync.core.names import is_twin
from authsync.directory import Directory, Scan
from authsync.errors import DamagedError
from authsync.store import files, sessions
from authsync.store.connection import Connection, Database
from authsync.store.files import Row, View
from authsync.writer import Writer

Progress = Callable[[int, int], None]
"""Called with files and bytes done so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did."""

    manifest: Manifest
    identities: dict[str, Identity]
    files_written: int
    files_removed: int
    took_ms: float


def restore(
    connection: Connection,
    db: Database,
    directory: Directory,
    view: View,
    totals: Totals,
    *,
    local: Scan,
    before_change: Callable[[], None],
    progress: Progress = lambda _files, _bytes: None,
) -> Restored:
    """Make the folder what ``view`` shows. Call it inside ``files.one_moment`` with the row that gave ``totals``.

    Args:
        connection: where the rows come from.
        db: for the schema's name.
        directory: the folder.
        view: what to restore.
        totals: what the session's row, or the snapshot, says of it.
        local: what lies in the folder now.
        before_change: called before the first visible change.
        progress: called as files are written.

    Raises:
        DamagedError: digests or the count do not match, or a path is unsafe; the folder stays ``restoring``.
        FolderError: the folder cannot be written.
    """
    began = time.monotonic()
    fresh = directory.is_bare()
    if fresh:
        before_change()
        with directory.writing(staged=False) as writer:
            manifest, identities = _write(connection, db, view, writer, paths=None, progress=progress)
        _check(manifest, totals)
        directory.remove(local.twins)
        written, removed = len(manifest), 0
    else:
        manifest = files.read_manifest(connection, db, view)
        _check(manifest, totals)
        delta = local.manifest.delta_to(manifest)
        needed = frozenset(delta.changed)
        identities = read_identities(connection, db, view.session_id)
        with directory.writing(staged=True) as writer:
            staged, _ = _write(connection, db, view, writer, paths=needed, progress=progress)
        missing = next((path for path in needed if staged.get(path) != manifest.get(path)), None)
        if missing is not None:
            raise _damage(f"the stored file {missing} is missing or has another digest")
        before_change()
        directory.remove([path for path in delta.removed if not is_twin(path)])
        directory.publish(needed)
        directory.remove(local.twins)
        written, removed = len(delta.changed), len(delta.removed)
    return Restored(
        manifest=manifest,
        identities=identities,
        files_written=written,
        files_removed=removed,
        took_ms=round((time.monotonic() - began) * 1000, 1),
    )


def read_identities(connection: Connection, db: Database, session_id: str) -> dict[str, Identity]:
    """Bot -> the identity that the line holds of it."""
    return {
        folder_of(path): identity
        for path, content in sessions.creds_files(connection, db, session_id).items()
        if (identity := read_identity(content)) is not None
    }


def _write(
    connection: Connection,
    db: Database,
    view: View,
    writer: Writer,
    *,
    paths: frozenset[str] | None,
    progress: Progress,
) -> tuple[Manifest, dict[str, Identity]]:
    manifest = Manifest()
    identities: dict[str, Identity] = {}
    written_bytes = 0
    for number, (path, content, stored_digest) in enumerate(files.stream_files(connection, db, view, paths=paths), 1):
        digest = hashlib.sha256(content).digest()
        if digest != stored_digest:
            raise _damage(f"the stored file {path} does not match its digest")
        if path in manifest:
            raise _damage(f"the file {path} is stored twice")
        manifest.put(path, Entry(digest, len(content)))
        if is_creds(path) and (identity := read_identity(content)) is not None:
            identities[folder_of(path)] = identity
        writer.write(path, content)
        written_bytes += len(content)
        if not number % files.STREAM_ROWS:
            progress(number, written_bytes)
    progress(len(manifest), written_bytes)
    return manifest, identities


def restore_to(
    connection: Connection,
    db: Database,
    directory: Directory,
    view: View,
    totals: Totals,
    *,
    wanted: Callable[[str], bool],
    progress: Progress = lambda _files, _bytes: None,
) -> Restored:
    """Write a restore point, or the ``wanted`` part of it, into an empty folder that no bot runs in.

    Raises:
        DamagedError: as ``restore``.
    """
    began = time.monotonic()
    stored = files.read_manifest(connection, db, view)
    _check(stored, totals)
    paths = frozenset(path for path in stored if wanted(path))
    with directory.writing(staged=False) as writer:
        manifest, identities = _write(connection, db, view, writer, paths=paths, progress=progress)
    missing = next((path for path in paths if manifest.get(path) != stored.get(path)), None)
    if missing is not None:
        raise _damage(f"the stored file {missing} is missing or has another digest")
    return Restored(
        manifest=manifest,
        identities=identities,
        files_written=len(manifest),
        files_removed=0,
        took_ms=round((time.monotonic() - began) * 1000, 1),
    )


def read_difference(
    connection: Connection,
    db: Database,
    view: View,
    totals: Totals,
    line: Manifest,
    *,
    wanted: Callable[[str], bool],
) -> tuple[Delta, list[Row]]:
    """What turns ``line`` into a restore point, as far as ``wanted``, and the contents that this takes.

    Raises:
        DamagedError: as ``restore``.
    """
    target = files.read_manifest(connection, db, view)
    _check(target, totals)
    whole = line.delta_to(target)
    delta = Delta(
        changed={path: entry for path, entry in whole.changed.items() if wanted(path)},
        removed=frozenset(path for path in whole.removed if wanted(path)),
    )
    rows = []
    for path, content, _ in files.stream_files(connection, db, view, paths=delta.changed):
        if content_entry(content) != delta.changed[path]:
            raise _damage(f"the stored file {path} does not match its digest")
        rows.append(Row(path, content, delta.changed[path]))
    return delta, rows


def _check(manifest: Manifest, totals: Totals) -> None:
    if len(manifest) != totals.file_count:
        raise _damage(f"{totals.file_count} files should be stored, {len(manifest)} are")
    if manifest.digest != totals.digest:
        raise _damage("the stored files do not match the digest of their set")
    both = next((path for path in manifest if manifest.is_folder(path)), None)
    if both is not None:
        raise _damage(f"{both} is stored as a file and as a folder")


def _damage(message: str) -> DamagedError:
    return DamagedError(
        message,
        hint="the folder is not used; see what is whole with: authsync status; "
        "start anew with --on-restore-failure fresh",
    )
