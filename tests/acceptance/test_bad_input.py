"""What goes wrong is told in two lines, what is wrong and what to do, with a code for scripts; no bot is started."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.bots import contents, session, shell, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.conftest import Starter
    from tests.support.postgres import TestServer
    from tests.support.stored import Stored

SECRET = "s3cret-passw0rd"
RUN = ("run", "--", "touch", "bot-was-started")
CLOSED_PORT = f"postgresql://bot:{SECRET}@127.0.0.1:1/bots"


def fails(
    start: Starter, code: int, *arguments: str, url: str | None = None, env: dict[str, str] | None = None
) -> tuple[str, str]:
    """Check that a command fails as all do, without a bot and without the password; what is wrong, and what to do."""
    wrong, hint = start.fails(code, *arguments, url=url, env=env)
    assert SECRET not in start.output
    assert not (start.cwd / "bot-was-started").exists()
    return wrong, hint


# The database's URL


@pytest.mark.parametrize("arguments", [RUN, ("watch",), ("status",), ("restore",), ("backup",), ("init",)])
def test_no_url(start: Starter, arguments: tuple[str, ...]) -> None:
    """Without any URL: 78, and what to set, on Railway too."""
    _, hint = fails(start, 78, *arguments, url="")
    assert "DATABASE_URL=${{Postgres.DATABASE_URL}}" in hint


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        f"mysql://bot:{SECRET}@db/bots",
        "http://db/",
        f"postgresql://bot:{SECRET}@db:port/bots",
        "embedded:db",
    ],
)
def test_wrong_url(start: Starter, url: str) -> None:
    """What is no URL of a PostgreSQL: 78, at once, without the password in it."""
    _, hint = fails(start, 78, *RUN, url=url)
    assert "embedded:" in hint or "postgresql://" in hint


def test_visible_password(start: Starter) -> None:
    """A password on the command line gets a warning that does not repeat it."""
    code, run = start.once("run", "--start-timeout", "100ms", "--database-url", CLOSED_PORT, *RUN[1:])
    assert code == 69
    assert run.logged("password_visible", level="warning")
    assert SECRET not in run.stderr


# What the database refuses


def test_wrong_password(start: Starter, server: TestServer, dsn: str) -> None:
    """A wrong password: 77, at once; with --log-level debug there is a traceback, and still no password."""
    user = server.create_role("right")
    url = dsn.replace("user=postgres", f"user={user} password={SECRET}")
    message, _ = fails(start, 77, *RUN, url=url)
    assert "password" in message
    code, run = start.once("run", "--log-level", "debug", *RUN[1:], url=url)
    assert (code, "Traceback" in run.stderr, SECRET in run.stderr) == (77, True, False)


def test_unknown_user(start: Starter, dsn: str) -> None:
    """A user that the database does not know: 77."""
    fails(start, 77, *RUN, url=dsn.replace("user=postgres", f"user=nobody_here password={SECRET}"))


def test_no_rights(start: Starter, stored: Stored, server: TestServer, dsn: str) -> None:
    """Without the right to make the schema: 77 and who can help; on a current schema no such right is needed."""
    user = server.create_role(SECRET)
    url = dsn.replace("user=postgres", f"user={user} password={SECRET}")
    _, hint = fails(start, 77, *RUN, url=url)
    assert "authsync init --print-sql" in hint
    assert start.once("init")[0] == 0
    message, _ = fails(start, 77, *RUN, url=url)
    assert "authsync" in message
    stored.execute(f"GRANT USAGE ON SCHEMA {{s}} TO {user}")
    stored.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {{s}} TO {user}")
    assert start.once("run", *shell("echo 1 >auth_info/a.json"), url=url)[0] == 0
    assert stored.files() == {"a.json": b"1\n"}


def test_no_such_database(start: Starter, dsn: str) -> None:
    """A database that does not exist: 78, at once."""
    fails(start, 78, *RUN, url=dsn.replace("dbname=test_", "dbname=no_such_"))


def test_database_down(start: Starter) -> None:
    """A database that does not answer within --start-timeout: 69, and the port that was asked."""
    message, _ = fails(start, 69, "run", "--start-timeout", "1s", *RUN[1:], url=CLOSED_PORT)
    assert "127.0.0.1" in message


# The folder


@pytest.mark.parametrize("arguments", [RUN, ("watch",), ("backup",)])
def test_folder_unusable(start: Starter, arguments: tuple[str, ...]) -> None:
    """A folder that cannot be: 73."""
    (start.cwd / "file").touch()
    message, _ = fails(start, 73, *arguments, env={"AUTHSYNC_DIR": "file/auth_info"})
    assert "file/auth_info" in message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root may mount a small disk")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=False, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"this machine lets nobody mount a small disk: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_disk_full(start: Starter, stored: Stored, folder: Path, small_disk: Path) -> None:
    """A disk that gets full during a restore: 73, no bot on half a set; it is not stored, and room mends it."""
    files = {**session(), **{f"session-{n}.json": b'"%s"' % (b"x" * 8192) for n in range(16)}}
    write(folder, files)
    assert start.once("run", "--", "true")[0] == 0
    revision = stored.revision
    for _ in range(2):  # the second start meets what the first left
        _, hint = fails(start, 73, "run", "--dir", str(small_disk), *RUN[1:])
        assert "space" in hint
        assert (stored.revision, stored.files()) == (revision, files)
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert start.once("run", "--dir", str(small_disk), "--", "true")[0] == 0
    assert contents(small_disk) == files
    assert stored.files() == files
    assert stored.copies() == []


# The command line


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--session-id", "a\tb", *RUN[1:]),
        ("run", "--session-id", "x" * 101, *RUN[1:]),
        ("run", "--session-id", "", *RUN[1:]),
        ("run", "--no-such-option", *RUN[1:]),
        ("status", "--no-such-option"),
        ("no-such-command",),
        ("run",),
        ("run", "--"),
        ("run", "--debounce", "fast", *RUN[1:]),
        ("run", "--takeover", "maybe", *RUN[1:]),
        ("restore", "--snapshot", "1"),
        ("watch", "node"),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_usage(start: Starter, arguments: tuple[str, ...]) -> None:
    """A command line that cannot be understood: 64."""
    fails(start, 64, *arguments)


@pytest.mark.parametrize("session_id", ["x" * 101, "a\x7fb", "a\nb"], ids=["long", "delete", "newline"])
def test_session_id_variable(start: Starter, session_id: str) -> None:
    """A variable is checked like its flag."""
    fails(start, 64, *RUN, env={"AUTHSYNC_SESSION_ID": session_id})


def test_contradiction(start: Starter) -> None:
    """Options that contradict each other: 78."""
    message, _ = fails(start, 78, "run", "--debounce", "1s", *RUN[1:])
    assert "--max-delay" in message


@pytest.mark.parametrize(
    ("command", "code"),
    [("./missing", 127), ("no-such-program", 127), ("./plain", 126), ("./auth_info", 126)],
)
def test_command(start: Starter, command: str, code: int) -> None:
    """A command that does not exist: 127; one that is not executable: 126; neither needs the database to tell."""
    (start.cwd / "plain").write_text("#!/bin/sh\ntouch bot-was-started\n")
    (start.cwd / "auth_info").mkdir()
    message, _ = fails(start, code, "run", "--", command, url=CLOSED_PORT)
    assert command in message


def test_no_interpreter(start: Starter) -> None:
    """A script whose interpreter is missing: 127, as in a shell."""
    (start.cwd / "bot").write_text("#!/no/such/interpreter\n")
    (start.cwd / "bot").chmod(0o755)
    fails(start, 127, "run", "--", "./bot")


# Another's session


def test_other_service(start: Starter, stored: Stored, folder: Path) -> None:
    """A second service with the same session id: 75, nothing restored; --takeover force moves the session."""
    write(folder, session())
    assert start.once("run", "--scope", "shop", "--", "true")[0] == 0
    message, hint = fails(start, 75, "run", "--scope", "support", "--dir", "other", *RUN[1:])
    assert "shop" in message
    assert "--session-id" in hint
    assert "--takeover force" in hint
    assert contents(start.cwd / "other") == {}
    fails(start, 75, *RUN)  # a laptop with production's URL
    moved = ["--scope", "support", "--dir", "other"]
    assert start.once("run", *moved, "--takeover", "force", "--", "true")[0] == 0
    assert contents(start.cwd / "other") == session()
    assert start.once("run", *moved, "--", "true")[0] == 0
    assert stored.session["scope"] == "support"
