"""Manifests: path -> digest and size, with a digest over the whole set that a change updates in O(change)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

from authsync.core.names import CREDS

DIGEST_BYTES = 32
EMPTY_DIGEST = bytes(DIGEST_BYTES)
_MODULUS = 1 << (8 * DIGEST_BYTES)


class Entry(NamedTuple):
    """One file's content, by its SHA-256 digest and its size in bytes. A NamedTuple: 50,000 are made in a restore."""

    sha256: bytes
    size_bytes: int


def content_entry(content: bytes) -> Entry:
    """The entry of a file that holds ``content``."""
    return Entry(hashlib.sha256(content).digest(), len(content))


def _element(path: str, sha256: bytes) -> int:
    # The NUL separates: a path holds none.
    return int.from_bytes(hashlib.sha256(path.encode() + b"\0" + sha256).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What turns one manifest into the next."""

    changed: Mapping[str, Entry] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a session's row says of its files."""

    digest: bytes = EMPTY_DIGEST
    file_count: int = 0
    total_bytes: int = 0


class Manifest:
    """The files of one state of a folder or a line.

    The set digest is the sum, modulo 2**256, of SHA-256(path, NUL, content digest): the order of the files does not
    matter, and adding or removing one costs one hash. It finds damage and mix-ups; it is no defence against a forger
    who can write the database.
    """

    __slots__ = ("_bots", "_bytes", "_entries", "_sum", "_under")

    def __init__(self, entries: Mapping[str, Entry] | None = None) -> None:
        self._entries: dict[str, Entry] = {}
        self._sum = 0
        self._bytes = 0
        self._bots: set[str] = set()
        self._under: dict[str, int] = {}  # folder -> files at any depth below it
        for path, entry in (entries or {}).items():
            self.put(path, entry)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def get(self, path: str) -> Entry | None:
        """The entry at ``path``, or None."""
        return self._entries.get(path)

    @property
    def digest(self) -> bytes:
        """The set digest; ``EMPTY_DIGEST`` for no files."""
        return self._sum.to_bytes(DIGEST_BYTES)

    @property
    def totals(self) -> Totals:
        """Digest, number of files and bytes."""
        return Totals(digest=self.digest, file_count=len(self._entries), total_bytes=self._bytes)

    @property
    def bots(self) -> frozenset[str]:
        """The folders that hold a ``creds.json``; the root is ``""``."""
        return frozenset(self._bots)

    def is_folder(self, path: str) -> bool:
        """Whether files lie below ``path``."""
        return path in self._under

    def below(self, folder: str) -> frozenset[str]:
        """The files below ``folder``, at any depth."""
        prefix = f"{folder}/" if folder else ""
        return frozenset(path for path in self._entries if path.startswith(prefix))

    def files_of(self, bot: str) -> frozenset[str]:
        """The files that belong to ``bot``."""
        return frozenset(path for path in self._entries if bot_of(path, self._bots) == bot)

    def count_of(self, bot: str | None) -> int:
        """How many files belong to ``bot`` (None: to no bot), in O(bots)."""
        outermost = [b for b in self._bots if not b or bot_of(b, self._bots) is None]
        if bot is None:
            return len(self._entries) - sum(self._under[b] for b in outermost)
        nested = (b for b in self._bots if b and b != bot and bot_of(b, self._bots) == bot)
        return self._under.get(bot, 0) - sum(self._under[b] for b in nested)

    def put(self, path: str, entry: Entry) -> None:
        """Add the file, or replace it."""
        if path in self._entries:
            self.drop(path)
        self._entries[path] = entry
        self._sum = (self._sum + _element(path, entry.sha256)) % _MODULUS
        self._bytes += entry.size_bytes
        for folder in ancestors(path):
            self._under[folder] = self._under.get(folder, 0) + 1
        if is_creds(path):
            self._bots.add(folder_of(path))

    def drop(self, path: str) -> None:
        """Remove the file if it is there."""
        old = self._entries.pop(path, None)
        if old is not None:
            self._sum = (self._sum - _element(path, old.sha256)) % _MODULUS
            self._bytes -= old.size_bytes
            for folder in ancestors(path):
                self._under[folder] -= 1
                if not self._under[folder]:
                    del self._under[folder]
            if is_creds(path):
                self._bots.discard(folder_of(path))

    def apply(self, delta: Delta) -> None:
        """Become what ``delta`` makes of this manifest."""
        for path in delta.removed:
            self.drop(path)
        for path, entry in delta.changed.items():
            self.put(path, entry)

    def totals_after(self, delta: Delta) -> Totals:
        """The totals that ``apply(delta)`` would give, in O(delta)."""
        total, count, size = self._sum, len(self._entries), self._bytes
        for path in delta.removed | delta.changed.keys():
            old = self._entries.get(path)
            if old is not None:
                total, count, size = total - _element(path, old.sha256), count - 1, size - old.size_bytes
        for path, entry in delta.changed.items():
            total, count, size = total + _element(path, entry.sha256), count + 1, size + entry.size_bytes
        return Totals(digest=(total % _MODULUS).to_bytes(DIGEST_BYTES), file_count=count, total_bytes=size)

    def delta_to(self, other: Manifest) -> Delta:
        """What turns this manifest into ``other``."""
        return Delta(
            changed={path: entry for path, entry in other.items() if self._entries.get(path) != entry},
            removed=frozenset(self._entries.keys() - other._entries.keys()),
        )

    def items(self) -> Iterable[tuple[str, Entry]]:
        """Pairs of path and entry."""
        return self._entries.items()

    def copy(self) -> Manifest:
        """An independent manifest of the same files."""
        twin = Manifest()
        twin._entries, twin._sum, twin._bytes = dict(self._entries), self._sum, self._bytes
        twin._bots, twin._under = set(self._bots), dict(self._under)
        return twin


def is_creds(path: str) -> bool:
    """Whether the file makes its folder a bot."""
    return path == CREDS or path.endswith(f"/{CREDS}")


def folder_of(path: str) -> str:
    """The folder of ``path``; ``""`` for the root."""
    return path.rpartition("/")[0]


def ancestors(path: str) -> Iterator[str]:
    """The folders above ``path``, the nearest first and the root (``""``) last."""
    folder = path
    while folder:
        folder = folder_of(folder)
        yield folder


def bot_of(path: str, bots: AbstractSet[str]) -> str | None:
    """The bot that ``path`` belongs to: the nearest folder above it that holds a ``creds.json``, or None."""
    return next((folder for folder in ancestors(path) if folder in bots), None)


def copy_branch(digest: bytes) -> int:
    """The branch number of a copy: derived from its set digest, so that the same folder is kept once; never 0."""
    return int.from_bytes(digest[:8]) >> 1 or 1  # a positive bigint
