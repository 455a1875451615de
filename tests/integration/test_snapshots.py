"""Snapshots in O(1), copies beside the line, and pruning that removes what no kept one sees, and nothing else."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from authsync.core.manifest import Manifest, content_entry
from authsync.core.ownership import NoRow
from authsync.core.retention import REASONS, KeepPolicy, longer_kept, to_forget
from authsync.store import files, snapshots
from authsync.store.files import Row
from tests.integration.world import PATIENT, WAIT_S, Owner, World, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SEEN_BY_NOBODY = """
    {s}.files f WHERE branch = 0 AND died IS NOT NULL AND NOT EXISTS (
        SELECT FROM {s}.snapshots k WHERE k.session_id = f.session_id AND k.branch = 0
                                      AND k.generation >= f.born AND k.generation < f.died)
"""


def forget(owner: Owner, numbers: Iterable[int]) -> None:
    """Remove restore points."""
    owner.db.call(lambda c: snapshots.forget(c, owner.db, owner.fence.session_id, numbers))


def prune(owner: Owner) -> bool:
    """Remove one batch of what nothing sees."""
    return owner.db.call(lambda c: snapshots.prune(c, owner.db, owner.fence.session_id))


def prune_all(owner: Owner) -> None:
    """Remove everything that nothing sees."""
    while prune(owner):
        pass


def keep_copy(owner: Owner, held: Mapping[str, bytes], *, revision: int = 0) -> int:
    """Keep a folder's files beside the line."""
    rows = [Row(path, content, content_entry(content)) for path, content in held.items()]
    totals = Manifest({row.path: row.entry for row in rows}).totals
    return owner.db.call(
        lambda c: snapshots.keep_copy(
            c,
            owner.db,
            owner.fence.session_id,
            totals=totals,
            revision=revision,
            paired=False,
            note="found",
            rows=rows,
        )
    )


# Taking


def test_nothing_stored(world: World) -> None:
    """At revision 0 there is nothing to keep: no snapshot, and the same generation."""
    owner = world.owner()
    assert owner.snapshot() is None
    assert world.stored.snapshots() == []
    assert world.stored.session["generation"] == 1


def test_taken(world: World) -> None:
    """A snapshot holds what the line was at its revision, and costs one row: no file is written."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}", "a.json": b"123"})
    before = world.lines("files")
    number = owner.kept("paired", paired=True)
    assert world.lines("files") == before
    (row,) = world.stored.snapshots()
    assert (row["number"], row["branch"], row["generation"], row["revision"]) == (number, 0, 1, 1)
    assert (row["reason"], row["paired"], row["note"]) == ("paired", True, None)
    assert (row["file_count"], row["total_bytes"]) == (2, 5)
    assert bytes(row["manifest_digest"]) == owner.manifest.digest
    assert world.stored.session["generation"] == 2
    assert world.stored.revision == 1


def test_not_moved(world: World) -> None:
    """While the revision has not moved none is added; a retry of one whose answer was lost gives the same number."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}"})
    number = owner.kept("start")
    assert [owner.kept("start"), owner.kept("hourly"), owner.kept("manual", paired=True)] == [number] * 3
    owner.snapshot("hourly", note="a note")
    owner.snapshot("hourly")
    (row,) = world.stored.snapshots()
    assert (row["reason"], row["paired"], row["note"]) == ("manual", True, "a note")
    assert world.stored.session["generation"] == 2

    owner.flush({"creds.json": b"[]"})
    assert owner.kept("hourly") > number
    assert world.stored.session["generation"] == 3


@pytest.mark.parametrize("reason", REASONS)
def test_longer_kept(world: World, reason: str) -> None:
    """Of two reasons for one revision, the snapshot carries the one that keeps it longer."""
    owner = world.owner()
    for step, other in enumerate(REASONS):
        owner.flush({"creds.json": b"%d" % step})
        owner.kept(reason)
        owner.kept(other)
        assert world.stored.snapshots()[-1]["reason"] == longer_kept(reason, other)


def test_fenced(world: World) -> None:
    """Who lost the session takes no snapshot, neither a new one nor a better reason for the newest."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}"})
    owner.kept("hourly")
    world.owner()
    before = world.lines("sessions", "snapshots")
    assert owner.snapshot("manual") is NoRow.FENCED
    assert world.lines("sessions", "snapshots") == before


def test_beside_a_renewal(world: World) -> None:
    """A snapshot that waits for a renewal of its own lease to commit is taken once, at the line's revision."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}"})
    with psycopg.connect(world.dsn) as beside:
        beside.execute("UPDATE authsync.sessions SET expires_at = '2999-01-01'")
        taking = in_thread(owner.kept)
        world.wait_locked()
    number = taking.result(WAIT_S)
    (row,) = world.stored.snapshots()
    assert (row["number"], row["generation"], row["revision"]) == (number, 1, 1)
    session = world.stored.session
    assert (session["generation"], session["revision"], session["expires_at"].year) == (2, 1, 2999)


def test_beside_a_takeover(world: World) -> None:
    """A snapshot that waits for somebody who takes the session to commit finds itself fenced."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}"})
    with psycopg.connect(world.dsn) as beside:
        beside.execute("UPDATE authsync.sessions SET owner = gen_random_uuid(), token = token + 1")
        taking = in_thread(owner.snapshot)
        world.wait_locked()
    assert taking.result(WAIT_S) is NoRow.FENCED
    assert world.stored.snapshots() == []
    assert world.stored.session["generation"] == 1


# Forgetting and pruning


def history(owner: Owner, dice: random.Random, steps: int) -> dict[int, dict[str, bytes]]:
    """Make a history of changes, deletions and snapshots; what each snapshot holds."""
    line: dict[str, bytes] = {}
    kept: dict[int, dict[str, bytes]] = {}
    for step in range(steps):
        names = dice.sample([f"{n}.json" for n in range(12)], dice.randint(1, 6))
        remove = [name for name in names if name in line and dice.random() < 0.4]
        owner.flush({name: b"%d" % step for name in names if name not in remove}, remove)
        line |= dict.fromkeys(names, b"%d" % step)
        line = {name: content for name, content in line.items() if name not in remove}
        if dice.random() < 0.5:
            kept[owner.kept()] = dict(line)
    return kept


@pytest.mark.parametrize("seed", range(4))
def test_pruning(world: World, seed: int) -> None:
    """Pruning removes exactly the rows that no kept snapshot sees: all that is kept reads back as before."""
    dice = random.Random(seed)
    owner = world.owner()
    kept = history(owner, dice, 40)
    other = world.owner("other")
    other.flush({"creds.json": b"1"})
    other.kept()
    other.flush({"creds.json": b"2"})
    line = world.stored.files()
    assert {number: world.stored.snapshot_files(number) for number in kept} == kept

    forgotten = dice.sample(sorted(kept), len(kept) * 2 // 3)
    forget(owner, forgotten)
    rows, useless = world.count("{s}.files"), world.count(SEEN_BY_NOBODY)
    assert useless > 0
    prune_all(owner)
    assert world.count(SEEN_BY_NOBODY) == 0
    assert world.count("{s}.files") == rows - useless
    assert world.stored.files() == line
    left = {number: content for number, content in kept.items() if number not in forgotten}
    assert {number: world.stored.snapshot_files(number) for number in left} == left

    before = world.lines("files")
    prune_all(owner)
    assert world.lines("files") == before

    forget(owner, left)
    prune_all(owner)
    assert world.count("{s}.files WHERE session_id = 'default'") == len(line)
    assert world.stored.files() == line
    assert world.count("{s}.files WHERE session_id = 'other'") == 2


def test_batches(world: World) -> None:
    """A batch removes no more than so many rows, so that no flush waits long, and says whether more may be left."""
    owner = world.owner()
    count = snapshots.PRUNE_ROWS * 2 + 100
    names = [f"{n}" for n in range(count)]
    owner.flush(dict.fromkeys(names, b"old"))
    number = owner.kept()
    owner.flush(dict.fromkeys(names, b"new"))
    forget(owner, [number])
    left, more = [], True
    while more:
        more = prune(owner)
        left.append(world.count("{s}.files") - count)
    assert left == [count - snapshots.PRUNE_ROWS, count - 2 * snapshots.PRUNE_ROWS, 0]


def test_pruning_beside_a_flush(world: World) -> None:
    """Pruning waits for no flush, and none waits for it."""
    owner = world.owner()
    owner.flush({"a": b"1", "b": b"1"})
    number = owner.kept()
    owner.flush({"a": b"2", "b": b"2"})
    forget(owner, [number])
    pruner = world.database()
    with psycopg.connect(world.dsn) as beside:
        beside.execute("UPDATE authsync.sessions SET revision = revision + 1")
        beside.execute("UPDATE authsync.files SET content = '3' WHERE path = 'a' AND died IS NULL")
        assert not pruner.call(lambda c: snapshots.prune(c, pruner, "default"))
    assert world.stored.files() == {"a": b"3", "b": b"2"}
    assert world.count("{s}.files") == 2


def test_reader_is_undisturbed(world: World) -> None:
    """Who reads a snapshot in one moment reads all of it, while it is forgotten and pruned."""
    owner = world.owner()
    names = [f"{n:05}" for n in range(files.STREAM_ROWS * 3)]
    owner.flush(dict.fromkeys(names, b"old" * 1000))
    number = owner.kept()
    owner.flush(dict.fromkeys(names, b"new"))
    (kept,) = owner.db.call(lambda c: snapshots.list_all(c, owner.db, "default"))
    reader = world.database()

    def read(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[list[str], list[str]]:
        with files.one_moment(connection):
            files.read_head(connection, reader, "default")
            forget(owner, [number])
            prune_all(owner)
            first = [path for path, _, _ in files.stream_files(connection, reader, kept.view)]
            again = list(files.read_manifest(connection, reader, kept.view))
        return first, again

    first, again = reader.call(read)
    assert sorted(first) == sorted(again) == names
    assert world.count("{s}.files") == len(names)


def test_retention(world: World) -> None:
    """Ages are by the database's clock; what the policy does not keep goes, what is pinned stays for its time."""
    owner = world.owner()
    made: dict[str, int] = {}
    for age_days, reason in itertools.product((40, 20), ("hourly", "manual", "cleared", "paired")):
        owner.flush({"creds.json": b"%d" % len(made)})
        number = made[f"{reason} {age_days}"] = owner.kept(reason, paired=reason == "paired")
        world.stored.execute(
            "UPDATE {s}.snapshots SET taken_at = clock_timestamp() - make_interval(days => %s) WHERE number = %s",
            age_days,
            number,
        )
    owner.flush({"creds.json": b"now"})
    made["now"] = owner.kept("start")
    kept = owner.db.call(lambda c: snapshots.list_all(c, owner.db, "default"))
    now = owner.db.call(snapshots.database_time)
    assert [snapshot.taken_at for snapshot in kept] == sorted(snapshot.taken_at for snapshot in kept)
    assert abs(now - kept[-1].taken_at) < timedelta(days=1)

    forgotten = to_forget(kept, KeepPolicy(last=1, periods=()), now=now)
    forget(owner, forgotten)
    prune_all(owner)
    left = {snapshot["number"] for snapshot in world.stored.snapshots()}
    assert left == {made[name] for name in ("now", "manual 20", "cleared 20", "paired 20")}
    assert all(world.stored.snapshot_files(number) for number in left)


# Copies


def test_copy(world: World) -> None:
    """A copy is a complete branch of its own: it touches neither the line nor the session's row."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}"})
    before = world.lines("sessions")
    line = world.stored.files()
    held = {"creds.json": b"other", "a/b.bin": b"\0\xff", "empty": b""}
    number = keep_copy(owner, held, revision=1)

    assert world.lines("sessions") == before
    assert world.stored.files() == line
    assert world.stored.snapshot_files(number) == held
    assert world.stored.copies() == [held]
    (kept,) = owner.db.call(lambda c: snapshots.list_all(c, owner.db, "default"))
    assert (kept.number, kept.reason, kept.revision, kept.note) == (number, "diverged", 1, "found")
    assert kept.view.branch != 0
    assert kept.totals == Manifest({path: content_entry(content) for path, content in held.items()}).totals
    with world.database() as db:
        assert sorted(db.call(lambda c: list(files.read_manifest(c, db, kept.view)))) == sorted(held)


def test_copy_is_kept_once(world: World) -> None:
    """The same folder met again, one baked into an image say, is one copy; a different one is another."""
    owner = world.owner()
    held = {f"{n}": b"%d" % n for n in range(3)}
    number = keep_copy(owner, held)
    taken_at = world.stored.snapshots()[0]["taken_at"]
    assert keep_copy(world.owner(), held) == number
    assert world.count("{s}.files") == 3
    assert world.stored.snapshots()[0]["taken_at"] > taken_at
    assert keep_copy(owner, {**held, "0": b"x"}) != number
    assert world.count("{s}.files") == 6


def test_copy_needs_no_lease(world: World) -> None:
    """Who was fenced off keeps what it has not flushed as a copy."""
    write_only = world.start()
    (write_only.root / "creds.json").write_bytes(b"{}")
    world.owner()
    before = world.lines("sessions")
    number = write_only.line.keep_copy("fenced off", trying=PATIENT)
    assert number is not None
    assert world.stored.snapshot_files(number) == {"creds.json": b"{}"}
    assert world.lines("sessions") == before


def test_no_copy_of_nothing(world: World) -> None:
    """An empty folder is not worth a copy."""
    started = world.start()
    assert started.line.keep_copy("fenced off", trying=PATIENT) is None
    assert world.stored.snapshots() == []


def test_large_copy(world: World) -> None:
    """A copy of more than a chunk is complete."""
    owner = world.owner()
    held = {f"{n}": b"%d" % n for n in range(files.CHUNK_ROWS + 1)}
    assert world.stored.snapshot_files(keep_copy(owner, held)) == held


def test_pruning_a_copy(world: World) -> None:
    """The rows of a forgotten copy go, in batches; the line, its snapshots and the other copies stay."""
    owner = world.owner()
    owner.flush({"creds.json": b"1"})
    kept = owner.kept()
    owner.flush({"creds.json": b"2"})
    gone = keep_copy(owner, {f"{n}": b"" for n in range(snapshots.PRUNE_ROWS + 1)})
    stays = keep_copy(owner, {"creds.json": b"3"})
    branch = next(row["branch"] for row in world.stored.snapshots() if row["number"] == gone)
    forget(owner, [gone])
    assert prune(owner)
    assert not prune(owner)
    assert world.count("{s}.files WHERE branch = %s", branch) == 0
    assert world.stored.files() == {"creds.json": b"2"}
    assert world.stored.snapshot_files(kept) == {"creds.json": b"1"}
    assert world.stored.snapshot_files(stays) == {"creds.json": b"3"}


def test_copy_that_came_back(world: World) -> None:
    """A copy that is kept again while it is being pruned is kept: pruning removes what no kept snapshot sees."""
    owner = world.owner()
    held = {f"{n}": b"" for n in range(snapshots.PRUNE_ROWS + 1)}
    number = keep_copy(owner, held)
    forget(owner, [number])
    assert prune(owner)
    again = keep_copy(owner, held)
    prune_all(owner)
    assert world.stored.snapshot_files(again) == held


@pytest.mark.parametrize("first", ["pruning", "copy"])
def test_copy_that_comes_back_beside_pruning(world: World, first: str) -> None:
    """The same where both happen at once, whichever of the two waits for the other."""
    owner, keeper = world.owner(), world.owner()
    held = {f"{n}": b"" for n in range(10)}
    forget(owner, [keep_copy(owner, held)])
    work: list[Callable[[], object]] = [lambda: prune(owner), lambda: keep_copy(keeper, held)]
    if first == "copy":
        work.reverse()
    both = []
    with psycopg.connect(world.dsn) as beside:
        beside.execute("SELECT FROM authsync.files WHERE path = '5' FOR UPDATE")
        for count, each in enumerate(work, start=1):
            both.append(in_thread(each))
            world.wait_locked(count)
    for done in both:
        done.result(WAIT_S)
    (snapshot,) = world.stored.snapshots()
    assert world.stored.snapshot_files(snapshot["number"]) == held


def test_copy_forgotten_by_the_dead(world: World) -> None:
    """The rows of a copy that a process forgot before it was killed are pruned by the next one."""
    owner = world.owner()
    owner.flush({"creds.json": b"1"})
    number = keep_copy(owner, {"creds.json": b"2"})
    forget(owner, [number])
    next_owner = world.owner()
    prune_all(next_owner)
    assert world.count("{s}.files") == 1
