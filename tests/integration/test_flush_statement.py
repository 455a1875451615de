"""One flush is one statement: atomic, fenced, idempotent, in place in a generation and copy-on-write between two."""

from __future__ import annotations

import contextlib
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from authsync.core.manifest import Manifest, content_entry
from authsync.core.ownership import NoRow
from authsync.core.reconcile import SessionState
from authsync.errors import UnreachableError
from authsync.store import files, leases, sessions
from tests.integration.world import TTL_S, WAIT_S, Owner, World, a_start, in_thread, until
from tests.support.proxy import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.postgres import TestServer

LINE = ("sessions", "files", "snapshots")


def test_one_revision(world: World) -> None:
    """One committed flush is one more revision; the row says who wrote it, what the line is now, and when."""
    owner = world.owner()
    push = owner.order({"creds.json": b"{}", "a/b.json": b"[1]"})
    before = world.stored.rows("SELECT clock_timestamp() AS now")[0]["now"]
    assert owner.send(push) == 1

    row = world.stored.session
    manifest = Manifest({"creds.json": content_entry(b"{}"), "a/b.json": content_entry(b"[1]")})
    assert row["revision"] == 1
    assert row["generation"] == 1
    assert row["state"] == "live"
    assert row["updated_at"] > before
    assert str(row["last_writer"]) == owner.fence.owner
    assert str(row["last_push_id"]) == push.push_id
    assert (bytes(row["manifest_digest"]), row["file_count"], row["total_bytes"]) == (manifest.digest, 2, 5)
    assert world.stored.files() == {"creds.json": b"{}", "a/b.json": b"[1]"}


def test_digest_is_incremental(world: World) -> None:
    """The stored set digest after many changes is that of the files that are there."""
    owner = world.owner()
    owner.flush({f"{n}.json": b"%d" % n for n in range(20)})
    owner.flush({"3.json": b"new", "20.json": b""}, ["7.json", "8.json"])
    owner.flush({}, ["3.json"])

    stored = world.stored.files()
    manifest = Manifest({path: content_entry(content) for path, content in stored.items()})
    row = world.stored.session
    assert len(stored) == 18
    assert bytes(row["manifest_digest"]) == manifest.digest
    assert (row["file_count"], row["total_bytes"]) == (18, sum(map(len, stored.values())))


def test_in_place(world: World) -> None:
    """Within one generation a changed file is updated in place: a busy bot keeps no history of every step."""
    owner = world.owner()
    owner.flush({"session-1.json": b"0", "creds.json": b"{}"})
    for step in range(1, 21):
        owner.flush({"session-1.json": b"%d" % step})
        assert world.count("{s}.files") == 2
    assert world.history("session-1.json") == [(1, None, b"20")]


def test_copy_on_write(world: World) -> None:
    """The first change after a snapshot closes the old row and inserts a new one, the next ones are in place again."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}", "session-1.json": b"old", "same.json": b"1"})
    number = owner.kept()
    assert world.stored.session["generation"] == 2
    owner.flush({"session-1.json": b"new"})
    owner.flush({"session-1.json": b"newer"})

    assert world.history("session-1.json") == [(1, 2, b"old"), (2, None, b"newer")]
    assert world.history("same.json") == [(1, None, b"1")]
    assert world.stored.snapshot_files(number) == {"creds.json": b"{}", "session-1.json": b"old", "same.json": b"1"}
    assert world.stored.files() == {"creds.json": b"{}", "session-1.json": b"newer", "same.json": b"1"}


def test_delete(world: World) -> None:
    """A file deleted in the generation that made it leaves no row; one that a snapshot sees is closed."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}", "short.json": b"1", "long.json": b"2"})
    owner.flush({}, ["short.json"])
    assert world.history("short.json") == []

    number = owner.kept()
    owner.flush({"late.json": b"3"}, ["long.json"])
    owner.flush({}, ["late.json"])
    assert world.history("long.json") == [(1, 2, b"2")]
    assert world.history("late.json") == []
    assert world.stored.files() == {"creds.json": b"{}"}
    assert world.stored.snapshot_files(number) == {"creds.json": b"{}", "long.json": b"2"}


def test_delete_and_recreate(world: World) -> None:
    """A file that is deleted and made again is live with its new content; each snapshot shows what it saw."""
    owner = world.owner()
    owner.flush({"a.json": b"1", "creds.json": b"{}"})
    owner.flush({}, ["a.json"])
    owner.flush({"a.json": b"2"})
    first = owner.kept()
    owner.flush({}, ["a.json"])
    owner.flush({"a.json": b"3"})
    owner.flush({"a.json": b"4"})
    owner.flush({}, ["a.json"])
    second = owner.kept()
    owner.flush({"a.json": b"5"})

    assert world.history("a.json") == [(1, 2, b"2"), (3, None, b"5")]
    assert world.stored.snapshot_files(first)["a.json"] == b"2"
    assert "a.json" not in world.stored.snapshot_files(second)
    assert world.stored.files()["a.json"] == b"5"


@pytest.mark.parametrize("seed", range(4))
def test_any_history(world: World, seed: int) -> None:
    """Whatever changes, deletions and snapshots follow one another: line and snapshots read back exactly."""
    dice = random.Random(seed)
    owner = world.owner()
    line: dict[str, bytes] = {}
    kept: dict[int, dict[str, bytes]] = {}
    for step in range(60):
        if dice.random() < 0.2 and owner.revision:
            kept[owner.kept()] = dict(line)
            continue
        names = dice.sample([f"{n}.json" for n in range(8)], dice.randint(1, 5))
        remove = [name for name in names if name in line and dice.random() < 0.4]
        write = {name: b"%d" % step for name in names if name not in remove}
        owner.flush(write, remove)
        line = {path: content for path, content in {**line, **write}.items() if path not in remove}

    assert world.stored.files() == line
    assert {number: world.stored.snapshot_files(number) for number in kept} == kept
    assert len(kept) > 3


def test_empty(world: World) -> None:
    """A flush may write without removing, remove without writing, and write an empty file."""
    owner = world.owner()
    owner.flush({"a": b"", "b": b"1"})
    owner.flush({}, ["b"])
    assert owner.flush({}) == 3
    assert world.stored.files() == {"a": b""}


def test_state(world: World) -> None:
    """A flush may change the session's state, and leaves it where it says nothing."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}"}, state=SessionState.LIVE)
    owner.flush({}, ["creds.json"], state=SessionState.CLEARED)
    owner.flush({"other": b"1"})
    assert world.stored.session["state"] == "cleared"


# No row


def test_own_commit(world: World) -> None:
    """A push that had committed is known again by its id when it is resent: no second revision, and nothing written."""
    owner = world.owner()
    push = owner.order({"creds.json": b"{}"})
    assert owner.send(push) == 1
    before = world.lines(*LINE)
    assert owner.send(push) is NoRow.OWN_COMMIT
    assert world.lines(*LINE) == before


def test_own_chunked_commit(world: World) -> None:
    """The same holds for a push of many chunks."""
    owner = world.owner()
    push = owner.order({f"{n}.json": b"%d" % n for n in range(files.CHUNK_ROWS + 1)})
    assert owner.send(push) == 1
    before = world.lines("files", "snapshots")
    assert owner.send(push) is NoRow.OWN_COMMIT
    assert world.lines("files", "snapshots") == before
    assert world.stored.revision == 1


def _taken(_world: World, owner: Owner) -> None:
    """Another owner took the session."""
    Owner(owner.world, owner.db, "default", "shop")


def _taken_and_released(world: World, owner: Owner) -> None:
    """Another owner took the session and gave it back."""
    _taken(world, owner)
    world.stored.execute("UPDATE {s}.sessions SET owner = NULL, expires_at = NULL")


def _token_rose(_world: World, owner: Owner) -> None:
    """The same owner acquired anew: the token that it had before is void."""
    owner.db.call(lambda c: leases.acquire(c, owner.db, "default", owner.start, ttl_s=TTL_S))


def _owner_changed(world: World, _owner: Owner) -> None:
    """Another owner with the same token, as after a row was deleted and made again."""
    world.stored.execute("UPDATE {s}.sessions SET owner = gen_random_uuid()")


def _deleted(world: World, owner: Owner) -> None:
    """The session was deleted by another process, which then gave it back."""
    other = Owner(owner.world, world.database(), "default", "shop")
    assert other.db.call(lambda c: sessions.delete(c, other.db, other.fence))
    other.release()


def _row_gone(world: World, _owner: Owner) -> None:
    """The database was put back to a time when the session was not."""
    world.stored.execute("DELETE FROM {s}.sessions")
    world.stored.execute("DELETE FROM {s}.files")


def _older(world: World, _owner: Owner) -> None:
    """The database was put back to an older revision of ours."""
    world.stored.execute("UPDATE {s}.sessions SET revision = revision - 1, last_push_id = gen_random_uuid()")


def _older_and_free(world: World, _owner: Owner) -> None:
    """The database was put back to a time when nobody held the session."""
    world.stored.execute("UPDATE {s}.sessions SET revision = 1, token = 0, owner = NULL, expires_at = NULL")


@pytest.mark.parametrize(
    ("happened", "cause"),
    [
        (_taken, NoRow.FENCED),
        (_taken_and_released, NoRow.FENCED),
        (_token_rose, NoRow.FENCED),
        (_owner_changed, NoRow.FENCED),
        (_deleted, NoRow.TOMBSTONE),
        (_row_gone, NoRow.PUT_BACK),
        (_older, NoRow.PUT_BACK),
        (_older_and_free, NoRow.PUT_BACK),
    ],
)
@pytest.mark.parametrize("count", [1, files.CHUNK_ROWS + 1], ids=["one chunk", "chunked"])
def test_no_row(world: World, happened: Callable[[World, Owner], None], cause: NoRow, count: int) -> None:
    """A flush that may not be written changes nothing at all, and says which of the causes it was."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}", "gone.json": b"1"})
    owner.flush({"creds.json": b'{"a":1}'})
    happened(world, owner)
    held = world.stored.session.get("expires_at")
    before = world.lines("files", "snapshots")

    push = owner.order({"creds.json": b"[]", **{f"{n}": b"x" for n in range(count)}}, ["gone.json"])
    assert owner.send(push) is cause
    assert world.lines("files", "snapshots") == before
    assert world.stored.session.get("last_push_id") != push.push_id
    if cause is not NoRow.PUT_BACK:  # there the lease is still ours
        assert world.stored.session.get("expires_at") == held


FENCED_ATTEMPTS: dict[str, Callable[[Owner], object]] = {
    "flush": lambda owner: owner.send(owner.order({"creds.json": b"[]"}, ["gone.json"])),
    "removal": lambda owner: owner.send(owner.order({}, ["gone.json"])),
    "chunked": lambda owner: owner.send(owner.order({f"{n}": b"" for n in range(files.CHUNK_ROWS * 2)}, ["gone.json"])),
    "snapshot": lambda owner: owner.snapshot("cleared"),
    "renewal": lambda owner: owner.db.call(lambda c: leases.renew(c, owner.db, owner.fence, ttl_s=3600)),
    "release": lambda owner: owner.db.call(lambda c: leases.release(c, owner.db, owner.fence, outcome="done")),
    "answer": lambda owner: owner.db.call(lambda c: leases.finish_order(c, owner.db, owner.fence, "1", {})),
    "deletion": lambda owner: owner.db.call(lambda c: sessions.delete(c, owner.db, owner.fence)),
}


@pytest.mark.parametrize("attempt", FENCED_ATTEMPTS)
def test_fenced(world: World, attempt: str) -> None:
    """Who lost the session changes nothing of it: no row, no generation, no snapshot, no lease, no order."""
    old = world.owner()
    old.flush({"creds.json": b"{}", "gone.json": b"1"})
    old.kept()
    old.flush({"creds.json": b'{"a":1}'})
    new = world.owner()
    order = leases.Order(id="1", kind="backup", note=None)
    assert new.db.call(lambda c: leases.give_order(c, new.db, "default", order))
    before = world.lines(*LINE)

    FENCED_ATTEMPTS[attempt](old)
    assert world.lines(*LINE) == before


# Large flushes


def _large(count: int, size_bytes: int) -> dict[str, bytes]:
    return {f"{n:05}.bin": b"%05d" % n + b"\0" * (size_bytes - 5) for n in range(count)}


SHAPES = [(files.CHUNK_ROWS * 2 + 100, 5), (9, 1 << 20)]
"""Over the rows of a chunk; over its bytes. The last file is part of the last chunk."""


by_shape = pytest.mark.parametrize(("count", "size_bytes"), SHAPES, ids=["rows", "bytes"])


@contextlib.contextmanager
def _locked(world: World, path: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """The row of a file is locked: who writes it waits in the middle of its flush."""
    with psycopg.connect(world.dsn) as connection:
        connection.execute("SELECT FROM authsync.files WHERE path = %s FOR UPDATE", [path])
        yield connection


@by_shape
def test_chunked(world: World, count: int, size_bytes: int) -> None:
    """A flush of more than a chunk is one revision, and exact."""
    owner = world.owner()
    old = _large(count, size_bytes)
    assert owner.flush(old) == 1
    number = owner.kept()
    new = {name: content[::-1] for name, content in old.items() if name != "00000.bin"}
    assert owner.flush(new, ["00000.bin"]) == 2
    assert world.stored.files() == new
    assert world.stored.snapshot_files(number) == old


@by_shape
def test_cut_in_the_middle(world: World, count: int, size_bytes: int) -> None:
    """A large flush that is cut off in its last chunk leaves nothing; resent, it is one revision."""
    proxy = world.proxy()
    owner = world.owner(dsn=proxy.through(world.dsn))
    old = _large(count, size_bytes)
    owner.flush(old)
    owner.kept()
    new = {name: content[::-1] for name, content in old.items() if name != "00000.bin"}
    push = owner.order(new, ["00000.bin"])
    before = world.lines(*LINE)
    with _locked(world, max(old)):
        flushing = in_thread(lambda: owner.send(push))
        world.wait_locked()
        assert world.lines(*LINE) == before
        proxy.reset()
        with pytest.raises(UnreachableError):
            flushing.result(WAIT_S)
    until(lambda: not world.stored.connections(), "the server noticed")
    assert world.lines(*LINE) == before

    assert owner.send(push) == 2
    assert world.stored.files() == new


def test_lease_of_a_large_flush(world: World) -> None:
    """The last chunk renews the lease from the moment at which it is sent: the transaction's own time is long past."""
    owner = world.owner()
    old = _large(files.CHUNK_ROWS + 1, 5)
    owner.flush(old)
    push = owner.order(dict.fromkeys(old, b"x"))
    with _locked(world, max(old)) as beside:
        flushing = in_thread(lambda: owner.send(push))
        world.wait_locked()
        row = beside.execute("SELECT clock_timestamp()").fetchone()
    assert flushing.result(WAIT_S) == 2
    assert row is not None
    assert world.stored.session["expires_at"] >= row[0] + timedelta(seconds=TTL_S)


def test_no_taking_during_a_flush(world: World) -> None:
    """A lease that ran out behind its owner's own large flush is not taken: the flush that held it renews it."""
    owner = world.owner()
    old = _large(files.CHUNK_ROWS + 1, 5)
    owner.flush(old)
    world.expire()
    push = owner.order(dict.fromkeys(old, b"x"))
    other = world.database()
    with _locked(world, max(old)):
        flushing = in_thread(lambda: owner.send(push))
        world.wait_locked()
        taking = in_thread(lambda: other.call(lambda c: leases.acquire(c, other, "default", a_start(), ttl_s=TTL_S)))
        world.wait_locked(2)
    assert flushing.result(WAIT_S) == 2
    assert taking.result(WAIT_S) is None
    assert str(world.stored.session["owner"]) == owner.fence.owner


def test_frozen_in_a_flush(server: TestServer, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that freezes in a large flush holds its locks no longer than the limit; nothing is left."""
    proxy = world.proxy()
    owner = world.owner(dsn=proxy.through(world.dsn))
    old = _large(files.CHUNK_ROWS * 2, 5)
    owner.flush(old)
    before = world.lines(*LINE)
    push = owner.order(dict.fromkeys([*old, "one more"], b"x"))
    monkeypatch.setattr(files, "IDLE_IN_TRANSACTION_MS", 1000)
    given_up = server.log().count("idle-in-transaction timeout")
    with _locked(world, "00000.bin"):  # of the first chunk: two more have to follow
        flushing = in_thread(lambda: owner.send(push))
        world.wait_locked()
        proxy.set(Mode.HOLD_DOWN)
    until(lambda: not world.stored.connections(), "the server gave the connection up")
    assert server.log().count("idle-in-transaction timeout") == given_up + 1
    assert world.lines(*LINE) == before
    proxy.set(Mode.PASS)
    with pytest.raises(UnreachableError):
        flushing.result(WAIT_S)
    assert world.owner().flush({"creds.json": b"{}"}) == 2


# Beside others


@pytest.mark.parametrize("count", [1, files.CHUNK_ROWS + 1], ids=["one chunk", "chunked"])
def test_beside_a_renewal(world: World, count: int) -> None:
    """A flush that waits for a renewal of its own lease to commit is written once, and leaves the renewal."""
    owner = world.owner()
    owner.flush({"0": b"old"})
    owner.kept()
    push = owner.order({f"{n}": b"new" for n in range(count)})
    with psycopg.connect(world.dsn) as beside:
        beside.execute("UPDATE authsync.sessions SET expires_at = '2999-01-01'")
        flushing = in_thread(lambda: owner.send(push))
        world.wait_locked()
    assert flushing.result(WAIT_S) == 2
    assert world.history("0") == [(1, 2, b"old"), (2, None, b"new")]
    assert world.stored.session["expires_at"].year == 2999


@pytest.mark.parametrize("count", [1, files.CHUNK_ROWS + 1], ids=["one chunk", "chunked"])
def test_beside_a_takeover(world: World, count: int) -> None:
    """A flush that waits for somebody who takes the session to commit finds itself fenced, and changes nothing."""
    owner = world.owner()
    owner.flush({"0": b"old", "gone": b"1"})
    push = owner.order({f"{n}": b"new" for n in range(count)}, ["gone"])
    with psycopg.connect(world.dsn) as beside:
        beside.execute("UPDATE authsync.sessions SET owner = gen_random_uuid(), token = token + 1")
        flushing = in_thread(lambda: owner.send(push))
        world.wait_locked()
    assert flushing.result(WAIT_S) is NoRow.FENCED
    assert world.stored.files() == {"0": b"old", "gone": b"1"}
    assert world.stored.revision == 1


# Text, and the compatible view

CONTENTS: dict[str, tuple[bytes, bool]] = {
    "empty": (b"", True),
    "json": (b'{"k":"v"}', True),
    "accents": ("ação ✅ 📱 \U0010ffff".encode(), True),
    "controls": (b"\x01\x7f\r\n\t", True),
    "escapes": (b"\\u0000 \\000 '\"", True),
    "nul": (b"a\0b", False),
    "only nul": (b"\0", False),
    "latin-1": (b"caf\xe9", False),
    "surrogate": (b"\xed\xa0\x80", False),
    "over-long": (b"\xc0\x80", False),
    "beyond Unicode": (b"\xf4\x90\x80\x80", False),
    "cut": ("é".encode()[:1], False),
    "random": (random.Random(1).randbytes(5000), False),
}


def test_is_text(world: World) -> None:
    """What is text is decided at write: valid UTF-8 without NUL. Content comes back byte for byte either way."""
    owner = world.owner()
    owner.flush({path: content for path, (content, _) in CONTENTS.items()})
    rows = world.stored.rows("SELECT path, is_text FROM {s}.files")
    assert {row["path"]: row["is_text"] for row in rows} == {path: text for path, (_, text) in CONTENTS.items()}
    assert world.stored.files() == {path: content for path, (content, _) in CONTENTS.items()}


def test_is_text_follows_content(world: World) -> None:
    """A file that becomes binary in place, or in a copy-on-write, is text no longer; and back."""
    owner = world.owner()
    for content, text in [(b"a", True), (b"\xff", False), (b"b", True), (b"\0", False)]:
        owner.flush({"a": content})
        assert [r["is_text"] for r in world.stored.rows("SELECT is_text FROM {s}.files WHERE died IS NULL")] == [text]
        owner.kept()


def test_view(world: World) -> None:
    """The view shows the text files of live plain sessions as the old table did, and never fails on the others."""
    owner = world.owner()
    owner.flush({path: content for path, (content, _) in CONTENTS.items()})
    owner.kept()
    owner.flush({"json": b'{"k":"new"}'}, ["empty"])
    world.owner("only binary").flush({"a": b"\xff"})
    world.owner("never written")
    sealed = world.owner("sealed")
    sealed.flush({"a": b"1"})
    world.stored.execute("UPDATE {s}.sessions SET key_id = 'k' WHERE session_id = 'sealed'")
    cleared = world.owner("cleared")
    cleared.flush({"a": b"1"}, state=SessionState.CLEARED)

    rows = {row["session_id"]: row for row in world.stored.rows("SELECT * FROM {s}.whatsapp_sessions")}
    assert rows.keys() == {"default", "only binary"}
    assert rows["only binary"]["session_data"] == {}
    texts = {path: content.decode() for path, (content, text) in CONTENTS.items() if text and path != "empty"}
    assert rows["default"]["session_data"] == {**texts, "json": '{"k":"new"}'}


def test_view_columns(world: World) -> None:
    """The view's columns are those of the table that it stands for."""
    columns = world.stored.rows(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = '{s}.whatsapp_sessions'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert [tuple(column.values()) for column in columns] == [
        ("id", "integer"),
        ("session_id", "character varying(100)"),
        ("session_data", "jsonb"),
        ("created_at", "timestamp without time zone"),
        ("updated_at", "timestamp without time zone"),
    ]
