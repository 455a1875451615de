"""What ``DATABASE_URL=embedded:`` promises: one real server per directory, shared, durable, and gone with its owner."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from authsync.errors import ConfigError, UnreachableError
from authsync.store import embedded, pgserver

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 60.0
# Prints the URL and who runs the server, and lives until its input ends.
HOLDER = """
import sys
from authsync.store import embedded
print(embedded.ensure(sys.argv[1]), "started" if embedded._started else "attached", flush=True)
sys.stdin.read()
embedded.stop()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user runs the server only where root starts it")


class Holder:
    """A process that keeps an embedded database, as a command does."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, url],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> tuple[str, str]:
        """Waits for the URL and for "started" or "attached"."""
        assert self.process.stdout
        url, how = self.process.stdout.readline().split()
        return url, how

    def kill(self) -> None:
        """Kills it with SIGKILL."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        """Ends it in good order, unless it was killed."""
        self.process.communicate(timeout=TIMEOUT_S)


@pytest.fixture
def base() -> Iterator[Path]:
    """A place for a database that the server's user can reach; pytest's own directories are closed to it."""
    parent = Path(tempfile.mkdtemp(prefix="authsync-embedded-"))
    parent.chmod(0o711)
    yield parent / "db"
    embedded.stop()
    wait_until_free(parent / "db")
    shutil.rmtree(parent)


@pytest.fixture
def holders() -> Iterator[list[Holder]]:
    """Holders to end after the test."""
    made: list[Holder] = []
    yield made
    for holder in made:
        holder.process.kill()
        holder.process.communicate(timeout=TIMEOUT_S)


def url_of(base: Path) -> str:
    """The setting that names a directory."""
    return f"embedded://{base}"


def wait_until_free(base: Path) -> None:
    """Waits until no process of a server in that directory is left."""
    with contextlib.suppress(FileNotFoundError), (base / "authsync.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def note(url: str, text: str) -> list[str]:
    """Stores a line, and returns all that are stored."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS notes (line text)")
        connection.execute("INSERT INTO notes VALUES (%s)", [text])
        return [line for (line,) in connection.execute("SELECT line FROM notes ORDER BY line")]


def postmaster_of(base: Path) -> int:
    """The number of the server's first process."""
    return int((base / "data/postmaster.pid").read_text().splitlines()[0])


def test_serves(base: Path) -> None:
    """A first call makes a durable server; a second one, in the same process, returns the same."""
    url = embedded.ensure(url_of(base))
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_setting('fsync'), current_setting('server_encoding')").fetchone()
    assert row == ("on", "UTF8")
    assert embedded.ensure(url_of(base)) == url


def test_closed_to_others(base: Path) -> None:
    """Without the password, which stands in a private file and on no command line, nobody gets in."""
    url = embedded.ensure(url_of(base))
    password = (base / "password").read_text()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(make_conninfo(url, password="wrong"))
    modes = {name: stat.S_IMODE((base / name).stat().st_mode) for name in (".", "data", "password", "log")}
    assert modes == {".": 0o700, "data": 0o700, "password": 0o600, "log": 0o600}
    assert password not in str(embedded._started[base].args)
    assert password not in (base / "log").read_text()


def test_second_process_attaches(base: Path, holders: list[Holder]) -> None:
    """A second process uses the server of the first, and leaves it running when it ends."""
    url = embedded.ensure(url_of(base))
    holders.append(Holder(url_of(base)))
    assert holders[0].answer() == (url, "attached")
    holders[0].close()
    assert note(url, "a") == ["a"]


@pytest.mark.parametrize("made", [False, True], ids=["empty", "existing"])
def test_two_at_once(base: Path, holders: list[Holder], *, made: bool) -> None:
    """Of two processes that start at the same moment one starts the server and the other attaches."""
    if made:
        embedded.ensure(url_of(base))
        embedded.stop()
    holders.extend(Holder(url_of(base)) for _ in range(2))
    answers = [holder.answer() for holder in holders]
    assert answers[0][0] == answers[1][0]
    assert {how for _, how in answers} == {"started", "attached"}


def test_owner_killed(base: Path, holders: list[Holder]) -> None:
    """The server ends with a killed owner; who needs it next waits for that, starts it again, and finds all data."""
    holders.append(Holder(url_of(base)))
    url, _ = holders[0].answer()
    note(url, "a")
    holders[0].kill()
    again = embedded.ensure(url_of(base))
    if again == url:  # it was still serving when we came: then the next reconnect finds the new one
        wait_until_free(base)
        again = embedded.ensure(url_of(base))
    assert note(again, "b") == ["a", "b"]


def test_server_killed(base: Path) -> None:
    """A server that crashed is started again, with its data, even if its number is another process's by now."""
    note(embedded.ensure(url_of(base)), "a")
    os.kill(postmaster_of(base), signal.SIGKILL)
    wait_until_free(base)
    left = base / "data/postmaster.pid"
    left.write_text("\n".join([str(os.getpid()), *left.read_text().splitlines()[1:], ""]))
    assert note(embedded.ensure(url_of(base)), "b") == ["a", "b"]


def test_killed_while_making(base: Path, holders: list[Holder]) -> None:
    """A process killed in the middle of initdb leaves nothing that stops the next one."""
    holders.append(Holder(url_of(base)))
    while not (base / "data.new/base").exists():
        assert holders[0].process.poll() is None, "it ended before it could be killed"
    holders[0].kill()
    assert not (base / "data").exists()
    assert note(embedded.ensure(url_of(base)), "a") == ["a"]
    assert not (base / "data.new").exists()


def test_other_major(base: Path) -> None:
    """Data of a PostgreSQL that is not installed is refused by its number, and left alone."""
    embedded.ensure(url_of(base))
    embedded.stop()
    (base / "data/PG_VERSION").write_text("11\n")
    with pytest.raises(ConfigError, match="belongs to PostgreSQL 11") as caught:
        embedded.ensure(url_of(base))
    assert "AUTHSYNC_PG_BINDIR" in caught.value.hint


def test_fitting_major(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among several PostgreSQLs the one that the data belongs to is taken, whatever comes first."""
    embedded.ensure(url_of(base))
    embedded.stop()
    newer = base.parent / "newer"
    newer.mkdir()
    (newer / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 99.1'\n")
    (newer / "postgres").chmod(0o755)
    monkeypatch.setenv("AUTHSYNC_PG_BINDIR", str(newer))
    with psycopg.connect(embedded.ensure(url_of(base))) as connection:
        assert connection.info.server_version < 990000


def test_no_programs(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any PostgreSQL the error says which extra brings one."""
    monkeypatch.setattr(pgserver, "_bin_dirs", lambda: iter([base]))
    with pytest.raises(ConfigError) as caught:
        embedded.ensure(url_of(base))
    assert caught.value.hint == "pip install 'authsync[embedded]'"


def test_foreign_directory(base: Path) -> None:
    """A directory that holds anything else is refused, and keeps its owner and mode."""
    base.mkdir(mode=0o755)
    (base / "notes.txt").touch()
    before = base.stat()
    with pytest.raises(ConfigError, match="holds something else"):
        embedded.ensure(url_of(base))
    after = base.stat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
    assert [entry.name for entry in base.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("url", ["embedded:db", "embedded:/db", "embedded://host/db"])
def test_no_absolute_path(url: str) -> None:
    """A URL without an absolute path after two slashes is refused, not guessed at."""
    assert embedded.is_embedded(url)
    with pytest.raises(ConfigError, match="names no directory"):
        embedded.ensure(url)


def test_start_fails(base: Path) -> None:
    """A server that ends while it starts gives an error that holds what it logged."""
    embedded.ensure(url_of(base))
    embedded.stop()
    (base / "data/postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(UnreachableError, match="no_such_setting"):
        embedded.ensure(url_of(base))


def test_stop_while_waiting(base: Path) -> None:
    """``stop`` ends a wait for another process's server at once."""
    base.mkdir(mode=0o700)
    errors: list[UnreachableError] = []

    def wait() -> None:
        with pytest.raises(UnreachableError) as caught:
            embedded.ensure(url_of(base))
        errors.append(caught.value)

    with (base / "authsync.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=wait)
        waiting.start()
        while not embedded._guard.locked():
            assert waiting.is_alive()
        embedded.stop()
        waiting.join(TIMEOUT_S)
    assert "stopped" in errors[0].message


@as_root
def test_package_out_of_reach(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs in a package that the server's user cannot reach are copied beside the data, once."""
    package = next((path for path in pgserver._bin_dirs() if path.parts[-2:] == pgserver._PACKAGED), None)
    assert package, "the embedded extra is not installed"
    closed = base.parent / "closed"
    for source in (package.parents[1], package.parents[1].with_name(f"{package.parents[1].name}.libs")):
        shutil.copytree(source, closed / source.name)
    closed.chmod(0o700)
    moved = closed / package.relative_to(package.parents[2])
    monkeypatch.setattr(pgserver, "_bin_dirs", lambda: iter([moved]))
    note(embedded.ensure(url_of(base)), "a")
    copies = [(copy.name, copy.stat().st_ctime_ns) for copy in base.glob("postgresql-*")]
    embedded.stop()
    assert note(embedded.ensure(url_of(base)), "b") == ["a", "b"]
    assert [(copy.name, copy.stat().st_ctime_ns) for copy in base.glob("postgresql-*")] == copies
    assert len(copies) == 1


@as_root
def test_directory_out_of_reach(base: Path) -> None:
    """A directory that the server's user cannot enter is refused with what to do about it."""
    base.parent.chmod(0o700)
    with pytest.raises(ConfigError, match="cannot enter") as caught:
        embedded.ensure(url_of(base))
    assert "chmod" in caught.value.hint
