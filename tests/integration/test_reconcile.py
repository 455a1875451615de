"""Section 5's table, row by row: a start on a real folder and a real database, and what is there when it is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from authsync.core.clearing import Child
from authsync.core.manifest import Manifest, content_entry
from authsync.core.reconcile import SessionState
from authsync.errors import ConfigError, DamagedError
from authsync.marker import Mark, Marker
from authsync.oneshot.restore import Restore
from authsync.store import sessions
from tests.integration.world import Owner, World, wait_for_moment
from tests.support.bots import contents, creds, write

Files = dict[str, bytes]

LINE: Files = {
    "creds.json": creds("a", counter=1),
    "pre-key-1.json": b'{"n":1}',
    "session-1.json": b'{"s":1}',
    "session-2.json": b'{"s":2}',
    "deep/er/lid.json": b"1",
}
"""What is stored, as revision 2."""
NEWER: Files = {**LINE, "creds.json": creds("a", counter=2), "session-3.json": b"3"}
"""What the same bot wrote later."""
OLDER: Files = {**LINE, "creds.json": creds("a", counter=0), "session-0.json": b"0"}
"""What was revision 1; one of its files is gone since."""
STRANGE: Files = {"creds.json": creds("z"), "pre-key-1.json": b'{"n":"z"}', "sub/x.json": b"2"}
"""A folder of another origin."""
BARE: Files = {path: content for path, content in NEWER.items() if path != "creds.json"}
HALF: Files = {"creds.json": LINE["creds.json"], "session-1.json": b"", "of before": b"x"}
"""What a restore that was killed left."""


def digest(files: Files) -> bytes:
    """The set digest of files."""
    return Manifest({path: content_entry(content) for path, content in files.items()}).digest


# What is stored


def nothing(_world: World) -> Owner | None:
    """No row."""
    return None


def untouched(world: World) -> Owner | None:
    """A row that somebody owned and never wrote."""
    world.owner().release()
    return None


def live(world: World) -> Owner | None:
    """OLDER as revision 1, LINE as revision 2."""
    owner = world.owner()
    owner.flush(OLDER, state=SessionState.LIVE)
    owner.flush({"creds.json": LINE["creds.json"]}, ["session-0.json"])
    owner.release()
    return owner


def cleared(world: World) -> Owner | None:
    """The bot logged out: revision 3 is empty."""
    live(world)
    owner = world.owner()
    owner.flush({}, list(LINE), state=SessionState.CLEARED)
    owner.release()
    return owner


def deleted(world: World) -> Owner | None:
    """Somebody deleted the session, which left a tombstone."""
    owner = live(world)
    other = world.owner()
    assert other.db.call(lambda c: sessions.delete(c, other.db, other.fence))
    other.release()
    return owner


def old_table(world: World) -> Owner | None:
    """LINE in the table of the system that authsync replaces."""
    make_old_table(world, {path: content.decode() for path, content in LINE.items()})
    return None


def make_old_table(world: World, data: object, session: str = "default") -> None:
    """The old table, with one row."""
    world.stored.execute(
        "CREATE TABLE whatsapp_sessions (id SERIAL PRIMARY KEY, session_id VARCHAR(100) DEFAULT 'default' UNIQUE,"
        " session_data JSONB NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"
        " updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)"
    )
    world.stored.execute(
        "INSERT INTO whatsapp_sessions (session_id, session_data) VALUES (%s, %s::jsonb)", session, json.dumps(data)
    )


# What lies in the folder


def empty(_root: Path, _owner: Owner | None) -> None:
    """No folder."""


def restoring(root: Path, _owner: Owner | None) -> None:
    """A restore did not finish."""
    write(root, {**HALF, ".authsync-stage/creds.json": b"{}"})
    mark(root, owner=None, restoring=True)


def restoring_another(root: Path, _owner: Owner | None) -> None:
    """A restore of another session did not finish."""
    write(root, HALF)
    mark(root, owner=None, restoring=True, session="another")


def strange(root: Path, _owner: Owner | None) -> None:
    """Files of another origin, without a marker."""
    write(root, STRANGE)


def equal(root: Path, _owner: Owner | None) -> None:
    """The very files that are stored, without a marker."""
    write(root, LINE)


def ours(root: Path, owner: Owner | None) -> None:
    """The last writer's folder, with changes that it could not flush."""
    assert owner is not None
    write(root, NEWER)
    mark(root, owner=owner.fence.owner, revision=1, held=OLDER)


def ours_bare(root: Path, owner: Owner | None) -> None:
    """The last writer's folder, without a ``creds.json``."""
    assert owner is not None
    write(root, BARE)
    mark(root, owner=owner.fence.owner, revision=1, held=OLDER)


def ours_by_digest(root: Path, _owner: Owner | None) -> None:
    """A folder that once equalled what is stored, and was written since."""
    write(root, NEWER)
    mark(root, owner=None, clean=True, revision=2, held=LINE)


def known(root: Path, _owner: Owner | None) -> None:
    """A clean folder of an older revision, unchanged."""
    write(root, OLDER)
    mark(root, owner="0" * 8, clean=True, revision=1, held=OLDER)


def known_unclean(root: Path, _owner: Owner | None) -> None:
    """A folder of an older revision whose process was killed: who knows what it had not flushed."""
    write(root, OLDER)
    mark(root, owner="0" * 8, clean=False, revision=1, held=OLDER)


def known_changed(root: Path, _owner: Owner | None) -> None:
    """A clean folder of an older revision, written since."""
    write(root, STRANGE)
    mark(root, owner="0" * 8, clean=True, revision=1, held=OLDER)


def from_the_future(root: Path, _owner: Owner | None) -> None:
    """A clean folder of a revision that the database does not know any more."""
    write(root, NEWER)
    mark(root, owner="0" * 8, clean=True, revision=9, held=NEWER)


def of_another_session(root: Path, owner: Owner | None) -> None:
    """The folder of another session, although by the same process."""
    assert owner is not None
    write(root, STRANGE)
    mark(root, owner=owner.fence.owner, session="another", clean=True, revision=1, held=STRANGE)


def mark(
    root: Path,
    *,
    owner: str | None,
    session: str = "default",
    restoring: bool = False,
    clean: bool = False,
    revision: int = 0,
    held: Files | None = None,
) -> None:
    """Write a marker."""
    root.mkdir(exist_ok=True)
    Marker(root).write(
        Mark(
            session=session,
            owner=owner,
            restoring=restoring,
            clean=clean,
            revision=revision,
            digest=digest(held) if held is not None else b"",
        )
    )


# The table


@dataclass(kw_only=True)
class After:
    """What a start leaves."""

    folder: Files
    line: Files
    revision: int
    copies: list[Files] = field(default_factory=list)
    state: str = "live"


FRESH = After(folder={}, line={}, revision=0)
IMPORTED = After(folder=LINE, line=LINE, revision=1)
RESTORED = After(folder=LINE, line=LINE, revision=2)
CLEARED = After(folder={}, line={}, revision=3, state="cleared")
DELETED = After(folder={}, line={}, revision=3, state="deleted")


def with_copy(after: After, copy: Files) -> After:
    """The same, after the folder was kept."""
    return After(folder=after.folder, line=after.line, revision=after.revision, copies=[copy], state=after.state)


def stored(files: Files, revision: int) -> After:
    """The folder is now what is stored."""
    return After(folder=files, line=files, revision=revision)


Stored = Callable[[World], Owner | None]
InFolder = Callable[[Path, Owner | None], None]
TABLE: list[tuple[Stored, InFolder, After]] = [
    (nothing, empty, FRESH),
    (nothing, restoring, FRESH),
    (nothing, strange, stored(STRANGE, 1)),
    (nothing, known, stored(OLDER, 1)),
    (untouched, empty, FRESH),
    (untouched, restoring, FRESH),
    (untouched, strange, stored(STRANGE, 1)),
    (old_table, empty, IMPORTED),
    (old_table, restoring, IMPORTED),
    (old_table, equal, IMPORTED),
    (old_table, strange, with_copy(IMPORTED, STRANGE)),
    (cleared, empty, CLEARED),
    (cleared, restoring, CLEARED),
    (cleared, known, CLEARED),
    (cleared, ours, stored(NEWER, 4)),
    (cleared, ours_bare, with_copy(CLEARED, BARE)),
    (cleared, strange, with_copy(CLEARED, STRANGE)),
    (cleared, known_unclean, with_copy(CLEARED, OLDER)),
    (deleted, empty, DELETED),
    (deleted, restoring, DELETED),
    (deleted, known, DELETED),
    (deleted, ours, with_copy(DELETED, NEWER)),
    (deleted, ours_by_digest, with_copy(DELETED, NEWER)),
    (deleted, strange, with_copy(DELETED, STRANGE)),
    (live, empty, RESTORED),
    (live, restoring, RESTORED),
    (live, restoring_another, RESTORED),
    (live, ours, stored(NEWER, 3)),
    (live, ours_by_digest, stored(NEWER, 3)),
    (live, ours_bare, stored({**NEWER, "creds.json": LINE["creds.json"]}, 3)),
    (live, equal, RESTORED),
    (live, known, RESTORED),
    (live, known_unclean, with_copy(RESTORED, OLDER)),
    (live, known_changed, with_copy(RESTORED, STRANGE)),
    (live, from_the_future, with_copy(RESTORED, NEWER)),
    (live, of_another_session, with_copy(RESTORED, STRANGE)),
    (live, strange, with_copy(RESTORED, STRANGE)),
]


@pytest.mark.parametrize(
    ("is_stored", "lies_there", "after"), TABLE, ids=[f"{row[0].__name__}-{row[1].__name__}" for row in TABLE]
)
def test_table(world: World, is_stored: Stored, lies_there: InFolder, after: After) -> None:
    """A start leaves what its row of the table says, and says so in the marker; a second start changes nothing."""
    lies_there(world.home / "auth_info", is_stored(world))
    before = {row["number"]: world.stored.snapshot_files(row["number"]) for row in world.stored.snapshots()}
    started = world.start()

    assert contents(started.root) == after.folder
    assert world.stored.files() == after.line
    assert (world.stored.revision, world.stored.session["state"]) == (after.revision, after.state)
    row = world.stored.session
    assert bytes(row["manifest_digest"]) == digest(after.line)
    assert row["file_count"] == len(after.line)
    assert world.stored.copies() == after.copies
    for snapshot in world.stored.snapshots():
        expected = {"diverged"} if snapshot["branch"] else {"start"}
        assert snapshot["reason"] in expected
        assert len(world.stored.snapshot_files(snapshot["number"])) == snapshot["file_count"]
    assert before == {}
    assert (
        json.loads((started.root / ".authsync.json").read_bytes()).items()
        >= {
            "session": "default",
            "owner": started.opening.start.owner,
            "token": started.line.fence.token,
            "restoring": False,
            "clean": False,
            "revision": after.revision,
            "digest": digest(after.line).hex(),
        }.items()
    )
    assert not (started.root / ".authsync-stage").exists()

    rows, kept, inodes = world.lines("files"), world.stored.snapshots(), inodes_of(started.root)
    started.end()
    again = world.start()
    assert world.lines("files") == rows
    assert inodes_of(again.root) == inodes
    assert (world.stored.revision, world.stored.session["state"]) == (after.revision, after.state)
    snapshots = world.stored.snapshots()
    assert snapshots[: len(kept)] == kept
    assert all(snapshot["reason"] == "start" for snapshot in snapshots[len(kept) :])  # of a folder adopted just now
    assert {"copy_kept", "flush_done", "legacy_imported"}.isdisjoint(again.events())


def inodes_of(root: Path) -> dict[str, tuple[int, int]]:
    """Which files lie there, and when they were written."""
    return {path: ((root / path).stat().st_ino, (root / path).stat().st_mtime_ns) for path in contents(root)}


@pytest.mark.parametrize("lies_there", [equal, known, strange])
def test_only_what_differs(world: World, lies_there: InFolder) -> None:
    """A restore into a folder with files leaves those that are the stored ones alone."""
    root = world.home / "auth_info"
    lies_there(root, live(world))
    before, held = inodes_of(root), contents(root)
    world.start()
    same = {path for path in LINE if held.get(path) == LINE[path]}
    assert {path: inode for path, inode in inodes_of(root).items() if path in same} == {p: before[p] for p in same}


def test_second_flush(world: World) -> None:
    """After any start the line is what the folder is: a full scan finds nothing to flush."""
    cases = [(live, ours_bare), (live, strange), (nothing, strange)]
    for number, (is_stored, lies_there) in enumerate(cases):
        world.stored.execute("TRUNCATE {s}.sessions, {s}.files, {s}.snapshots")
        lies_there(world.home / f"{number}", is_stored(world))
        started = world.start(f"{number}")
        assert not started.flush().changed


# One lineage: repair


TORN = {"empty": b"", "half": b'{"signedIdenti', "nul": b"\0" * 40, "more": b'{"a":1}}'}


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
@pytest.mark.parametrize("path", ["creds.json", "session-1.json"])
def test_torn(world: World, torn: bytes, path: str) -> None:
    """A file that its bot's end left torn comes from the store, whatever its time; what is whole is flushed."""
    root = world.home / "auth_info"
    ours(root, live(world))
    (root / path).write_bytes(torn)
    world.start()
    expected = {**NEWER, path: LINE[path]}
    assert contents(root) == world.stored.files() == expected
    assert world.stored.revision == 3
    assert world.stored.copies() == []
    assert (root / path).stat().st_mode & 0o777 == 0o600


def test_missing(world: World) -> None:
    """What is missing at a start comes back: absence is no deletion."""
    root = world.home / "auth_info"
    ours(root, live(world))
    for path in ("session-1.json", "session-2.json", "deep/er/lid.json"):
        (root / path).unlink()
    (root / "deep/er").rmdir()
    (root / "deep").rmdir()
    world.start()
    assert contents(root) == world.stored.files() == NEWER
    assert (root / "deep").stat().st_mode & 0o777 == 0o700
    assert (root / "deep/er").stat().st_mode & 0o777 == 0o700


def test_twins(world: World) -> None:
    """Stray temporary files and backups are removed: a stale ``.bak`` resurrects keys."""
    root = world.home / "auth_info"
    owner = live(world)
    twins = {"creds.json.bak": b"{}", "deep/er/lid.json.tmp": b"x", "other.tmp": b""}
    for lies_there in (ours, equal, strange, known):
        lies_there(root, owner)
        write(root, twins)
        world.start().end()
        assert twins.keys().isdisjoint(contents(root))
    assert not any(path.endswith((".tmp", ".bak")) for path in world.stored.files())


def test_repair_is_checked(world: World) -> None:
    """What comes from the store into a folder is checked there too: a damaged stored file is 65, and is not used."""
    root = world.home / "auth_info"
    ours(root, live(world))
    (root / "session-1.json").unlink()
    world.stored.execute("UPDATE {s}.files SET content = '{\"s\":9}' WHERE path = 'session-1.json'")
    with pytest.raises(DamagedError):
        world.start()
    assert "session-1.json" not in contents(root)


# One lineage: another identity

OTHER: Files = {"creds.json": creds("b", counter=7), "pre-key-1.json": b'{"n":"b"}', "pre-key-9.json": b"9"}


@pytest.mark.parametrize("paired", [True, False])
def test_identity(world: World, paired: bool) -> None:  # noqa: FBT001
    """A bot that paired anew while nobody watched: the old identity is kept as a snapshot, and its rows are closed."""
    root = world.home / "auth_info"
    ours(root, live(world))
    for path in contents(root):
        (root / path).unlink()
    local = {**OTHER, "creds.json": creds("b", paired=paired)}
    write(root, local)
    world.start()

    assert contents(root) == world.stored.files() == local
    assert world.stored.revision == 3
    first = world.stored.snapshots()[0]
    assert (first["reason"], world.stored.snapshot_files(first["number"])) == ("identity", LINE)
    assert world.stored.copies() == []


def test_unpaired(world: World) -> None:
    """A paired identity that is paired no longer is kept as a snapshot before it is replaced."""
    root = world.home / "auth_info"
    ours(root, live(world))
    local = {**NEWER, "creds.json": creds("a", paired=False)}
    write(root, local)
    world.start()
    assert world.stored.files() == local
    first = world.stored.snapshots()[0]
    assert (first["reason"], world.stored.snapshot_files(first["number"])) == ("identity", LINE)


def test_identity_beside_a_torn_file(world: World) -> None:
    """All files of a bot are one unit: a torn file of the new identity is not repaired with one of the old."""
    root = world.home / "auth_info"
    ours(root, live(world))
    for path in contents(root):
        (root / path).unlink()
    write(root, {**OTHER, "session-1.json": b""})
    world.start()
    assert contents(root).get("session-1.json", b"") == b""
    assert world.stored.files() == OTHER


def test_identity_of_one_bot(world: World) -> None:
    """Identities are looked at bot by bot: the others are repaired, and what belongs to no bot stays."""
    root = world.home / "auth_info"
    bots = {f"{bot}/{path}": content for bot in ("one", "two") for path, content in LINE.items()} | {"shared": b"1"}
    owner = world.owner()
    owner.flush(bots)
    owner.release()
    local = {f"one/{path}": content for path, content in OTHER.items()} | {"two/creds.json": NEWER["creds.json"]}
    write(root, local)
    mark(root, owner=owner.fence.owner)
    world.start()

    expected = local | {
        path: content for path, content in bots.items() if not path.startswith("one/") and path != "two/creds.json"
    }
    assert contents(root) == world.stored.files() == expected
    assert world.stored.snapshot_files(world.stored.snapshots()[0]["number"]) == bots


# Stories


def test_came_back_late(world: World) -> None:
    """A container that was cut off and comes back: its folder is kept as a copy, and it goes on with the line."""
    late = world.start("late")
    write(late.root, LINE)
    late.flush()
    write(late.root, NEWER)
    late.die()
    world.expire()
    successor = world.start("successor")
    write(successor.root, {"creds.json": creds("a", counter=5)})
    successor.flush()
    successor.end()

    again = world.start("late")
    assert contents(again.root) == {**LINE, "creds.json": creds("a", counter=5)}
    assert world.stored.copies() == [NEWER]


def test_killed_and_started_again(world: World) -> None:
    """A container that was killed and starts again in its folder flushes what it had not, with no copy."""
    killed = world.start()
    write(killed.root, LINE)
    killed.flush()
    write(killed.root, NEWER)
    killed.die()
    world.start()
    assert world.stored.files() == NEWER
    assert world.stored.copies() == []


def test_restored_by_hand(world: World) -> None:
    """A folder that ``restore`` filled is the line's own: what is written there afterwards is flushed by a start."""
    live(world)
    restore = Restore(world.settings(), world.database(), command="restore", tell=lambda *_, **__: None)
    restore.restore(force=False, progress=lambda *_: None)
    root = world.home / "auth_info"
    assert contents(root) == LINE
    write(root, NEWER)
    world.start()
    assert world.stored.files() == NEWER
    assert world.stored.copies() == []


def test_rolled_back_elsewhere(world: World) -> None:
    """A folder that ended clean takes over what a rollback or an import made meanwhile, with no copy."""
    started = world.start()
    write(started.root, LINE)
    started.flush()
    started.end()
    elsewhere = world.owner()
    elsewhere.flush(OLDER)
    elsewhere.release()
    world.start()
    assert contents(started.root) == OLDER
    assert world.stored.copies() == []


def test_baked_in_folder(world: World) -> None:
    """A folder that comes with the image again and again is kept once."""
    live(world)
    for container in range(3):
        write(world.home / f"{container}", STRANGE)
        started = world.start(f"{container}")
        assert contents(started.root) == LINE
        started.end()
    assert world.stored.copies() == [STRANGE]


def test_paired_after_a_logout(world: World) -> None:
    """After a fresh start on a cleared or deleted session, the first ``creds.json`` makes it live again."""
    for number, is_stored in enumerate((cleared, deleted)):
        world.stored.execute("TRUNCATE {s}.sessions, {s}.files, {s}.snapshots")
        is_stored(world)
        started = world.start(f"{number}")
        write(started.root, {"creds.json": creds("n", paired=False)})
        started.flush(child=Child.ALIVE)
        assert world.stored.session["state"] == "live"
        assert world.stored.files() == {"creds.json": creds("n", paired=False)}


def test_required(world: World) -> None:
    """With ``--require-session`` a start on nothing is 78; the folder stays as it is, and is not stored."""
    for is_stored in (nothing, untouched, cleared, deleted):
        world.stored.execute("TRUNCATE {s}.sessions, {s}.files, {s}.snapshots")
        is_stored(world)
        write(world.home / is_stored.__name__, STRANGE)
        started = world.begin(is_stored.__name__, required=True)
        started.acquire()
        revision = world.stored.revision
        with pytest.raises(ConfigError, match="require-session") as error:
            started.open()
        assert error.value.exit_code == 78
        assert contents(started.root) == STRANGE
        assert world.stored.revision == revision


def test_left_of_a_logout(world: World) -> None:
    """What belonged to no bot outlives a logout; that a fresh start's folder lacks it is no deletion."""
    owner = world.owner()
    owner.flush({**{f"one/{path}": content for path, content in LINE.items()}, "shared": b"1"})
    owner.flush({}, [f"one/{path}" for path in LINE], state=SessionState.CLEARED)
    owner.release()
    started = world.start()
    report = started.flush()
    while report.look_again:
        wait_for_moment(max(report.look_again.values()))
        report = started.flush()
    assert world.stored.files() == {"shared": b"1"}


# The old table


def test_old_values(world: World) -> None:
    """The values of the old table may be text or nested JSON; they come back as the bot's JSON.stringify wrote them."""
    nested = {"a": [1, 2.5, None, True], "b": {"ação": "✅", "q": '"\\'}}
    make_old_table(world, {"creds.json": creds("a").decode(), "nested.json": nested, "text": "línea\n", "n.json": 5})
    started = world.start()
    expected = {
        "creds.json": creds("a"),
        "nested.json": '{"a":[1,2.5,null,true],"b":{"q":"\\"\\\\","ação":"✅"}}'.encode(),
        "text": "línea\n".encode(),
        "n.json": b"5",
    }
    assert contents(started.root) == world.stored.files() == expected
    assert started.line.paired
    assert "legacy_imported" in started.events()


def test_old_string(world: World) -> None:
    """The whole of an old row may itself be a string of JSON."""
    make_old_table(world, json.dumps({"creds.json": "{}"}))
    world.start()
    assert world.stored.files() == {"creds.json": b"{}"}


def test_old_twins(world: World) -> None:
    """Names that are not synced are not imported."""
    make_old_table(world, {"creds.json": "{}", "creds.json.bak": "{}", "x.tmp": ""})
    world.start()
    assert world.stored.files() == {"creds.json": b"{}"}


@pytest.mark.parametrize("data", [{"../creds.json": "{}"}, {"/etc/x": "{}"}, {"": "{}"}, ["creds.json"], 7, "[]"])
def test_old_damage(world: World, data: object) -> None:
    """An old row that must not be written below a folder, or is no object, is 65; nothing is imported of it."""
    make_old_table(world, data)
    with pytest.raises(DamagedError) as error:
        world.start()
    assert error.value.exit_code == 65
    assert world.stored.revision == 0
    assert world.stored.files() == {}


def test_old_table_is_read_once(world: World) -> None:
    """The old table is never written, nor read once a row for the session exists: not after a delete either."""
    old_table(world)
    before = world.stored.rows("SELECT xmin::text, * FROM whatsapp_sessions")
    started = world.start()
    other = world.owner()
    assert other.db.call(lambda c: sessions.delete(c, other.db, other.fence))
    other.release()
    started.die()
    again = world.start("new")
    assert contents(again.root) == {}
    assert world.stored.session["state"] == "deleted"
    assert world.stored.rows("SELECT xmin::text, * FROM whatsapp_sessions") == before


def test_old_table_of_others(world: World) -> None:
    """Only the session's own old row is imported."""
    make_old_table(world, {"creds.json": "{}"}, session="another")
    world.start()
    assert world.stored.revision == 0


def test_old_code_still_runs(world: World) -> None:
    """If the old row moves after its import, somebody still runs the old code: a start warns."""
    old_table(world)
    world.start().end()
    quiet = world.start()
    assert "legacy_still_written" not in quiet.events()
    quiet.end()
    world.stored.execute("UPDATE whatsapp_sessions SET updated_at = updated_at + interval '1 s'")
    assert "legacy_still_written" in world.start().events()
