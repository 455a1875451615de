"""No wait without an end: a peer that never answers, a database that stays away, and being told to hurry or to stop."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from authsync.errors import AuthsyncError, RightsError, UnreachableError
from authsync.store import files
from authsync.store.connection import Attempt, Database, Patience, Trying
from authsync.store.files import View
from tests.integration.world import TTL_S, WAIT_S, World, in_thread, until
from tests.support.bots import write
from tests.support.proxy import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsync.store.connection import Connection

LONG_S = 3600.0


def ask(connection: Connection) -> object:
    """A question that is answered at once."""
    return connection.execute("SELECT 1").fetchone()


@pytest.fixture
def silent() -> Iterator[str]:
    """A peer that accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"postgresql://bot@127.0.0.1:{listener.getsockname()[1]}/bot"


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"postgresql://bot@127.0.0.1:{probe.getsockname()[1]}/bot"


# Deadlines


def test_silent_peer(silent: str) -> None:
    """A peer that accepts and never answers is given up: 69, after one try where there is no budget."""
    db = Database(silent, "authsync")
    with pytest.raises(UnreachableError) as error:
        db.call(ask, timeout_s=0.1)
    assert error.value.exit_code == 69
    assert "127.0.0.1" in error.value.message
    assert error.value.hint


def test_statement_without_an_answer(world: World) -> None:
    """A connection that stops answering in a statement ends at our deadline, and the next call is well."""
    proxy = world.proxy()
    db = world.database(proxy.through(world.dsn))
    db.call(ask, timeout_s=LONG_S)  # a deadline that is no longer anybody's
    proxy.set(Mode.BLACKHOLE)
    with pytest.raises(UnreachableError):
        db.call(ask, timeout_s=0.1)
    proxy.set(Mode.PASS)
    assert db.call(ask) == (1,)


def test_long_statement(world: World) -> None:
    """A statement that takes longer than it may is given up as well."""
    db = world.database()
    with pytest.raises(UnreachableError):
        db.call(lambda connection: connection.execute("SELECT pg_sleep(3600)"), timeout_s=0.1)
    assert db.call(ask) == (1,)


def test_silence_in_a_flush(world: World) -> None:
    """A flush into silence ends, is retried when the database answers again, and is one revision."""
    proxy = world.proxy()
    owner = world.owner(dsn=proxy.through(world.dsn))
    push = owner.order({"creds.json": b"{}"})
    proxy.set(Mode.HOLD_DOWN)
    silence_ends: list[Attempt] = []

    def told(attempt: Attempt) -> None:
        silence_ends.append(attempt)
        proxy.set(Mode.PASS)

    outcome = owner.db.retrying(
        lambda c: files.push(c, owner.db, push, ttl_s=TTL_S),
        Trying(budget_s=LONG_S, on_retry=told),
        timeout_s=0.1,
    )
    assert len(silence_ends) == 1
    assert str(outcome) == "NoRow.OWN_COMMIT"
    assert world.stored.revision == 1


class Impatient(Database):
    """A database of which a stream may pause for a second, not for ten."""

    PAUSE_S = 1.0

    def still_coming(self, timeout_s: float = PAUSE_S) -> None:
        """As ever, and sooner."""
        super().still_coming(timeout_s)


def test_silence_in_a_stream(world: World) -> None:
    """A stream of rows that falls silent in the middle ends; what it carried is not taken for all of it."""
    owner = world.owner()
    held = {f"{n:05}": os.urandom(8000) for n in range(files.STREAM_ROWS * 4)}  # more than any buffer holds
    owner.flush(held)
    proxy = world.proxy()
    db = Impatient(proxy.through(world.dsn), "authsync")
    seen: list[str] = []

    def read(connection: Connection) -> None:
        for path, _, _ in files.stream_files(connection, db, View(session_id="default")):
            if not seen:
                proxy.set(Mode.BLACKHOLE)
            seen.append(path)

    with pytest.raises(UnreachableError):
        db.call(read, timeout_s=Impatient.PAUSE_S)
    assert 0 < len(seen) < len(held)
    proxy.set(Mode.PASS)


def test_long_stream(world: World) -> None:
    """A stream is limited by its pauses, not by its size: a slow one that goes on arrives whole."""
    owner = world.owner()
    held = {f"{n:05}": os.urandom(2000) for n in range(files.STREAM_ROWS * 3)}
    owner.flush(held)
    proxy = world.proxy()
    db = world.database(proxy.through(world.dsn))
    db.call(ask)
    proxy.set(Mode.PASS, delay_s=0.02)  # before each of at least 45 chunks
    timeout_s = 0.6
    found = db.call(
        lambda c: {path for path, _, _ in files.stream_files(c, db, View(session_id="default"))}, timeout_s=timeout_s
    )
    assert found == held.keys()


def test_deadline_is_its_own_calls(world: World) -> None:
    """A deadline ends its own call and no later one, also where that has the same socket."""
    db = world.database()
    db.call(ask, timeout_s=0.1)
    assert db.call(lambda c: c.execute("SELECT pg_sleep(0.3), 2").fetchone()) == ("", 2)
    for _ in range(5):
        with pytest.raises(UnreachableError):
            db.call(lambda c: c.execute("SELECT pg_sleep(3600)"), timeout_s=0.02)
        assert db.call(lambda c: c.execute("SELECT pg_sleep(0.05), 3").fetchone()) == ("", 3)


def test_abandoned(world: World) -> None:
    """A call that ends in the middle of an answer leaves nothing of it to the next one."""
    db = world.database()

    def stop(connection: Connection) -> None:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE left_over ()")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        db.call(stop)
    assert db.call(lambda c: c.execute("SELECT to_regclass('left_over')").fetchone()) == (None,)


def test_close_in_silence(world: World) -> None:
    """Giving up a connection that stopped answering waits for nothing."""
    proxy = world.proxy()
    db = world.database(proxy.through(world.dsn))
    db.call(ask)
    proxy.set(Mode.BLACKHOLE)
    in_thread(db.close).result(WAIT_S)
    proxy.set(Mode.PASS)


# Retries


def test_budget(nobody: str) -> None:
    """Tries end with their budget; each one that is repeated was told, with what is left."""
    attempts: list[Attempt] = []
    budget_s = 0.5
    with pytest.raises(UnreachableError) as error:
        Database(nobody, "authsync").retrying(ask, Trying(budget_s=budget_s, on_retry=attempts.append))
    assert error.value.exit_code == 69
    assert attempts
    assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
    assert all(attempt.elapsed_s <= budget_s for attempt in attempts)
    assert all(isinstance(attempt.error, UnreachableError) for attempt in attempts)
    left = [attempt.remaining_s for attempt in attempts]
    assert left == sorted(left, reverse=True)


def test_no_budget(nobody: str) -> None:
    """Without a budget there is one try."""
    attempts: list[Attempt] = []
    with pytest.raises(UnreachableError):
        Database(nobody, "authsync").retrying(ask, Trying(budget_s=0.0, on_retry=attempts.append))
    assert attempts == []


def test_comes_back(world: World) -> None:
    """Tries go on until the database is there."""
    proxy = world.proxy()
    proxy.set(Mode.REFUSE)
    attempts: list[Attempt] = []

    def told(attempt: Attempt) -> None:
        attempts.append(attempt)
        if attempt.number == 3:
            proxy.set(Mode.PASS)

    db = world.database(proxy.through(world.dsn))
    assert db.retrying(ask, Trying(budget_s=LONG_S, on_retry=told)) == (1,)
    assert len(attempts) == 3


def test_restarted_server(world: World) -> None:
    """A connection that the server closed behind our back is made anew."""
    db = world.database()
    db.call(ask)
    world.stored.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'authsync' AND datname = current_database()"
    )
    until(lambda: not world.stored.connections(), "the server ended it")
    assert db.retrying(ask, Trying(budget_s=LONG_S)) == (1,)


def test_not_retried(world: World) -> None:
    """What another try would not mend is told at once: rights, a wrong password, a database that does not exist."""
    attempts: list[Attempt] = []
    trying = Trying(budget_s=LONG_S, on_retry=attempts.append)
    for dsn, code in (
        (make_conninfo(world.dsn, user="nobody at all", password="x"), 77),
        (make_conninfo(world.dsn, dbname="no such database"), 78),
    ):
        with pytest.raises(AuthsyncError) as error:
            world.database(dsn).retrying(ask, trying)
        assert error.value.exit_code == code
        assert error.value.hint
    with pytest.raises(AuthsyncError) as error:
        world.database().retrying(lambda c: c.execute("SELECT nothing"), trying)
    assert error.value.exit_code == 70
    assert attempts == []


def test_wrong_password(world: World) -> None:
    """A wrong password is 77, and is in no message."""
    world.stored.execute("DROP ROLE IF EXISTS bot_of_test; CREATE ROLE bot_of_test LOGIN PASSWORD 'right'")
    dsn = make_conninfo(world.dsn, user="bot_of_test", password="wrong-and-secret")
    with pytest.raises(RightsError) as error:
        world.database(dsn).retrying(ask, Trying(budget_s=LONG_S))
    assert "secret" not in f"{error.value!r} {error.value.message} {error.value.hint}"
    world.stored.execute("DROP ROLE bot_of_test")


@pytest.mark.parametrize("told", ["cancel", "cancel and hurry", "hurry and cancel"])
def test_cancelled(nobody: str, told: str) -> None:
    """Told to give up, tries end with the last error, in the middle of a pause too; what comes later has one try."""
    patience, pausing = Patience(), threading.Event()
    db = Database(nobody, "authsync")
    trying = Trying(budget_s=LONG_S, patience=patience, on_retry=lambda _attempt: pausing.set())
    trial = in_thread(lambda: db.retrying(ask, trying))
    assert pausing.wait(WAIT_S)
    for order in told.split(" and "):
        getattr(patience, order)()
    with pytest.raises(UnreachableError):
        trial.result(WAIT_S)
    pausing.clear()
    with pytest.raises(UnreachableError):
        db.retrying(ask, trying)
    assert not pausing.is_set()


def test_hurried() -> None:
    """Told to hurry, a pause ends at once, and later ones are short; tries go on."""
    patience = Patience()
    pause = in_thread(lambda: patience.pause(LONG_S))
    patience.hurry()
    pause.result(WAIT_S)
    patience.pause(LONG_S)
    assert not patience.cancelled


# A whole start and flush


def test_cut_at_a_start(world: World) -> None:
    """A start that is cut off in the middle of its restore makes the folder whole when the database is back."""
    owner = world.owner()
    held = {f"{n:05}.bin": os.urandom(2000) for n in range(files.STREAM_ROWS * 4)}
    owner.flush(held)
    owner.release()
    proxy = world.proxy()
    started = world.begin(dsn=proxy.through(world.dsn))
    started.acquire()
    proxy.set(Mode.PASS, delay_s=0.01)  # before each of at least 60 chunks
    opening = in_thread(started.open)
    until(lambda: any(started.root.glob("*.bin")), "files arrive")
    proxy.reset()
    proxy.set(Mode.PASS)
    line = opening.result(WAIT_S)
    assert len(line.manifest) == len(held)
    assert {path.name: path.read_bytes() for path in started.root.glob("*.bin")} == held
    write(started.root, {"00000.bin": b"1"})
    assert started.flush("00000.bin").files == 1
