"""The one tree of errors: each names what is wrong, what to do, and the exit code (after sysexits).

An error is translated where it arises (psycopg's in ``store/``, the file system's in ``directory.py``) and printed in
one place, ``cli/``. Messages never hold file contents, keys, passwords or phone numbers.
"""

from __future__ import annotations

from typing import ClassVar


class AuthsyncError(Exception):
    """Anything that ends a command. ``message`` says what is wrong, ``hint`` what to do about it."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AuthsyncError):
    """The command line cannot be understood."""

    exit_code = 64


class DamagedError(AuthsyncError):
    """What is stored does not match its digests, or holds what must never be restored."""

    exit_code = 65


class UnreachableError(AuthsyncError):
    """The database did not answer within its budget."""

    exit_code = 69


class BugError(AuthsyncError):
    """Something that cannot happen did."""

    exit_code = 70


class FolderError(AuthsyncError):
    """The folder cannot be read or written (rights, a full disk, a path that is a file)."""

    exit_code = 73


class UnstoredError(AuthsyncError):
    """The child ended well, but its last changes could not be stored."""

    exit_code = 74


class OwnedError(AuthsyncError):
    """Another owner or another service holds the session."""

    exit_code = 75


class RightsError(AuthsyncError):
    """The database refuses this user: the password, or rights that are missing."""

    exit_code = 77


class ConfigError(AuthsyncError):
    """The configuration is missing something, or contradicts itself."""

    exit_code = 78


class MissingSchemaError(ConfigError):
    """The database lacks our tables."""


class CommandNotFoundError(AuthsyncError):
    """The command to run does not exist; the code is a shell's."""

    exit_code = 127


class CommandNotExecutableError(AuthsyncError):
    """The command to run is not executable; the code is a shell's."""

    exit_code = 126


FENCED_MESSAGE = "another owner holds the session now"
TOMBSTONE_MESSAGE = "the session was deleted"


class FencedError(OwnedError):
    """Our owner id or token is no longer the session's: nothing more may be written."""


class TombstoneError(OwnedError):
    """The session was deleted while we ran it."""
