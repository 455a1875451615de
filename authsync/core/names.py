"""Which paths belong to a session, and which are safe to write below its folder.

A path here is relative to the folder, with ``/`` between its parts: ``creds.json``, ``user_17/creds.json``.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field

OURS = ".authsync"
"""Prefix of every name of our own, at any depth; such paths are never stored and never restored."""
MARKER = ".authsync.json"
STAGE = ".authsync-stage"
CREDS = "creds.json"
"""A folder that holds this file is a bot."""

TWINS = (".tmp", ".bak")
"""A writer's half-finished or previous version of a file; a stale ``.bak`` resurrects keys, so none is ever stored."""

MAX_NAME_BYTES = 255  # NAME_MAX of every Linux file system
MAX_PATH_BYTES = 2000  # an index row of PostgreSQL holds 2,704 bytes, the session's id (400 at most) among them


def unsafe_reason(path: str) -> str | None:
    """Why ``path`` must not be written below the folder, or None if it may.

    Refuses what leaves the folder (absolute, ``..``), what the kernel or PostgreSQL cannot hold (NUL, names that are
    not UTF-8, over-long ones), and our own files.
    """
    if "\0" in path:
        return "holds a NUL"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if len(encoded) > MAX_PATH_BYTES:
        return "is too long"
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            return "leaves the folder"
        if part.startswith(OURS):
            return "is a name of authsync's own"
        if len(part.encode()) > MAX_NAME_BYTES:
            return "is too long"
    return None


def printable(path: str) -> str:
    """``path`` for people, where it may hold bytes that are not UTF-8."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def is_twin(path: str) -> bool:
    """Whether ``path`` is a writer's own temporary or previous version of a file."""
    return path.endswith(TWINS)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRules:
    """Which paths of a folder are synced: all but our own, the twins, and what ``--ignore`` names."""

    ignore: tuple[str, ...] = ()
    _ignored: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.ignore:
            pattern = re.compile("|".join(fnmatch.translate(glob) for glob in self.ignore))
            object.__setattr__(self, "_ignored", pattern)

    def belongs(self, path: str) -> bool:
        """Whether ``path`` is synced. A glob is held against the whole path and against the last name."""
        return not path.endswith(TWINS) and self.enters(path)

    def enters(self, folder: str) -> bool:
        """Whether anything below ``folder`` is synced: neither it nor a folder above it is ours or ignored."""
        if folder.startswith(OURS) or f"/{OURS}" in folder:
            return False
        while self._ignored is not None and folder:
            if self._ignored.match(folder) or self._ignored.match(folder.rpartition("/")[2]):
                return False
            folder = folder.rpartition("/")[0]
        return True


_DIGITS = re.compile(r"\d{8,}")


def mask_numbers(text: str) -> str:
    """``text`` with every run of eight or more digits shortened to ``5511*****4321``: file names hold phone numbers.

    Of a run under twelve digits two at each end are left, so that never more is shown than hidden.
    """
    return _DIGITS.sub(lambda run: _masked(run[0], 4 if len(run[0]) >= 12 else 2), text)


def _masked(digits: str, shown: int) -> str:
    return f"{digits[:shown]}*****{digits[-shown:]}"


_FAMILIES = (
    # The longer prefix first: `sender-key-memory-` is not a `sender-key-`.
    "app-state-sync-version",
    "app-state-sync-key",
    "sender-key-memory",
    "sender-key",
    "pre-key",
    "identity-key",
    "device-list",
    "lid-mapping",
    "tctoken",
    "session",
    "creds",
)


def family(path: str) -> str:
    """The kind of key material that a Baileys file name announces, or ``other``."""
    name = path.rpartition("/")[2]
    return next((f for f in _FAMILIES if name == f"{f}.json" or name.startswith(f"{f}-")), "other")
