"""What ``run`` and ``watch`` promise of processes, signals, folders and deletions."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.bots import IDLE, contents, creds, on_stop, session, shell, write
from tests.support.run import until
from tests.support.stored import Stored

if TYPE_CHECKING:
    from tests.acceptance.conftest import Starter

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")


def stores(stored: Stored, files: dict[str, bytes]) -> None:
    """Wait until exactly these files are stored."""
    until(lambda: stored.session and stored.files() == files, f"stored are {sorted(files)}")


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# Codes and signals


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
    ids=["0", "3", "SIGKILL", "SIGTERM"],
)
def test_exit_code(start: Starter, stored: Stored, script: str, code: int) -> None:
    """The exit code is the bot's, 128+n if signal n ended it; what it wrote last is stored."""
    assert start.once("run", *shell(f"echo '{{}}' >auth_info/last.json; {script}"))[0] == code
    assert stored.files() == {"last.json": b"{}\n"}


# Two processes that take the signal when they are ready for it; the first ends at once, the second writes something.
LEADER_AND_WORKER = """
import os, signal, time
awaited = {signal.SIGTERM, signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
if os.fork():
    signal.sigwait(awaited)
    os._exit(7)
print('{"event": "up"}', flush=True)
signal.sigwait(awaited)
time.sleep(0.3)
with open("auth_info/worker.json", "w") as file:
    file.write("1")
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal(start: Starter, stored: Stored, signum: signal.Signals) -> None:
    """A signal reaches all processes of the bot's group; the last flush waits until the last of them is gone."""
    run = start("run", "--", sys.executable, "-c", LEADER_AND_WORKER)
    run.wait_said("up")
    run.signal(signum)
    assert run.wait() == 7
    assert run.wait_logged("stopped")["reason"] == signum.name
    assert not run.logged("child_killed")
    assert stored.files() == {"worker.json": b"1"}


def test_stop_ignored(start: Starter, stored: Stored) -> None:
    """A bot that ignores SIGTERM is killed after --stop-timeout, and what it wrote meanwhile is stored."""
    run = start("run", "--stop-timeout", "1s", "--", *on_stop("echo 1 >auth_info/late.json; sleep 60"))
    run.wait_said("up")
    assert run.stop() == 137
    assert run.logged("child_killed")
    assert stored.files() == {"late.json": b"1\n"}


@linux
def test_killed_alone(start: Starter, stored: Stored, tmp_path: Path) -> None:
    """The bot does not outlive a killed authsync; a new container has the session when the lease has expired."""
    run = start.idle()
    write(tmp_path / "auth_info", session())
    stores(stored, session())
    child = run.child_pid
    run.signal(signal.SIGKILL)
    until(lambda: gone(child), "the bot ended with authsync")
    other = tmp_path / "other"
    other.mkdir()
    again = start.idle(cwd=other)
    assert again.logged("owner_waited_for")
    assert contents(other / "auth_info") == session()
    assert again.wait_logged("session_acquired")["previous_ended"] == "lost"


def test_environment(start: Starter, dsn: str) -> None:
    """The bot gets the environment and the working directory, less our keys and our database URL."""
    env = {"AUTHSYNC_DATABASE_URL": dsn, "AUTHSYNC_KEY_FILE": "/k", "AUTHSYNC_SESSION_ID": "default", "OF_THE_BOT": "1"}
    code, run = start.once("run", "--", *shell("env; pwd"), url="postgresql://bot:secret@its.own/database", env=env)
    assert code == 0
    seen = dict(line.split("=", 1) for line in run.stdout.splitlines() if "=" in line)
    assert "AUTHSYNC_DATABASE_URL" not in seen
    assert "AUTHSYNC_KEY_FILE" not in seen
    assert seen["DATABASE_URL"] == "postgresql://bot:secret@its.own/database"
    assert (seen["AUTHSYNC_SESSION_ID"], seen["OF_THE_BOT"]) == ("default", "1")
    assert run.stdout.splitlines()[-1] == str(start.cwd)


def test_switched_off(start: Starter, folder: Path) -> None:
    """AUTHSYNC_DATABASE_URL=off runs the bot alone, with a warning; it replaces authsync, and no folder is made."""
    code, run = start.once("run", "--", *shell("echo $$; exit 5"), env={"AUTHSYNC_DATABASE_URL": "off"})
    assert (code, run.stdout) == (5, str(run.process.pid))
    assert [line["level"] for line in run.logged("switched_off")] == ["warning"]
    assert not folder.exists()


# Two starts


def test_two_at_once(start: Starter, dsn: str, tmp_path: Path) -> None:
    """Two starts at once on an empty database are both fine; one of them makes the schema."""
    runs = {name: start("run", "--session-id", name, "--dir", name, "--", *IDLE) for name in ("a", "b")}
    for name, run in runs.items():
        run.wait_said("up")
        write(tmp_path / name, session(key=name))
    for name, run in runs.items():
        assert run.stop() == 0
        assert Stored(dsn, name).files() == session(key=name)
    assert Stored(dsn).rows("SELECT count(*) FROM {s}.migrations WHERE version = 1") == [{"count": 1}]


def test_second_waits(start: Starter, stored: Stored, tmp_path: Path) -> None:
    """A second start waits for the owner, without a bot, and goes on from what that one stored."""
    other = tmp_path / "other"
    other.mkdir()
    first = start.idle()
    second = start("run", "--", *IDLE, cwd=other)
    second.wait_logged("owner_waited_for")
    write(tmp_path / "auth_info", session())
    stores(stored, session())
    assert not second.logged("child_started")
    assert first.stop() == 0
    second.wait_logged("child_started")
    assert contents(other / "auth_info") == session()
    assert second.wait_logged("session_acquired")["previous_ended"] == "SIGTERM, code 0"


def test_restart_in_place(start: Starter, stored: Stored, folder: Path) -> None:
    """A start in the folder of a killed one does not wait for its lease; what is newer is stored, the rest mended."""
    run = start.idle()
    write(folder, session())
    stores(stored, session())
    run.kill_all()
    (folder / "creds.json").write_bytes(b"")  # as a bot leaves it that is killed in the middle of a save
    (folder / "pre-key-1.json").unlink()
    (folder / "pre-key-2.json").write_bytes(b'{"n": "newer"}')
    again = start.idle()
    assert not again.logged("owner_waited_for")
    expected = {**session(), "pre-key-2.json": b'{"n": "newer"}'}
    assert contents(folder) == expected
    assert stored.files() == expected


def test_watch_fenced(start: Starter, stored: Stored, tmp_path: Path) -> None:
    """``watch`` restores, says that it is ready, and flushes; it ends with 75 when it loses the session."""
    first = start("watch", "--dir", "one")
    first.wait_logged("watch_ready")
    write(tmp_path / "one", session())
    stores(stored, session())
    second = start("watch", "--dir", "two", "--takeover", "force")
    second.wait_logged("watch_ready")
    assert contents(tmp_path / "two") == session()
    write(tmp_path / "one", {"late.json": b"1"})
    assert first.wait() == 75
    assert "Error:" in first.stderr
    assert stored.copies() == [{**session(), "late.json": b"1"}]
    write(tmp_path / "two", {"creds.json": creds(counter=1)})
    stores(stored, {**session(), "creds.json": creds(counter=1)})
    assert second.stop() == 0


# The folder


def test_restored(start: Starter, stored: Stored, folder: Path) -> None:
    """A new container gets each bot of the root with its bytes, closed to others, before its bot starts."""
    files = {"creds.json": creds(), "user_17/creds.json": creds("b"), "user_17/deep/x.bin": b"\0\xff"}
    write(folder, files)
    assert start.once("run", "--", "true")[0] == 0
    shutil.rmtree(folder)
    before = os.umask(0)
    try:
        code, run = start.once("run", "--", *shell("find auth_info -name creds.json | wc -l"))
    finally:
        os.umask(before)
    assert (code, run.stdout.strip()) == (0, "2")
    restored = run.wait_logged("restore_done")
    assert (restored["files"], restored["revision"]) == (3, stored.revision)
    assert contents(folder) == files
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_portuguese(start: Starter, folder: Path) -> None:
    """--lang pt gives the messages that users know from the system that authsync replaces."""
    _, run = start.once("run", "--lang", "pt", "--", *shell("echo '{}' >auth_info/creds.json"))
    assert run.wait_logged("session_absent")["message"] == "ℹ️ Nenhuma sessão default encontrada no banco"
    assert run.wait_logged("fresh_start")["message"] == "📱 Nenhuma sessão encontrada, nova conexão será iniciada"
    assert run.wait_logged("flush_done")["message"] == "💾 Sessão salva no banco de dados"
    shutil.rmtree(folder)
    _, run = start.once("run", "--lang", "pt", "--", "true")
    assert run.wait_logged("restore_done")["message"] == "✅ Sessão default restaurada do banco"


def test_twins(start: Starter, stored: Stored, folder: Path) -> None:
    """``*.tmp`` and ``*.bak`` are never stored, and none is left beside what a restore writes."""
    twins = {"creds.json.bak": creds("old"), "pre-key-1.json.tmp": b"{", "user_17/creds.json.bak": b"1"}
    run = start.idle()
    write(folder, {**session(), "user_17/creds.json": creds("b"), **twins})
    stores(stored, {**session(), "user_17/creds.json": creds("b")})
    assert run.stop() == 0
    assert stored.files() == {**session(), "user_17/creds.json": creds("b")}
    write(folder, {**twins, "pre-key-2.json": b"not known to the store"})
    (folder / ".authsync.json").unlink()  # a folder of another origin: what is stored is restored over it
    start.idle()
    assert contents(folder) == {**session(), "user_17/creds.json": creds("b")}
    assert len(stored.copies()) == 1


def test_constant_writer(start: Starter, stored: Stored) -> None:
    """A bot that is never quiet for --debounce is flushed every --max-delay."""
    bot = shell('n=0; while :; do n=$((n+1)); echo "$n" >auth_info/counter.json; sleep 0.1; done')
    run = start("run", "--debounce", "1s", "--max-delay", "1200ms", "--", *bot)
    run.wait_logged("child_started")
    seen = 0
    for _ in range(3):

        def newer(than: int = seen) -> int:
            content = int(stored.file("counter.json") or 0)
            return content if content > than else 0

        seen = until(newer, f"what came after {seen} is stored")
    run.stop()
    assert int(stored.file("counter.json") or 0) >= seen


# Deletions


def test_missing_at_start(start: Starter, stored: Stored, folder: Path) -> None:
    """What is missing when we start was not deleted: it comes back."""
    write(folder, session())
    assert start.once("run", "--", "true")[0] == 0
    (folder / "creds.json").unlink()
    (folder / "pre-key-3.json").unlink()
    start.idle()
    assert contents(folder) == session()
    assert stored.files() == session()


def test_deletion(start: Starter, stored: Stored, folder: Path) -> None:
    """A deletion that we saw is stored, also by the flush after the bot's end."""
    run = start.idle()
    write(folder, session())
    stores(stored, session())
    expected = session()
    for path in ("pre-key-1.json", "pre-key-2.json"):
        (folder / path).unlink()
        del expected[path]
        if path == "pre-key-1.json":
            stores(stored, expected)
    assert run.stop() == 0
    assert stored.files() == expected
    shutil.rmtree(folder)
    start.idle()
    assert contents(folder) == expected


@pytest.mark.parametrize("ends", [False, True], ids=["alive", "ended"])
def test_logout(start: Starter, stored: Stored, folder: Path, *, ends: bool) -> None:
    """A bot that removes its folder logs out: a snapshot, then the session is cleared, and the next start is fresh."""
    write(folder, session())
    then = ("true",) if ends else IDLE
    run = start("run", "--", *shell("rm -rf auth_info", *then))
    cleared = run.wait_logged("bot_cleared")
    assert f"authsync rollback {cleared['snapshot']}" in cleared["message"]
    if not ends:
        run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert (stored.session["state"], stored.files()) == ("cleared", {})
    assert stored.snapshot_files(cleared["snapshot"]) == session()
    assert [row["reason"] for row in stored.snapshots()] == ["cleared"]
    again = start.idle()
    assert again.logged("session_absent")
    assert contents(folder) == {}
    write(folder, session(key="b"))
    until(lambda: stored.session["state"] == "live", "the new identity is stored")
    assert again.stop() == 0
    assert stored.files() == session(key="b")


def test_wiped_on_stop(start: Starter, stored: Stored, folder: Path) -> None:
    """A bot that wipes its folder when it is told to stop does not log out: what was stored stays, with a warning."""
    write(folder, session())
    run = start("run", "--", *on_stop("rm -rf auth_info"))
    run.wait_said("up")
    assert run.stop() == 0
    assert run.wait_logged("wipe_not_followed")["level"] == "warning"
    assert (stored.session["state"], stored.files()) == ("live", session())
    start.idle()
    assert contents(folder) == session()


def test_new_identity(start: Starter, stored: Stored, folder: Path) -> None:
    """Another identity does not replace a paired one without a snapshot and a warning."""
    run = start.idle()
    write(folder, session())
    stores(stored, session())
    (folder / "creds.json").write_bytes(creds("b", paired=False))
    number = run.wait_logged("identity_replaced", level="warning")["snapshot"]
    assert run.stop() == 0
    assert stored.snapshot_files(number) == session()
    assert stored.file("creds.json") == creds("b", paired=False)


# Starting without a database


def test_stopped_while_starting(start: Starter) -> None:
    """SIGTERM ends a start that still waits for its database, and no bot was started."""
    run = start("run", "--", *shell("touch started"), url="postgresql://bot@127.0.0.1:1/none")
    run.wait_logged("database_waited_for")
    assert run.stop() == 143
    assert not (start.cwd / "started").exists()


def test_stopped_while_waiting(start: Starter, tmp_path: Path) -> None:
    """SIGTERM ends a start that waits for another owner."""
    (tmp_path / "other").mkdir()
    start.idle()
    second = start("run", "--", *shell("touch started"), cwd=tmp_path / "other")
    second.wait_logged("owner_waited_for")
    second.stop()
    assert not (tmp_path / "other/started").exists()
