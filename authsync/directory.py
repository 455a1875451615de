"""The folder: scans, stable reads, and writes that can neither leave it nor be read by others."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from authsync.below import FOLDER, Below
from authsync.core.flushplan import Absence
from authsync.core.manifest import Entry, Manifest, ancestors
from authsync.core.names import CREDS, MARKER, OURS, STAGE, TWINS, NameRules, is_twin, printable, unsafe_reason
from authsync.errors import FolderError
from authsync.writer import WRITERS, Writer

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: opening a FIFO must not wait
_BUFFER_BYTES = 64 << 10
"""A larger one costs 3.7 times: the kernel has to find the pages."""

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
_UNSUPPORTED = {
    "SQLite database": ("-wal", "-journal", ".sqlite", ".sqlite3", ".db"),
    "Chromium profile": ("SingletonLock", "Local State", "DevToolsActivePort"),
}

Signature = tuple[int, int, int]
"""Size, mtime in ns, inode: the same before and after a read means that the read is of one version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StableRead:
    """A file's bytes, with the stat that stood still around the read."""

    content: bytes = field(repr=False)
    entry: Entry
    signature: Signature
    still_s: float


@dataclass(slots=True, kw_only=True)
class Scan:
    """What lies in the folder."""

    manifest: Manifest = field(default_factory=Manifest)
    twins: list[str] = field(default_factory=list)
    unsynced: dict[str, str] = field(default_factory=dict)
    """Path -> why it is not synced."""
    unsupported: dict[str, str] = field(default_factory=dict)
    """Path -> what it belongs to."""

    def hides(self, path: str) -> bool:
        """Whether ``path`` may exist although it is not in the manifest: it, or a folder above it, is not synced."""
        return path in self.unsynced or any(folder in self.unsynced for folder in ancestors(path))


class Directory:
    """One root. Nothing of it is held open between two calls: a bot may remove and remake it."""

    def __init__(self, root: Path, *, names: NameRules, max_file_size_bytes: int) -> None:
        self.root = root
        self._names = names
        self._max_bytes = max_file_size_bytes

    def make(self) -> None:
        """Make the root, 0700, if it is missing.

        Raises:
            FolderError: it cannot be made or used.
        """
        with _translated(self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "Permission denied", str(self.root))

    def belongs(self, path: str) -> bool:
        """Whether ``path`` is synced, by its name."""
        return self._names.belongs(path)

    def exists(self) -> bool:
        """Whether the root is there."""
        return self.root.is_dir()

    def is_bare(self) -> bool:
        """Whether nothing but our own files lies in the folder."""
        with _translated(self.root):
            return all(entry.name.startswith(OURS) for entry in self.root.iterdir())

    def scan(self) -> Scan:
        """Hash every file: a scan trusts no mtime, and costs little more than a stat of each.

        Raises:
            FolderError: the root, or a folder in it, cannot be read.
        """
        found = Scan()
        with _translated(self.root):
            self._scan_into(found, "", self.root)
        return found

    def _scan_into(self, found: Scan, prefix: str, folder: str | Path) -> None:
        try:
            entries = os.scandir(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            if not prefix:
                raise
            found.unsynced[prefix.rstrip("/")] = _reason(error)
            return
        with entries:
            for entry in entries:
                path = prefix + entry.name
                is_folder = entry.is_dir(follow_symlinks=False)
                if not self._names.enters(path):
                    continue
                reason = unsafe_reason(path)
                if reason is not None:
                    found.unsynced[printable(path)] = f"its name {reason}"
                elif is_folder:
                    self._scan_into(found, path + "/", entry.path)
                elif is_twin(path):
                    found.twins.append(path)
                else:
                    self._scan_file(found, path, entry.path)

    def _scan_file(self, found: Scan, path: str, where: str) -> None:
        belongs_to = next((kind for kind, ends in _UNSUPPORTED.items() if path.endswith(ends)), None)
        if belongs_to is not None:
            found.unsupported[path] = belongs_to
        try:
            fd = os.open(where, _READ)
        except OSError as error:
            if error.errno not in _GONE:
                found.unsynced[path] = _reason(error)
            return
        try:
            size = os.fstat(fd)
            if (reason := self._refusal(size)) is not None:
                found.unsynced[path] = reason
                return
            content = _read_all(fd, size.st_size)
        except OSError as error:
            found.unsynced[path] = _reason(error)
            return
        finally:
            os.close(fd)
        found.manifest.put(path, Entry(hashlib.sha256(content).digest(), len(content)))

    def _refusal(self, status: os.stat_result) -> str | None:
        if not stat.S_ISREG(status.st_mode):
            return "it is no regular file"
        if status.st_size > self._max_bytes:
            return f"it is larger than --max-file-size ({self._max_bytes} bytes)"
        return None

    def read(self, paths: Iterable[str], *, on_unsynced: Callable[[str, str], None]) -> dict[str, StableRead | Absence]:
        """Read files, each with its stat the same before and after, and the whole set unchanged at the end."""
        seen: dict[str, StableRead | Absence] = {}
        with self._opened() as below:
            for path in paths:
                seen[path] = self._read(below, path, on_unsynced)
            for path, what in seen.items():
                if isinstance(what, StableRead) and _signature_at(below, path) != what.signature:
                    seen[path] = Absence.MOVING
        return seen

    def _read(self, below: Below | None, path: str, on_unsynced: Callable[[str, str], None]) -> StableRead | Absence:
        if below is None:
            return Absence.MISSING
        try:
            fd = os.open(path.rpartition("/")[2], _READ, dir_fd=below.folder(path))
        except OSError as error:
            if error.errno in _GONE and not self._is_behind_link(path):
                return Absence.MISSING
            on_unsynced(path, _reason(error))
            return Absence.UNSYNCED
        try:
            before = os.fstat(fd)
            if stat.S_ISDIR(before.st_mode):
                return Absence.MISSING
            if (reason := self._refusal(before)) is not None:
                on_unsynced(path, reason)
                return Absence.UNSYNCED
            content = _read_all(fd, before.st_size)
            after = os.fstat(fd)
        except OSError as error:
            on_unsynced(path, _reason(error))
            return Absence.UNSYNCED
        finally:
            os.close(fd)
        if _signature(before) != _signature(after) or len(content) != before.st_size:
            return Absence.MOVING
        return StableRead(
            content=content,
            entry=Entry(hashlib.sha256(content).digest(), len(content)),
            signature=_signature(after),
            still_s=max(0.0, time.time() - after.st_mtime),
        )

    def _is_behind_link(self, path: str) -> bool:
        """Whether a folder above ``path`` became a link: its files moved, they were not deleted."""
        return any((self.root / folder).is_symlink() for folder in ancestors(path) if folder)

    def rewritten(self, paths: Iterable[str]) -> frozenset[str]:
        """Those of ``paths`` beside which a ``.tmp`` or ``.bak`` lies: their writer is at work."""
        return frozenset(path for path in paths if any(os.path.lexists(self.root / (path + twin)) for twin in TWINS))

    def creds_nearby(self) -> list[str]:
        """Any ``creds.json`` up to two folders below the working directory, outside this root."""
        found = {path for glob in (CREDS, f"*/{CREDS}", f"*/*/{CREDS}") for path in Path.cwd().glob(glob)}
        return sorted(str(path.relative_to(Path.cwd())) for path in found if self.root not in path.parents)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Below | None]:
        try:
            root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _GONE:
                yield None
                return
            raise FolderError(f"the folder {self.root} cannot be read: {error.strerror}") from error
        below = Below(root)
        try:
            yield below
        finally:
            below.close()

    @contextlib.contextmanager
    def writing(self, *, staged: bool) -> Iterator[Writer]:
        """Write files of a restore: directly into an empty folder, else into the stage inside it.

        Raises:
            FolderError: the folder cannot be written (rights, a full disk).
        """
        with _translated(self.root):
            where = self.root / STAGE if staged else self.root
            if staged:
                remove_tree(where)
            where.mkdir(mode=0o700, parents=True, exist_ok=True)
            root = os.open(where, FOLDER)
            try:
                with ThreadPoolExecutor(WRITERS, thread_name_prefix="writer") as pool:
                    writer = Writer(root, pool)
                    try:
                        yield writer
                        writer.finish()
                    except BaseException:
                        pool.shutdown(wait=False, cancel_futures=True)
                        raise
            finally:
                os.close(root)

    def drop_stage(self) -> None:
        """Remove what a staged restore that did not finish left behind: it may hold keys of a session that is gone."""
        with _translated(self.root):
            remove_tree(self.root / STAGE)

    def publish(self, paths: Iterable[str]) -> None:
        """Move staged files to their places; what stands in the way of a folder or a file goes."""
        with _translated(self.root):
            for path in paths:
                target = self.root / path
                for folder in reversed([self.root / name for name in ancestors(path) if name]):
                    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                        folder.unlink()
                    folder.mkdir(mode=0o700, exist_ok=True)  # one by one: `parents=True` gives the umask's mode
                if target.is_dir() and not target.is_symlink():
                    remove_tree(target)
                (self.root / STAGE / path).replace(target)
            remove_tree(self.root / STAGE)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, and the folders that this empties."""
        with _translated(self.root):
            for path in paths:
                (self.root / path).unlink(missing_ok=True)
                for folder in ancestors(path):
                    if folder:
                        with contextlib.suppress(OSError):  # not empty, or gone
                            (self.root / folder).rmdir()

    def set_aside(self, moment: str) -> Path:
        """Keep the folder's files in ``DIR.before-TIME`` and leave the folder empty (it may be a mount point)."""
        aside = self.root.with_name(f"{self.root.name}.before-{moment}")
        with _translated(self.root):
            try:
                self.root.rename(aside)
            except OSError as error:
                if error.errno not in {errno.EBUSY, errno.EXDEV, errno.EACCES}:
                    raise
                _copy_tree(self.root, aside)
                scan = self.scan()
                self.remove([*scan.manifest, *scan.twins])
            self.make()
            aside.joinpath(MARKER).unlink(missing_ok=True)
        return aside


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` and what is in it; no link is followed."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    if not folder.is_dir():
        return
    for where, folders, files in os.walk(folder, topdown=False):
        for name in files:
            Path(where, name).unlink()
        for name in folders:
            inner = Path(where, name)
            inner.unlink() if inner.is_symlink() else inner.rmdir()
    folder.rmdir()


def _copy_tree(source: Path, target: Path) -> None:
    import shutil  # noqa: PLC0415 - only where the folder is a mount point

    def special(folder: str, names: list[str]) -> list[str]:
        paths = {name: Path(folder, name) for name in names}
        return [name for name, path in paths.items() if not (path.is_symlink() or path.is_file() or path.is_dir())]

    shutil.copytree(source, target, symlinks=True, ignore=special)
    target.chmod(0o700)


def _read_all(fd: int, size: int) -> bytes:
    """All bytes of ``fd``, whose size was ``size`` a moment ago."""
    if size < _BUFFER_BYTES:
        return os.read(fd, size + 1)
    parts = []
    while part := os.read(fd, _BUFFER_BYTES):
        parts.append(part)
    return b"".join(parts)


def _signature(status: os.stat_result) -> Signature:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _signature_at(below: Below | None, path: str) -> Signature | None:
    try:
        assert below is not None
        return _signature(os.stat(path.rpartition("/")[2], dir_fd=below.folder(path), follow_symlinks=False))
    except OSError:
        return None


def _reason(error: OSError) -> str:
    return (
        "it is, or is behind, a symbolic link"
        if error.errno in {errno.ELOOP, errno.ENOTDIR}
        else f"it cannot be read ({error.strerror})"
    )


@contextlib.contextmanager
def _translated(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "free some space, or put the folder on a larger disk",
            errno.EROFS: "mount the folder read-write (a tmpfs will do)",
        }
        raise FolderError(
            f"the folder {root} cannot be used: {error.strerror or error}",
            hint=hints.get(error.errno or 0, f"make {root} readable and writable for uid {os.geteuid()}"),
        ) from error
