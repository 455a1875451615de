"""``Line.flush``: from a folder that a bot writes to, to the rows; through lost answers and a database put back."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from authsync.core.clearing import Child
from authsync.core.debounce import Batch
from authsync.core.flushplan import NoteKind
from authsync.errors import DamagedError, FencedError, MissingSchemaError, TombstoneError, UnreachableError
from authsync.line import PutBackError
from authsync.store import files, sessions
from tests.integration.world import ONCE, PATIENT, WAIT_S, Started, World, in_thread, until, wait_for_moment
from tests.support.bots import contents, creds, session, write
from tests.support.proxy import Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from authsync.line import Report

BOT = session(12)
"""A paired bot; three of its thirteen files are no wipe."""
STILL_S = 60.0


@pytest.fixture
def bot(world: World) -> Started:
    """A start whose folder holds BOT, which is stored as revision 1."""
    return stored(world, BOT)


def stored(world: World, held: dict[str, bytes], *, dsn: str | None = None) -> Started:
    """A start whose folder holds these files, which are stored as revision 1."""
    started = world.start(dsn=dsn)
    write(started.root, held)
    assert started.flush().revision == 1
    assert world.stored.files() == held
    return started


def age(path: Path) -> None:
    """Have a file be as it is for long."""
    moment = time.time() - STILL_S
    os.utime(path, (moment, moment))


def kinds(report: Report) -> set[NoteKind]:
    """What a flush had to tell."""
    return {note.kind for note in report.notes}


def later(bot: Started, report: Report, child: Child = Child.ALIVE) -> Report:
    """Flush what an earlier flush left for later, at the time that it named."""
    assert report.look_again
    wait_for_moment(max(report.look_again.values()))
    return bot.flush(*report.look_again, child=child)


# What changed


def test_changed_only(world: World, bot: Started) -> None:
    """A flush reads what is dirty and writes what differs, whatever else is stored."""
    before = {row["path"]: row["xmin"] for row in world.stored.rows("SELECT xmin::text, path FROM {s}.files")}
    write(bot.root, {"pre-key-1.json": b"[1]", "new/pre-key-2.json": b"[2]", "unseen.json": b"[3]"})
    report = bot.flush("pre-key-1.json", "new/pre-key-2.json", "creds.json")
    assert (report.revision, report.files, report.removed, report.bytes) == (2, 2, 0, 6)
    assert report.looked == {"pre-key-1.json", "new/pre-key-2.json", "creds.json"}
    assert world.stored.files() == {**BOT, "pre-key-1.json": b"[1]", "new/pre-key-2.json": b"[2]"}
    after = {row["path"]: row["xmin"] for row in world.stored.rows("SELECT xmin::text, path FROM {s}.files")}
    assert {path for path in before if before[path] != after[path]} == {"pre-key-1.json"}


def test_unchanged(world: World, bot: Started) -> None:
    """A file that was written with the same bytes is no change: no revision."""
    write(bot.root, {"creds.json": BOT["creds.json"]})
    report = bot.flush("creds.json")
    assert not report.changed
    assert (report.revision, world.stored.revision) == (1, 1)


def test_scan(world: World, bot: Started) -> None:
    """A scan finds what no event told, whatever its time says."""
    write(bot.root, {"pre-key-1.json": b"[1]", "deep/er/x": b"\0"})
    age(bot.root / "pre-key-1.json")
    assert bot.flush().files == 2
    assert world.stored.files() == contents(bot.root)


def test_never_synced(world: World, bot: Started) -> None:
    """Our own files and a writer's temporary ones are not stored, by whatever way they come."""
    write(bot.root, {"creds.json.tmp": b"1", "creds.json.bak": b"2", ".authsync-x": b"3", "a/.authsync.sock": b"4"})
    for report in (bot.flush(), bot.flush("creds.json.tmp", "creds.json.bak", ".authsync.json", "a/.authsync.sock")):
        assert not report.changed
    assert world.stored.files() == BOT


def test_file_becomes_folder(world: World, bot: Started) -> None:
    """Where a folder takes a file's place, or a file a folder's, the old rows go in the same flush."""
    write(bot.root, {"a": b"1", "b/c": b"2", "b/d": b"3"})
    bot.flush()
    (bot.root / "a").unlink()
    (bot.root / "b/c").unlink()
    (bot.root / "b/d").unlink()
    (bot.root / "b").rmdir()
    write(bot.root, {"a/x": b"4", "b": b"5"})
    assert bot.flush("a/x", "b").revision == 3
    assert world.stored.files() == {**BOT, "a/x": b"4", "b": b"5"}


# Torn files

TORN = {"empty": b"", "half": b'{"signedIdenti', "nul": b"\0" * 64, "two": BOT["creds.json"] + b"}"}


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
def test_torn(world: World, bot: Started, torn: bytes) -> None:
    """A torn file never replaces a good one, however long it stays so; the others go on, and it is read again."""
    write(bot.root, {"creds.json": torn, "pre-key-1.json": b"[1]"})
    report = bot.flush("creds.json", "pre-key-1.json")
    assert report.files == 1
    assert kinds(report) == {NoteKind.TORN}
    assert report.look_again.keys() == {"creds.json"}
    assert world.stored.files() == {**BOT, "pre-key-1.json": b"[1]"}

    age(bot.root / "creds.json")
    for report in (bot.flush("creds.json"), bot.flush()):
        assert not report.changed
        assert kinds(report) == {NoteKind.TORN}

    write(bot.root, {"creds.json": creds("a", counter=2)})
    assert later(bot, report).files == 1
    assert world.stored.file("creds.json") == creds("a", counter=2)


def test_emptied(world: World, bot: Started) -> None:
    """An empty file replaces none that is not, whatever its kind; and it may be new."""
    write(bot.root, {"blob.bin": b"\0\1", "log.txt": b"text"})
    bot.flush()
    write(bot.root, {"blob.bin": b"", "log.txt": b"", "lock": b""})
    age(bot.root / "blob.bin")
    report = bot.flush()
    assert kinds(report) == {NoteKind.TORN}
    assert world.stored.files() == {**BOT, "blob.bin": b"\0\1", "log.txt": b"text", "lock": b""}


def test_new_and_torn(world: World, bot: Started) -> None:
    """A new ``.json`` file is stored once it is whole."""
    write(bot.root, {"new.json": b'{"a":'})
    report = bot.flush("new.json")
    assert not report.changed
    assert report.look_again.keys() == {"new.json"}
    write(bot.root, {"new.json": b'{"a":1}'})
    later(bot, report)
    assert world.stored.file("new.json") == b'{"a":1}'


def test_opaque(world: World, bot: Started) -> None:
    """A ``.json`` name that never held JSON is taken as it is once it was still for 5 s; then changes are followed."""
    write(bot.root, {"odd.json": b"not JSON"})
    assert not bot.flush("odd.json").changed
    age(bot.root / "odd.json")
    assert bot.flush("odd.json").files == 1
    write(bot.root, {"odd.json": b"still not"})
    age(bot.root / "odd.json")
    assert bot.flush("odd.json").files == 1
    assert world.stored.file("odd.json") == b"still not"


def test_opaque_after_a_restart(world: World, bot: Started) -> None:
    """What kind of file is stored is known again after a restart: an opaque one changes, a torn one does not."""
    write(bot.root, {"odd.json": b"not JSON"})
    age(bot.root / "odd.json")
    bot.flush()
    bot.end()
    again = world.start()
    write(again.root, {"odd.json": b"still not", "creds.json": b"not either"})
    age(again.root / "odd.json")
    age(again.root / "creds.json")
    assert again.flush().files == 1
    assert world.stored.files() == {**BOT, "odd.json": b"still not"}


def test_opaque_becomes_json(world: World, bot: Started) -> None:
    """A name that holds JSON from now on is a JSON file like others."""
    write(bot.root, {"odd.json": b"not JSON"})
    age(bot.root / "odd.json")
    bot.flush()
    write(bot.root, {"odd.json": b"{}"})
    bot.flush("odd.json")
    write(bot.root, {"odd.json": b"{"})
    age(bot.root / "odd.json")
    assert kinds(bot.flush("odd.json")) == {NoteKind.TORN}
    assert world.stored.file("odd.json") == b"{}"


def test_damage_holds_up_nobody(world: World, bot: Started) -> None:
    """A stored file that is damaged, and cannot tell what kind it was, keeps no other file from being stored."""
    world.stored.execute("UPDATE {s}.files SET content = 'x' WHERE path = 'pre-key-1.json'")
    write(bot.root, {"pre-key-1.json": b"torn for long", "creds.json": creds("a", counter=2)})
    age(bot.root / "pre-key-1.json")
    bot.flush()
    assert world.stored.file("creds.json") == creds("a", counter=2)


def test_moving(world: World, bot: Started) -> None:
    """A file that changes while the set is read is not stored from that read; the set's others are, and it is soon."""
    others = {f"slow/{n:04}": b"%d" % n for n in range(1000)}
    path = bot.root / "a-growing.bin"
    versions = [b"v" * 100]
    path.write_bytes(versions[0])
    bot.flush()
    running = True

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            while running:
                file.write(b"v")
                time.sleep(0)

    writer = in_thread(grow)
    step = 0

    def caught() -> bool:
        nonlocal step
        step += 1
        write(bot.root, dict.fromkeys(others, b"%d" % step))
        before = len(world.stored.file("a-growing.bin") or b"")
        report = bot.flush("a-growing.bin", *others)
        assert world.stored.file("slow/0999") == b"%d" % step
        after = len(world.stored.file("a-growing.bin") or b"")
        return report.look_again.keys() == {"a-growing.bin"} and after == before

    try:
        until(caught, "the file moved while it was read")
    finally:
        running = False
        writer.result(WAIT_S)
    bot.flush("a-growing.bin")
    assert world.stored.file("a-growing.bin") == path.read_bytes()


# What is not synced


def test_no_regular_file(world: World, bot: Started) -> None:
    """Links, pipes and over-large files are named and not followed; the stored file that one replaced stays."""
    secret = world.home / "secret.json"
    secret.write_bytes(b'"secret"')
    for path in ("pre-key-1.json", "pre-key-2.json", "pre-key-3.json"):
        (bot.root / path).unlink()
    (bot.root / "pre-key-1.json").symlink_to(secret)
    (bot.root / "linked").symlink_to(world.home)
    os.mkfifo(bot.root / "pre-key-2.json")
    with (bot.root / "pre-key-3.json").open("wb") as file:
        file.truncate(bot.opening.settings.max_file_size_bytes + 1)
    write(bot.root, {"new.json": b"1"})
    for report in (bot.flush(), bot.flush("pre-key-1.json", "pre-key-2.json", "pre-key-3.json", "linked/secret.json")):
        assert {"pre-key-1.json", "pre-key-2.json", "pre-key-3.json"} <= report.unsynced.keys()
    assert world.stored.files() == {**BOT, "new.json": b"1"}


BAD_NAMES = {
    "not UTF-8": "bad\udcff.json",
    "long": "/".join(
        base64.b32encode(random.Random(n).randbytes(150)).decode()[:230] for n in range(14)
    ),  # nothing that PostgreSQL could compress to fit into an index
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_bad_name(world: World, bot: Started, name: str) -> None:
    """A file whose name cannot be stored keeps no other file from being stored."""
    write(bot.root, {name: b"1", "creds.json": creds("a", counter=2)})
    for report in (bot.flush(name, "creds.json"), bot.flush()):
        assert world.stored.file("creds.json") == creds("a", counter=2)
        assert report.unsynced or name in world.stored.files()


# Deletions


def test_deletion(world: World, bot: Started) -> None:
    """A deletion that was seen is flushed when the file has been gone for a second."""
    (bot.root / "pre-key-1.json").unlink()
    report = bot.flush("pre-key-1.json")
    assert not report.changed
    report = later(bot, report)
    assert (report.revision, report.removed, report.files) == (2, 1, 0)
    assert world.stored.files() == contents(bot.root)
    assert world.history("pre-key-1.json") == []


def test_deletion_taken_back(world: World, bot: Started) -> None:
    """A file that comes back within the second was never gone."""
    (bot.root / "pre-key-1.json").unlink()
    report = bot.flush("pre-key-1.json")
    write(bot.root, {"pre-key-1.json": BOT["pre-key-1.json"]})
    assert not later(bot, report).changed
    assert world.stored.files() == BOT


def test_deletion_found_by_a_scan(world: World, bot: Started) -> None:
    """A scan sees deletions that no event told, and changes go on meanwhile."""
    (bot.root / "pre-key-1.json").unlink()
    write(bot.root, {"pre-key-2.json": b"[]"})
    report = bot.flush()
    assert (report.files, report.removed) == (1, 0)
    assert later(bot, report).removed == 1
    assert world.stored.files() == contents(bot.root)


@pytest.mark.parametrize(("child", "removed"), [(Child.ENDED, 1), (Child.SIGNALLED, 1), (Child.STOPPING, 0)])
def test_deletion_at_the_end(world: World, bot: Started, child: Child, removed: int) -> None:
    """When the bot is gone its deletions wait no longer; while it may still be wiping its folder none is believed."""
    (bot.root / "pre-key-1.json").unlink()
    assert bot.flush(child=child).removed == removed
    assert len(world.stored.files()) == len(BOT) - removed


# Logouts


def wipe(folder: Path, *but: str) -> None:
    """Remove a bot's files."""
    for path in contents(folder):
        if path not in but:
            (folder / path).unlink()


def test_logout(world: World, bot: Started) -> None:
    """A bot that removes its identity is cleared: after the hold, a snapshot first, then all of its rows."""
    wipe(bot.root, "pre-key-7.json")
    report = bot.flush()
    assert not report.changed
    assert report.held_until is not None
    write(bot.root, {"pre-key-7.json": b"[7]"})  # what is left of it is not stored either
    report = later(bot, report)
    assert kinds(report) == {NoteKind.CLEARED}
    assert world.stored.files() == {}
    assert (world.stored.session["state"], world.stored.revision) == ("cleared", 2)
    (snapshot,) = world.stored.snapshots()
    assert (snapshot["reason"], snapshot["number"]) == ("cleared", report.snapshot)
    assert world.stored.snapshot_files(snapshot["number"]) == BOT
    assert not bot.flush().changed

    write(bot.root, {"creds.json": creds("b", paired=False)})
    bot.flush("creds.json")
    bot.flush()
    assert world.stored.session["state"] == "live"
    assert world.stored.files() == {"creds.json": creds("b", paired=False), "pre-key-7.json": b"[7]"}


def test_logout_of_one_bot(world: World) -> None:
    """A logout is one bot's: the others, and the session, live on, during the hold too."""
    held = {f"{name}/{path}": content for name in ("one", "two") for path, content in BOT.items()}
    bot = stored(world, {**held, "shared.txt": b"1"})
    wipe(bot.root / "one")
    write(bot.root, {"two/creds.json": creds("a", counter=2), "shared.txt": b"2"})
    report = bot.flush()
    assert report.files == 2
    assert kinds(later(bot, report)) == {NoteKind.CLEARED}
    expected = {path: content for path, content in held.items() if path.startswith("two/")}
    assert world.stored.files() == {**expected, "two/creds.json": creds("a", counter=2), "shared.txt": b"2"}
    assert world.stored.session["state"] == "live"


def test_wipe_and_same_identity(world: World, bot: Started) -> None:
    """A bot that removes many files and stays who it is: a snapshot first, then these are deletions."""
    wipe(bot.root, "creds.json", "pre-key-1.json")
    report = bot.flush()
    assert not report.changed
    report = later(bot, report)
    assert kinds(report) == {NoteKind.MASS_DELETION}
    assert world.stored.files() == contents(bot.root)
    assert [world.stored.snapshot_files(row["number"]) for row in world.stored.snapshots()] == [BOT]
    assert world.stored.session["state"] == "live"


def test_wipe_and_new_identity(world: World, bot: Started) -> None:
    """A bot that logs out and pairs anew at once is replaced in one flush, after a snapshot: no set mixes both."""
    wipe(bot.root)
    report = bot.flush()
    new = {"creds.json": creds("b", paired=False), "pre-key-1.json": b'{"n":"b"}'}
    write(bot.root, new)
    assert not bot.flush().changed
    report = later(bot, report)
    assert report.revision == 2
    assert world.stored.files() == new
    assert [world.stored.snapshot_files(row["number"]) for row in world.stored.snapshots()] == [BOT]
    assert world.stored.session["state"] == "live"


@pytest.mark.parametrize("child", [Child.STOPPING, Child.SIGNALLED])
def test_wipe_on_a_signal(world: World, bot: Started, child: Child) -> None:
    """A wipe after somebody signalled the bot is not followed: the last good revision stays, and a note says so."""
    wipe(bot.root)
    report = bot.flush(child=child)
    assert kinds(report) == {NoteKind.WIPE_KEPT}
    assert not report.changed
    assert world.stored.files() == BOT
    assert world.stored.session["state"] == "live"


@pytest.mark.parametrize("twin", [".tmp", ".bak"])
def test_being_rewritten(world: World, bot: Started, twin: str) -> None:
    """A ``creds.json`` that is gone while its twin lies there is being rewritten: no logout."""
    (bot.root / "creds.json").rename(bot.root / f"creds.json{twin}")
    report = bot.flush("creds.json")
    assert report.held_until is None
    assert not later(bot, report).changed
    (bot.root / f"creds.json{twin}").rename(bot.root / "creds.json")
    assert not bot.flush().changed
    assert world.stored.files() == BOT


def test_root_removed(world: World, bot: Started) -> None:
    """The root itself removed is a logout like others, and one made anew is read again."""
    wipe(bot.root)
    (bot.root / ".authsync.json").unlink()
    bot.root.rmdir()
    report = bot.flush()
    assert not report.changed
    assert kinds(later(bot, report)) == {NoteKind.CLEARED}
    write(bot.root, {"creds.json": creds("b")})
    bot.flush()
    assert world.stored.files() == {"creds.json": creds("b")}


# Identities


@pytest.mark.parametrize("new", [creds("b"), creds("b", paired=False), creds("a", paired=False)])
def test_identity(world: World, bot: Started, new: bytes) -> None:
    """Another identity, or one that is paired no longer, replaces a paired one only after a snapshot, and is told."""
    write(bot.root, {"creds.json": new})
    report = bot.flush("creds.json")
    assert NoteKind.IDENTITY in kinds(report)
    (snapshot,) = world.stored.snapshots()
    assert (snapshot["reason"], snapshot["paired"], snapshot["revision"]) == ("identity", True, 1)
    assert world.stored.snapshot_files(snapshot["number"]) == BOT
    assert world.stored.files() == {**BOT, "creds.json": new}


def test_pairing(world: World) -> None:
    """A pairing is told; it replaces nothing, so that it takes no snapshot by itself."""
    bot = stored(world, {"creds.json": creds("a", paired=False)})
    before = bot.line.paired
    write(bot.root, {"creds.json": creds("a")})
    assert kinds(bot.flush("creds.json")) == {NoteKind.PAIRED}
    assert (before, bot.line.paired) == (False, True)
    assert world.stored.snapshots() == []


# No longer ours


def test_fenced(world: World, bot: Started) -> None:
    """Who lost the session stores nothing more, keeps what it has as a copy, and stays fenced."""
    world.owner()
    before = world.lines("sessions", "files")
    write(bot.root, {"creds.json": creds("a", counter=9)})
    for _ in range(2):
        with pytest.raises(FencedError) as error:
            bot.flush("creds.json")
        assert error.value.exit_code == 75
    assert world.lines("sessions", "files") == before
    bot.line.keep_copy("fenced off", trying=PATIENT)
    assert world.stored.copies() == [{**BOT, "creds.json": creds("a", counter=9)}]


def test_deleted(world: World, bot: Started) -> None:
    """A session that was deleted stays so: the bot's changes do not bring it back."""
    other = world.owner()
    assert other.db.call(lambda c: sessions.delete(c, other.db, other.fence))
    other.release()
    write(bot.root, {"creds.json": creds("a", counter=9)})
    with pytest.raises(TombstoneError):
        bot.flush("creds.json")
    assert world.stored.files() == {}
    assert world.stored.session["state"] == "deleted"


# Lost answers


@pytest.mark.parametrize("cut", [Mode.CUT_DOWN, Mode.CUT_UP], ids=["answer lost", "request lost"])
@pytest.mark.parametrize("removing", [False, True], ids=["writing", "removing"])
def test_retried(world: World, cut: Mode, removing: bool) -> None:  # noqa: FBT001
    """A flush whose connection is cut is tried again, and is exactly one revision whether it had committed or not."""
    proxy = world.proxy()
    bot = stored(world, BOT, dsn=proxy.through(world.dsn))
    if removing:
        (bot.root / "pre-key-1.json").unlink()
    else:
        write(bot.root, {"pre-key-1.json": b"[1]"})
    proxy.set(cut)
    report = bot.flush("pre-key-1.json", child=Child.ENDED)
    proxy.wait_cut()
    assert (report.revision, report.files + report.removed) == (2, 1)
    assert world.stored.revision == 2
    assert world.stored.files() == contents(bot.root)
    assert bot.flush("creds.json").revision == 2


@pytest.mark.parametrize("cut", [Mode.CUT_DOWN, Mode.CUT_UP], ids=["answer lost", "request lost"])
def test_unsettled(world: World, cut: Mode) -> None:
    """A flush of unknown outcome is resent, identical, by the next one; what is newer is a revision of its own."""
    proxy = world.proxy()
    bot = stored(world, BOT, dsn=proxy.through(world.dsn))
    write(bot.root, {"pre-key-1.json": b'"first"', "pre-key-2.json": b'"first"'})
    proxy.set(cut)
    with pytest.raises(UnreachableError):
        bot.flush("pre-key-1.json", "pre-key-2.json", trying=ONCE)
    proxy.wait_cut()
    world.stored.execute(
        "CREATE TABLE seen AS SELECT 1 AS revision, content FROM {s}.files WHERE false;"
        " CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO seen VALUES (1, new.content); RETURN new; END';"
        " CREATE TRIGGER see BEFORE UPDATE ON {s}.files FOR EACH ROW WHEN (new.path = 'pre-key-1.json')"
        " EXECUTE FUNCTION see()"
    )
    write(bot.root, {"pre-key-1.json": b'"second"'})
    report = bot.flush("pre-key-1.json", "pre-key-2.json")

    assert report.revision == world.stored.revision == 3
    assert world.stored.files() == contents(bot.root)
    sent = [bytes(row["content"]) for row in world.stored.rows("SELECT content FROM seen")]
    assert sent == ([b'"second"'] if cut is Mode.CUT_DOWN else [b'"first"', b'"second"'])


def test_unsettled_and_fenced(world: World) -> None:
    """A flush of unknown outcome that was not applied is not applied after the session was lost."""
    proxy = world.proxy()
    bot = stored(world, BOT, dsn=proxy.through(world.dsn))
    write(bot.root, {"pre-key-1.json": b"[1]"})
    proxy.set(Mode.CUT_UP)
    with pytest.raises(UnreachableError):
        bot.flush("pre-key-1.json", trying=ONCE)
    world.owner()
    with pytest.raises(FencedError):
        bot.flush("pre-key-1.json")
    assert world.stored.files() == BOT


def test_lost_commit_of_a_large_flush(world: World) -> None:
    """The same holds for a flush of many chunks whose COMMIT was applied and whose answer was lost."""
    proxy = world.proxy()
    bot = stored(world, BOT, dsn=proxy.through(world.dsn))
    write(bot.root, {f"session-{n}.json": b"%d" % n for n in range(files.CHUNK_ROWS + 1)})
    world.stored.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END';"
        " CREATE CONSTRAINT TRIGGER hold AFTER UPDATE ON {s}.sessions DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION hold()"
    )
    with psycopg.connect(world.dsn) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(7)")
        flushing = in_thread(bot.flush)
        world.wait_locked()  # in COMMIT
        proxy.set(Mode.CUT_DOWN)
    report = flushing.result(WAIT_S)
    proxy.wait_cut()
    assert (report.revision, report.files) == (2, files.CHUNK_ROWS + 1)
    assert world.stored.revision == 2
    assert world.stored.files() == contents(bot.root)


@pytest.mark.parametrize("cut", [Mode.CUT_DOWN, Mode.CUT_UP], ids=["answer lost", "request lost"])
def test_snapshot_retried(world: World, cut: Mode) -> None:
    """A snapshot whose answer is lost is taken once."""
    proxy = world.proxy()
    bot = stored(world, BOT, dsn=proxy.through(world.dsn))
    proxy.set(cut)
    number = bot.line.take_snapshot("manual", trying=PATIENT)
    proxy.wait_cut()
    assert [row["number"] for row in world.stored.snapshots()] == [number]
    assert world.stored.session["generation"] == 2


def test_while_away(world: World) -> None:
    """While the database is away nothing is lost: the flush after it carries what the folder is by then."""
    proxy = world.proxy()
    bot = stored(world, BOT, dsn=proxy.through(world.dsn))
    proxy.set(Mode.REFUSE)
    proxy.reset()
    for step in range(3):
        write(bot.root, {"pre-key-1.json": b"%d" % step, f"session-{step}.json": b"{}"})
        with pytest.raises(UnreachableError) as error:
            bot.flush("pre-key-1.json", f"session-{step}.json", trying=ONCE)
        assert error.value.exit_code == 69
    proxy.set(Mode.PASS)
    bot.flush("pre-key-1.json", *(f"session-{step}.json" for step in range(3)))
    assert world.stored.files() == contents(bot.root)


# The database was put back

KEEP = """
CREATE TABLE kept_sessions AS TABLE {s}.sessions; CREATE TABLE kept_files AS TABLE {s}.files;
CREATE TABLE kept_snapshots AS TABLE {s}.snapshots
"""
PUT_BACK = """
TRUNCATE {s}.sessions, {s}.files, {s}.snapshots;
INSERT INTO {s}.sessions OVERRIDING SYSTEM VALUE TABLE kept_sessions;
INSERT INTO {s}.files TABLE kept_files;
INSERT INTO {s}.snapshots OVERRIDING SYSTEM VALUE TABLE kept_snapshots
"""


def _rows_gone(world: World) -> None:
    """A dump of a time before the session, or somebody's DELETE."""
    world.stored.execute("TRUNCATE {s}.sessions, {s}.files, {s}.snapshots, {s}.owners")


def _schema_gone(world: World) -> None:
    """An empty database in its place."""
    world.stored.execute("DROP SCHEMA {s} CASCADE")


def _older(world: World) -> None:
    """An asynchronous failover lost the last flushes."""
    world.stored.execute(PUT_BACK)


def _older_and_free(world: World) -> None:
    """A dump of a time when nobody owned the session."""
    world.stored.execute(PUT_BACK)
    world.stored.execute("UPDATE {s}.sessions SET owner = NULL, expires_at = NULL, token = 0")


def _older_and_anothers(world: World) -> None:
    """A dump of a time when somebody else owned the session, whose lease is long over."""
    world.stored.execute(PUT_BACK)
    world.stored.execute("UPDATE {s}.sessions SET owner = gen_random_uuid(), expires_at = now(), token = 0")


OLDER = {**BOT, "session-old.json": b'"gone since"'}
PUT_BACKS = [
    (_rows_gone, {}),
    (_schema_gone, {}),
    (_older, OLDER),
    (_older_and_free, OLDER),
    (_older_and_anothers, OLDER),
]


def later_bot(world: World) -> tuple[Started, int]:
    """A bot that lived on after the database's state of OLDER was kept; and its token."""
    bot = stored(world, OLDER)
    world.stored.execute(KEEP)
    (bot.root / "session-old.json").unlink()
    write(bot.root, {"creds.json": creds("a", counter=5), "pre-key-1.json": b"[5]", "session-new.json": b"{}"})
    bot.flush(child=Child.ENDED)
    assert world.stored.files() == contents(bot.root)
    return bot, bot.line.fence.token


@pytest.mark.parametrize(("put_back", "was"), PUT_BACKS)
def test_put_back(world: World, put_back: Callable[[World], None], was: dict[str, bytes]) -> None:
    """A database that was put back is written again from the folder, under a new token; what it held is a snapshot."""
    bot, token = later_bot(world)
    put_back(world)
    write(bot.root, {"session-1.json": b"{}"})
    report = bot.flush("session-1.json")
    assert report.put_back
    while world.stored.files() != contents(bot.root):  # what was deleted since the dump is deleted again
        report = later(bot, report)
    assert bot.line.fence.token > token
    assert world.stored.session["token"] == bot.line.fence.token
    assert world.stored.session["expires_at"] is not None
    assert world.stored.session["state"] == "live"
    kept = [world.stored.snapshot_files(row["number"]) for row in world.stored.snapshots()]
    assert kept[:1] == ([was] if was else [])

    write(bot.root, {"session-1.json": b"[1]"})
    report = bot.flush("session-1.json")
    assert not report.put_back
    assert world.stored.files() == contents(bot.root)
    bot.end()
    assert contents(world.start("elsewhere").root) == contents(bot.root)


@pytest.mark.parametrize(("put_back", "was"), PUT_BACKS)
def test_put_back_found_at_the_end(world: World, put_back: Callable[[World], None], was: dict[str, bytes]) -> None:
    """The last flush looks whether the database still is where it was left, also where nothing changed since."""
    bot, _ = later_bot(world)
    put_back(world)
    report = bot.line.flush(Batch(), child=Child.SIGNALLED, trying=PATIENT, verify=True)
    assert report.put_back
    assert world.stored.files() == contents(bot.root)
    kept = [world.stored.snapshot_files(row["number"]) for row in world.stored.snapshots()]
    assert kept == ([was] if was else [])


@pytest.mark.parametrize("child", [Child.ALIVE, Child.ENDED, Child.SIGNALLED])
def test_put_back_to_another_identity(world: World, child: Child) -> None:
    """No revision mixes the identity that the database was put back to with the one that the folder holds."""
    bot = stored(world, OLDER)
    world.stored.execute(KEEP)
    new = {"creds.json": creds("b"), "pre-key-1.json": b'{"n":"b"}'}
    wipe(bot.root)
    write(bot.root, new)
    later(bot, bot.flush())
    assert world.stored.files() == new
    _older(world)
    write(bot.root, {"pre-key-2.json": b'{"n":"b"}'})
    report = bot.flush("pre-key-2.json", child=child)
    while report.look_again:
        assert world.stored.files() in (OLDER, contents(bot.root))
        report = later(bot, report, child)
    assert world.stored.files() == contents(bot.root)
    assert OLDER in [world.stored.snapshot_files(row["number"]) for row in world.stored.snapshots()]


def test_put_back_and_unsettled(world: World) -> None:
    """A flush of unknown outcome does not stand in the way of writing everything again."""
    proxy = world.proxy()
    bot = stored(world, BOT, dsn=proxy.through(world.dsn))
    write(bot.root, {"pre-key-1.json": b"[1]"})
    proxy.set(Mode.CUT_UP)
    with pytest.raises(UnreachableError):
        bot.flush("pre-key-1.json", trying=ONCE)
    _rows_gone(world)
    assert bot.flush("pre-key-1.json").put_back
    assert world.stored.files() == contents(bot.root)


def test_put_back_and_taken(world: World) -> None:
    """Where another owner was quicker after the database was put back, we are fenced off, and store nothing."""
    bot, _ = later_bot(world)
    _rows_gone(world)
    other = world.owner()
    other.flush({"creds.json": creds("z")})
    before = world.lines("sessions", "files")
    write(bot.root, {"session-1.json": b"{}"})
    with pytest.raises(FencedError):
        bot.flush("session-1.json")
    assert world.lines("sessions", "files") == before


@pytest.mark.parametrize(("put_back", "was"), PUT_BACKS)
def test_put_back_before_an_identity(world: World, put_back: Callable[[World], None], was: dict[str, bytes]) -> None:
    """A flush that begins with a snapshot finds out as well that the database was put back."""
    bot, _ = later_bot(world)
    put_back(world)
    write(bot.root, {"creds.json": creds("b")})
    report = bot.flush("creds.json")
    assert report.put_back
    assert world.stored.file("creds.json") == creds("b")
    kept = [world.stored.snapshot_files(row["number"]) for row in world.stored.snapshots()]
    assert kept[:1] == ([was] if was else [])


@pytest.mark.parametrize(("put_back", "was"), PUT_BACKS)
def test_put_back_before_a_snapshot(world: World, put_back: Callable[[World], None], was: dict[str, bytes]) -> None:
    """A snapshot that comes before the next flush does not take a database put back for another owner's session."""
    bot, _ = later_bot(world)
    put_back(world)
    with contextlib.suppress(PutBackError, MissingSchemaError):  # the row may also look as it did at that revision
        bot.line.take_snapshot("hourly", trying=PATIENT)
    write(bot.root, {"session-1.json": b"{}"})
    assert bot.flush("session-1.json").put_back
    assert world.stored.file("session-1.json") == b"{}"
    assert world.stored.file("creds.json") == creds("a", counter=5)
    kept = [world.stored.snapshot_files(row["number"]) for row in world.stored.snapshots()]
    assert kept[:1] == ([was] if was else [])


def test_stored_damage_is_named(world: World, bot: Started) -> None:
    """What is read from the store for use is checked."""
    world.stored.execute("UPDATE {s}.files SET content = 'x' WHERE path = 'pre-key-1.json'")
    with pytest.raises(DamagedError, match="pre-key-1"):
        bot.line.read_stored(["pre-key-1.json"], trying=PATIENT)
