"""Database trouble while a bot runs: the bot is never disturbed, and nothing is lost or done twice."""

from __future__ import annotations

import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.bots import IDLE, contents, on_stop, session, write
from tests.support.postgres import TestServer
from tests.support.proxy import FaultyProxy, Mode
from tests.support.run import until
from tests.support.stored import Stored, digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.conftest import Starter

LINE_EVERY_S = 10.0  # a database that is away is worth one line in so many seconds
GRACE_S = 3.0
SLOW_MACHINE_S = 2.5  # what a busy machine may need on top of a budget


@pytest.fixture(scope="module")
def server() -> Iterator[TestServer]:
    """A server of this file's own, to be stopped; what it has committed survives that, as anywhere."""
    with TestServer("synchronous_commit=on") as running:
        yield running


@pytest.fixture
def proxy(server: TestServer) -> Iterator[FaultyProxy]:
    """A way to the server that can be cut."""
    with FaultyProxy(("127.0.0.1", server.port)) as running:
        yield running


def test_busy_client(start: Starter, stored: Stored, server: TestServer, folder: Path, baileys: Path) -> None:
    """A real client goes on at its rate while the database is stopped and started again, and all of it is stored."""
    workload = ["node", str(baileys / "workload.mjs"), "--rate", "20", "--prekeys", "200", "--progress", "100"]
    run = start("run", "--", *workload, "--seconds", "60", "pair", "chat")
    run.wait_said("progress", count=5)
    server.stop(immediate=True)
    away = run.wait_logged("database_away")
    before = run.said("progress")
    during = run.wait_said("progress", count=len(before) + 30)
    assert during["done"] > before[-1]["done"]
    server.start()
    run.wait_logged("database_back")
    done = len(run.logged("flush_done"))
    run.wait_logged("flush_done", count=done + 3)
    assert run.stop() == 0
    final = run.wait_said("final")
    assert (final["exit"], final["counts"]["op_errors"], final["contacts_failed"]) == ("SIGTERM", 0, 0)
    assert digest_of(stored.files()) == digest_of(contents(folder)) == final["state_sha256"]
    assert not run.logged("store_put_back")
    assert away["level"] == "warning"
    told_at = [line["read_at"] for line in run.logged("database_away")]
    assert all(later - earlier > LINE_EVERY_S - 1 for earlier, later in pairwise(told_at))


def test_away_at_start(start: Starter, server: TestServer) -> None:
    """A start waits for a database that comes later, and does not start the bot before."""
    server.stop(immediate=True)
    run = start("run", "--", *IDLE)
    run.wait_logged("database_waited_for")
    assert not run.logged("child_started")
    server.start()
    run.wait_said("up")
    assert run.stop() == 0


@pytest.mark.parametrize("silent", [False, True], ids=["stopped", "silent"])
def test_stopped_while_away(  # noqa: PLR0917 - fixtures are not positions
    start: Starter, stored: Stored, server: TestServer, proxy: FaultyProxy, dsn: str, folder: Path, *, silent: bool
) -> None:
    """SIGTERM while the database is away: 74 within the grace, and the next start there stores what was left."""
    run = start.idle("--grace", f"{GRACE_S}s", "--stop-timeout", "1s", url=proxy.through(dsn))
    write(folder, session())
    until(lambda: stored.files() == session(), "the first files are stored")
    if silent:
        proxy.set(Mode.BLACKHOLE)
    else:
        server.stop(immediate=True)
    write(folder, {"pre-key-99.json": b"{}"})
    if not silent:
        run.wait_logged("database_away")
    asked_at = time.monotonic()
    assert run.stop() == 74
    took_s = time.monotonic() - asked_at
    assert run.wait_logged("child_ended")["code"] == 0
    server.start()
    proxy.reset()  # what the proxy still holds must not arrive now
    proxy.set(Mode.PASS)
    assert stored.files() == session()
    start.idle()
    assert stored.files() == contents(folder) == {**session(), "pre-key-99.json": b"{}"}
    assert run.wait_logged("stopped")["unflushed"] > 0
    assert [line.split(":")[0] for line in run.stderr.splitlines()[-2:]] == ["Error", "Try"]
    assert took_s < GRACE_S + SLOW_MACHINE_S


def test_answer_lost(start: Starter, stored: Stored, proxy: FaultyProxy, dsn: str, folder: Path) -> None:
    """A commit whose answer is lost is not done twice: one revision for each change, and the content is right."""
    run = start.idle(url=proxy.through(dsn))
    expected: dict[str, bytes] = {}
    for number in range(1, 7):
        expected[f"pre-key-{number}.json"] = b"%d" % number
        lost = number % 2
        if lost:
            proxy.set(Mode.HOLD_DOWN)
        (folder / "new.tmp").write_bytes(b"%d" % number)
        (folder / "new.tmp").rename(folder / f"pre-key-{number}.json")
        until(lambda: stored.files() == expected, "the change is committed")
        if lost:
            proxy.wait_held()
            proxy.reset()
            proxy.set(Mode.PASS)
        run.wait_logged("flush_done", revision=number)
    assert run.stop() == 0
    assert (stored.revision, stored.files()) == (6, expected)
    assert [line["revision"] for line in run.logged("flush_done")] == [1, 2, 3, 4, 5, 6]
    assert not run.logged("fence_lost")


def test_answers_cut(start: Starter, stored: Stored, proxy: FaultyProxy, dsn: str, folder: Path) -> None:
    """Whatever answers are cut off, a lease's renewal or a commit, each change makes one revision."""
    run = start.idle(url=proxy.through(dsn))
    for number in range(1, 6):
        proxy.set(Mode.CUT_DOWN)
        (folder / "new.tmp").write_bytes(b"%d" % number)
        (folder / "new.tmp").rename(folder / "pre-key-1.json")
        proxy.wait_cut()
        run.wait_logged("flush_done", revision=number)
        assert stored.file("pre-key-1.json") == b"%d" % number
    assert run.stop() == 0
    assert stored.revision == 5


def test_multi_host(start: Starter, stored: Stored, server: TestServer, dsn: str, folder: Path) -> None:
    """A URL with several hosts finds the one that answers."""
    name = conninfo_to_dict(dsn)["dbname"]
    url = f"postgresql://postgres@127.0.0.1:1,127.0.0.1:{server.port}/{name}?target_session_attrs=read-write"
    run = start.idle(url=url)
    write(folder, session())
    assert run.stop() == 0
    assert stored.files() == session()


def test_last_words(start: Starter, stored: Stored, proxy: FaultyProxy, dsn: str, folder: Path) -> None:
    """What the bot writes last is stored even if a flush, a full scan too, was still on its way when it ended."""
    options = ["--debounce", "1m", "--max-delay", "1m"]  # flushes when it is told to
    bot = on_stop("rm auth_info/2.json; echo 3 >auth_info/3.json")
    run = start("run", *options, "--", *bot, url=proxy.through(dsn))
    run.wait_said("up")
    write(folder, {"1.json": b"1"})
    run.signal(signal.SIGUSR1)
    run.wait_logged("flush_done", revision=1)
    files = {f"{number}.json": b"%d" % number for number in (1, 2, *range(10, 20))}
    write(folder, files)
    proxy.set(Mode.HOLD_DOWN)
    run.signal(signal.SIGUSR1)
    until(lambda: stored.files().keys() > {"1.json"}, "the flush is committed, and its answer is on the way")
    proxy.wait_held()
    run.signal(signal.SIGTERM)
    run.wait_logged("child_ended")
    proxy.set(Mode.PASS)
    assert run.wait() == 0
    del files["2.json"]
    assert stored.files() == {**files, "3.json": b"3\n"}
