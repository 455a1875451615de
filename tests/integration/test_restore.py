"""A restore: all or nothing of a verified set, below the folder and nowhere else, and never a write to the database."""

from __future__ import annotations

import os
import tracemalloc
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from authsync.core.manifest import content_entry
from authsync.core.reconcile import SessionState
from authsync.errors import DamagedError, FolderError
from authsync.marker import Marker
from authsync.oneshot.restore import Restore
from authsync.reconcile import write_restoring
from authsync.restore import restore
from authsync.store import files
from authsync.store.files import View
from tests.integration.world import Started, World
from tests.support.bots import contents, creds, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import TestServer

LINE = {
    "creds.json": creds("a"),
    "session-1.json": b'{"s":1}',
    "shop/user_17/creds.json": creds("b"),
    "shop/user_17/lid.bin": b"\0\xff",
    "empty": b"",
}
LOCAL = {"creds.json": creds("a"), "session-1.json": b"other", "of before.json": b"1", "shop/x": b"2"}
"""What a filled folder holds: a file that is stored so, one that is not, and two that are not stored at all."""


@pytest.fixture(params=["empty", "filled"])
def root(request: pytest.FixtureRequest, world: World) -> Path:
    """A folder to restore into: an empty one is written directly, one with files through the stage."""
    folder = world.home / "auth_info"
    folder.mkdir()
    if request.param == "filled":
        write(folder, LOCAL)
    return folder


def store(world: World, held: dict[str, bytes] | None = None) -> None:
    """Store a line that nobody owns."""
    owner = world.owner()
    owner.flush(held or LINE, state=SessionState.LIVE)
    owner.release()


def tree(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    """Everything below a folder, whatever it is: its mode, and its content or where it leads."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            what: bytes | str = f"leads to {path.readlink()}"
        else:
            what = path.read_bytes() if path.is_file() else "is no file"
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, what)
    return found


def test_exact(world: World, root: Path) -> None:
    """The folder becomes what is stored: what is missing comes, what differs is replaced, what is not stored goes."""
    store(world)
    started = world.start()
    assert contents(root) == LINE
    told = dict(started.told)["restore_done"]
    assert (told["files"], told["bytes"]) == (len(LINE), sum(map(len, LINE.values())))
    assert started.line.manifest.digest == bytes(world.stored.session["manifest_digest"])
    assert set(started.line.identities) == {"", "shop/user_17"}
    assert not (root / ".authsync-stage").exists()


@pytest.fixture
def umask() -> Iterator[None]:
    """A process that hides nothing by itself."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_modes(world: World, root: Path) -> None:
    """Everything that a restore makes is for its user alone: files 0600, folders 0700, the marker too."""
    for path in list(LOCAL):
        (root / path).unlink(missing_ok=True)
    if (root / "shop").exists():
        (root / "shop").rmdir()
        write(root, {"of before.json": b"1"})
    store(world)
    world.start()
    modes = {name: mode & 0o7777 for name, (mode, _) in tree(root).items()}
    folders = {"shop", "shop/user_17"}
    assert modes == {**dict.fromkeys(folders, 0o700), **dict.fromkeys([*LINE, ".authsync.json"], 0o600)}


def test_new_root(world: World) -> None:
    """A root that is missing is made, for its user alone."""
    store(world)
    started = world.start("new/auth_info")
    assert contents(started.root) == LINE
    assert started.root.stat().st_mode & 0o777 == 0o700


def test_twins(world: World, root: Path) -> None:
    """Stray temporary files and backups go, at any depth, also beside a file that stays."""
    write(root, {"creds.json.bak": b"{}", "shop/user_17/creds.json.tmp": b"{}", "gone/x.tmp": b""})
    store(world)
    world.start()
    assert contents(root) == LINE
    assert not (root / "gone").exists()


def test_folder_for_a_file(world: World, root: Path) -> None:
    """A folder in a file's place goes, and a file in a folder's."""
    write(root, {"session-1.json/inner": b"1"}) if not (root / "session-1.json").exists() else None
    if not (root / "shop").exists():
        write(root, {"shop": b"a file"})
    store(world)
    world.start()
    assert contents(root) == LINE


def test_ignored_files_stay(world: World, root: Path) -> None:
    """A restore leaves what is no part of a session alone: our own files, and what is no regular file."""
    os.mkfifo(root / "pipe")
    write(root, {".authsync-note": b"1"})
    store(world)
    world.start()
    assert (root / "pipe").is_fifo()
    assert (root / ".authsync-note").exists()


# Damage


def _flip(world: World) -> None:
    """A byte of a file's content changed."""
    world.stored.execute("UPDATE {s}.files SET content = set_byte(content, 2, 90) WHERE path = 'session-1.json'")


def _flip_digest(world: World) -> None:
    """A byte of a file's digest changed."""
    world.stored.execute("UPDATE {s}.files SET sha256 = set_byte(sha256, 2, 90) WHERE path = 'session-1.json'")


def _rewrite(world: World) -> None:
    """A file's content was changed together with its digest, but not the set's."""
    world.stored.execute("UPDATE {s}.files SET content = 'x', sha256 = sha256('x'), size = 1 WHERE path = 'empty'")


def _shorten(world: World) -> None:
    """A file lost its end."""
    world.stored.execute("UPDATE {s}.files SET content = substr(content, 1, 3) WHERE path = 'session-1.json'")


def _lose(world: World) -> None:
    """A row is missing."""
    world.stored.execute("DELETE FROM {s}.files WHERE path = 'session-1.json'")


def _rename(world: World) -> None:
    """A file has another name."""
    world.stored.execute("UPDATE {s}.files SET path = 'session-2.json' WHERE path = 'session-1.json'")


def _add(world: World) -> None:
    """There is a row too many."""
    world.stored.execute(
        "INSERT INTO {s}.files SELECT session_id, branch, 'more', born, died, size, sha256, is_text, content"
        " FROM {s}.files WHERE path = 'empty'"
    )


def _double(world: World) -> None:
    """A file is live twice."""
    world.stored.execute(
        "INSERT INTO {s}.files SELECT session_id, branch, path, born + 1, died, size, sha256, is_text, content"
        " FROM {s}.files WHERE path = 'empty'"
    )


def _count(world: World) -> None:
    """The number of files in the session's row is wrong."""
    world.stored.execute("UPDATE {s}.sessions SET file_count = file_count + 1")


def _digest(world: World) -> None:
    """The digest of the set in the session's row is wrong."""
    world.stored.execute("UPDATE {s}.sessions SET manifest_digest = set_byte(manifest_digest, 0, 1)")


@pytest.mark.parametrize(
    "damage", [_flip, _flip_digest, _rewrite, _shorten, _lose, _rename, _add, _double, _count, _digest]
)
def test_damage(world: World, root: Path, damage: object) -> None:
    """What is stored and not whole is 65: no bot starts on the folder, and nothing is stored of it."""
    store(world)
    assert callable(damage)
    damage(world)
    query = "SELECT xmin::text, * FROM {s}.files WHERE branch = 0 ORDER BY path, born"
    before, held = world.stored.rows(query), contents(root)
    started = world.begin()
    started.acquire()
    with pytest.raises(DamagedError) as error:
        started.open()
    assert error.value.exit_code == 65
    assert_unused(started, held)
    assert world.stored.rows(query) == before
    assert world.stored.copies() == ([held] if held else [])


def assert_unused(started: Started, held: dict[str, bytes]) -> None:
    """Either nothing of the folder was changed, or its marker says ``restoring``."""
    mark = started.opening.marker.read()
    restoring = mark is not None and mark.restoring
    assert restoring or contents(started.root) == held


@pytest.mark.parametrize("path", ["session-1.json", "creds.json"])
def test_damage_in_a_copy_on_write(world: World, root: Path, path: str) -> None:
    """A restore of the line is not misled by the rows of snapshots, and finds damage in its own."""
    owner = world.owner()
    owner.flush({**LINE, path: b"old"}, state=SessionState.LIVE)
    owner.kept()
    owner.flush({path: LINE[path]})
    owner.release()
    world.stored.execute("UPDATE {s}.files SET content = 'x' WHERE died IS NOT NULL")
    world.start().end()
    assert contents(root) == LINE
    (root / path).write_bytes(b"other")
    Marker(root)._path.unlink()
    world.stored.execute("UPDATE {s}.files SET content = 'x' WHERE died IS NULL AND path = %s", path)
    with pytest.raises(DamagedError):
        world.start()


UNSAFE = {
    "parent": "../x",
    "deep parent": "a/../../x",
    "inner parent": "a/../b",
    "only parent": "..",
    "absolute": "/abs",
    "dot": "./x",
    "double": "a//b",
    "end": "a/",
    "nothing": "",
    "marker": ".authsync.json",
    "stage": ".authsync-stage/creds.json",
    "socket": "a/.authsync.sock",
    "long": "x" * 256,
}


@pytest.mark.parametrize("path", UNSAFE.values(), ids=UNSAFE)
def test_unsafe_path(world: World, root: Path, path: str) -> None:
    """A stored path that would leave the folder, or be one of our own, is 65; nothing is written outside."""
    outside = world.home / "x"
    write(world.home, {"x": b"mine", "b": b"mine"})
    store(world, {**LINE, path: b"evil"})
    beside, held = {**tree(world.home)}, contents(root)
    started = world.begin()
    started.acquire()
    with pytest.raises(DamagedError) as error:
        started.open()
    assert error.value.exit_code == 65
    assert_unused(started, held)
    after = tree(world.home)
    assert {name: after[name] for name in after if not name.startswith("auth_info")} == {
        name: beside[name] for name in beside if not name.startswith("auth_info")
    }
    assert outside.read_bytes() == b"mine"
    assert b"evil" not in contents(root).values()
    mark = (root / ".authsync.json").read_bytes()
    assert b"evil" not in mark


@pytest.mark.parametrize("local", [{}, {"a": b"1"}, {"a/b": b"2"}, {"other": b"x"}], ids=["empty", "a", "a/b", "other"])
def test_file_and_folder(world: World, local: dict[str, bytes]) -> None:
    """Two stored paths of which one is the other's folder cannot both be restored: 65, whatever lies there."""
    write(world.home / "auth_info", local)
    store(world, {"creds.json": b"{}", "a": b"1", "a/b": b"2"})
    started = world.begin()
    started.acquire()
    with pytest.raises(DamagedError):
        started.open()
    assert_unused(started, local)


# Symbolic links


@pytest.fixture
def outside(world: World) -> Path:
    """A folder that is none of our business."""
    folder = world.home / "outside"
    write(folder, dict.fromkeys(["creds.json", "session-1.json", "user_17", "deep/lid.bin"], b"theirs"))
    return folder


LINKS = {
    "a file": ("session-1.json", "session-1.json"),
    "a file to nowhere": ("session-1.json", "nowhere"),
    "the credentials": ("creds.json", "creds.json"),
    "a file to a folder": ("session-1.json", "deep"),
    "a folder": ("shop", ""),
    "a folder to a file": ("shop", "creds.json"),
    "a folder to nowhere": ("shop", "nowhere"),
}


@pytest.mark.parametrize(("name", "target"), LINKS.values(), ids=LINKS)
def test_link(world: World, root: Path, outside: Path, name: str, target: str) -> None:
    """A link in the place of a stored file or folder is replaced, not followed: what it leads to stays as it is."""
    for path in LOCAL:
        if path.partition("/")[0] == name and (root / path).exists():
            (root / path).unlink()
            if path != name:
                (root / name).rmdir()
    (root / name).symlink_to(outside / target if target else outside)
    before = tree(outside)
    store(world)
    world.start()
    assert tree(outside) == before
    assert contents(root) == LINE
    assert not (root / name).is_symlink()


def test_link_to_the_stage(world: World, outside: Path) -> None:
    """A link where our stage belongs is removed, not written through."""
    root = world.home / "auth_info"
    write(root, LOCAL)
    (root / ".authsync-stage").symlink_to(outside)
    before = tree(outside)
    store(world)
    world.start()
    assert tree(outside) == before
    assert contents(root) == LINE


def test_link_as_the_marker(world: World, outside: Path) -> None:
    """A link in the marker's place is refused: nothing is written through it."""
    root = world.home / "auth_info"
    root.mkdir()
    (root / ".authsync.json").symlink_to(outside / "creds.json")
    store(world)
    with pytest.raises(FolderError):
        world.start()
    assert (outside / "creds.json").read_bytes() == b"theirs"


def test_link_as_the_root(world: World) -> None:
    """The root itself may be a link, to a volume say."""
    (world.home / "volume").mkdir()
    (world.home / "auth_info").symlink_to("volume")
    store(world)
    world.start()
    assert contents(world.home / "volume") == LINE


def test_links_elsewhere(world: World, root: Path, outside: Path) -> None:
    """Links in nobody's way stay, and what lies behind them is neither removed nor taken for the folder's."""
    (root / "link").symlink_to(outside)
    (root / "link.tmp").symlink_to(outside / "creds.json")
    before = tree(outside)
    store(world)
    started = world.start()
    assert tree(outside) == before
    assert set(world.stored.files()) == set(LINE)
    assert not started.flush().changed
    assert tree(outside) == before


# Half-way


def test_interrupted(world: World, root: Path) -> None:
    """A restore that ends half-way leaves ``restoring``: the next one makes the folder whole, with no copy."""
    held = {**LINE, **{f"{n}.json": b"%d" % n for n in range(files.STREAM_ROWS * 2)}}
    store(world, held)
    started = world.begin()
    started.acquire()
    opening, seen = started.opening, []

    def interrupt(count: int, _size: int) -> None:
        seen.append(count)
        raise KeyboardInterrupt

    def attempt(connection: psycopg.Connection[tuple[object, ...]]) -> None:
        with files.one_moment(connection):
            found = files.read_head(connection, opening.db, "default")
            assert found is not None
            restore(
                connection,
                opening.db,
                opening.directory,
                View(session_id="default"),
                found[1],
                local=opening.directory.scan(),
                before_change=lambda: write_restoring(opening),
                progress=interrupt,
            )

    local = contents(root)
    with pytest.raises(KeyboardInterrupt):
        opening.db.call(attempt)
    assert seen == [files.STREAM_ROWS]
    assert_unused(started, local)
    started.die()
    world.expire()
    world.start()
    assert contents(root) == held
    assert not (root / ".authsync-stage").exists()
    assert world.stored.copies() == ([local] if local else [])


def test_one_moment(world: World) -> None:
    """A restore reads the row and the files of one moment, whatever is flushed meanwhile."""
    owner = world.owner()
    held = {f"{n:05}.json": b"old" for n in range(files.STREAM_ROWS * 4)}
    owner.flush(held)
    reader = world.begin()
    db = reader.opening.db
    flushed: list[int] = []

    def flush_once(_count: int, _size: int) -> None:
        if not flushed:
            flushed.append(owner.flush(dict.fromkeys(held, b"new")))

    Restore(reader.opening.settings, db, command="restore", tell=lambda *_, **__: None).restore_to(
        world.home / "to", snapshot=None, at=None, only=None, progress=flush_once
    )
    assert flushed == [2]
    assert contents(world.home / "to") == held


# The database stays as it is


@pytest.fixture
def reader(server: TestServer) -> Iterator[str]:
    """A user who may only read. Ask for it before the database in which it gets that right."""
    name = server.create_role("secret")
    yield name
    server.start()
    server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_never_writes(reader: str, world: World) -> None:
    """``restore`` needs no right but to read, and writes nothing: neither for the live line nor for a snapshot."""
    owner = world.owner()
    owner.flush({**LINE, "session-1.json": b"old"}, state=SessionState.LIVE)
    number = owner.kept()
    owner.flush({"session-1.json": LINE["session-1.json"]})
    world.stored.execute(
        f"GRANT USAGE ON SCHEMA authsync TO {reader}; GRANT SELECT ON ALL TABLES IN SCHEMA authsync TO {reader}"
    )
    before = world.lines("sessions", "files", "snapshots", "owners", "migrations")
    dsn = make_conninfo(world.dsn, user=reader, password="secret")

    def restorer(folder: str) -> Restore:
        return Restore(
            world.settings(folder, dsn=dsn), world.database(dsn), command="restore", tell=lambda *_, **__: None
        )

    restored, aside = restorer("live").restore(force=False, progress=lambda *_: None)
    assert restored is not None
    assert aside is None
    assert contents(world.home / "live") == LINE
    write(world.home / "filled", LOCAL)
    _, aside = restorer("filled").restore(force=True, progress=lambda *_: None)
    assert contents(world.home / "filled") == LINE
    assert aside is not None
    assert contents(aside) == LOCAL
    restorer("x").restore_to(world.home / "old", snapshot=number, at=None, only=None, progress=lambda *_: None)
    assert contents(world.home / "old") == {**LINE, "session-1.json": b"old"}
    restorer("x").plan_restore()
    assert world.lines("sessions", "files", "snapshots", "owners", "migrations") == before


@pytest.mark.parametrize("target", ["empty", "filled"])
def test_memory(world: World, target: str) -> None:
    """5,000 files come back without being held in memory: the peak is far below their size."""
    held = {f"{n % 50}/{n:05}.bin": (b"%05d" % n) * 1000 for n in range(5000)}
    total = sum(map(len, held.values()))
    store(world, held)
    digests = {path: content_entry(content) for path, content in held.items()}
    held.clear()
    root = world.home / "auth_info"
    if target == "filled":
        write(root, {"0/00000.bin": b"other", "x": b"1"})
    started = world.begin()
    started.acquire()
    tracemalloc.start()
    try:
        line = started.open()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert dict(line.manifest.items()) == digests
    assert dict(started.opening.directory.scan().manifest.items()) == digests
    assert peak < total / 3, f"{peak / total:.2f} of the total"
