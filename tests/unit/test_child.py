"""What the bot's process gets, and how its program is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from authsync.child import environment, find_command
from authsync.errors import CommandNotExecutableError, CommandNotFoundError


def test_environment() -> None:
    """The bot gets the environment as it is, less our keys and our database URL."""
    kept = {"DATABASE_URL": "x", "PATH": "/bin", "AUTHSYNC_SESSION_ID": "s", "AUTHSYNC_LANG": "pt", "EMPTY": ""}
    ours = ["AUTHSYNC_KEY", "AUTHSYNC_KEY_FILE", "AUTHSYNC_DATABASE_URL", "AUTHSYNC_DATABASE_URL_FILE"]
    assert environment(kept | dict.fromkeys(ours, "x")) == kept


def make(path: Path, mode: int) -> str:
    """A file that could be a program."""
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return str(path)


def test_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up in PATH, in its order; a path is taken as it is."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / folder) for folder in ("one", "two")))
    second = make(tmp_path / "two/bot", 0o755)
    assert find_command(["bot", "x"]) == second
    first = make(tmp_path / "one/bot", 0o755)
    assert find_command(["bot"]) == first
    assert find_command([second]) == second
    monkeypatch.chdir(tmp_path)
    assert Path(find_command(["./two/bot"])).samefile(second)


@pytest.mark.parametrize("name", ["no-such-bot", "./no-such-bot", "/no/such/bot", ""])
def test_not_found(name: str) -> None:
    """What does not exist gives 127, as in a shell."""
    with pytest.raises(CommandNotFoundError) as caught:
        find_command([name])
    assert caught.value.exit_code == 127
    assert caught.value.hint


def test_not_executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What exists and is not executable gives 126, as in a shell, by its path, in PATH, or as a folder."""
    monkeypatch.setenv("PATH", str(tmp_path))
    path = make(tmp_path / "bot", 0o644)
    for name in (path, "bot", str(tmp_path)):
        with pytest.raises(CommandNotExecutableError) as caught:
            find_command([name])
        assert caught.value.exit_code == 126
        assert caught.value.hint
