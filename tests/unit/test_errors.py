"""The exit codes that the README lists, and what an error carries."""

from __future__ import annotations

import pytest

from authsync import errors

CODES = {
    "UsageError": 64,
    "DamagedError": 65,
    "UnreachableError": 69,
    "BugError": 70,
    "FolderError": 73,
    "UnstoredError": 74,
    "OwnedError": 75,
    "FencedError": 75,
    "TombstoneError": 75,
    "RightsError": 77,
    "ConfigError": 78,
    "MissingSchemaError": 78,
    "CommandNotExecutableError": 126,
    "CommandNotFoundError": 127,
}


@pytest.mark.parametrize("name", CODES)
def test_exit_code(name: str) -> None:
    """Each kind of error has the exit code that users rely on, a message and a hint."""
    kind = getattr(errors, name)
    error = kind("what is wrong", hint="what to do")
    assert isinstance(error, errors.AuthsyncError)
    assert (error.exit_code, error.message, error.hint) == (CODES[name], "what is wrong", "what to do")
    assert str(error) == "what is wrong"


def test_complete() -> None:
    """No error is missing above."""
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.AuthsyncError) and kind is not errors.AuthsyncError
    }
    assert kinds == CODES.keys()
