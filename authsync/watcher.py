"""watchdog's events as dirty paths. Events are speed; the full scan is the guarantee.

watchdog drops events silently when the kernel's queue overflows, and its thread dies when the root is removed: the
daemon asks ``alive()`` and starts again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

# Without a filter watchdog also reports our own reads, at twice the CPU per file.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileClosedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
]


class Watcher(FileSystemEventHandler):
    """Gathers changed paths of a folder and says so once, until they are taken."""

    def __init__(self, root: str, *, belongs: Callable[[str], bool], wake: Callable[[], None]) -> None:
        super().__init__()
        self._root = os.path.realpath(root)
        self._belongs = belongs
        self._wake = wake
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._scan = False
        self._told = False
        self._observer: BaseObserver | None = None
        self._inode: int | None = None

    def start(self) -> None:
        """Watch the folder as it is now.

        Raises:
            OSError: the folder is missing, or the machine has no inotify watches or instances left.
        """
        self.stop()
        self._inode = os.stat(self._root).st_ino
        observer = Observer()
        observer.schedule(self, self._root, recursive=True, event_filter=_EVENTS)
        observer.start()
        self._observer = observer

    def stop(self) -> None:
        """Stop watching."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            observer.join(timeout=2.0)

    def alive(self) -> bool:
        """Whether the folder of ``start`` is still the one at its path, and its threads live."""
        if self._observer is None or not self._observer.is_alive():
            return False
        if not all(emitter.is_alive() for emitter in self._observer.emitters):
            return False
        try:
            return os.stat(self._root).st_ino == self._inode
        except OSError:
            return False

    def take(self) -> tuple[set[str], bool]:
        """The paths that changed since the last call, and whether events cannot tell all."""
        with self._lock:
            paths, scan = self._paths, self._scan
            self._paths, self._scan, self._told = set(), False, False
        return paths, scan

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog's thread."""
        paths = [os.fsdecode(event.src_path)]
        if event.dest_path:
            paths.append(os.fsdecode(event.dest_path))
        start = len(self._root) + 1
        names = [path[start:] for path in paths if path.startswith(self._root + "/")]
        # A new folder may have got files before its watch was set: only a scan knows.
        if not event.is_directory:
            names = [name for name in names if self._belongs(name)]
        if not names and not event.is_directory:
            return
        with self._lock:
            if event.is_directory:
                self._scan = True
            else:
                self._paths.update(names)
            tell, self._told = not self._told, True
        if tell:
            self._wake()
