"""Who owns a session: taking, renewing and giving back its lease, the registry of starts, and orders to the owner."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from authsync.core.ownership import NoRow, Refusal, refusal
from authsync.core.reconcile import SessionState
from authsync.errors import OwnedError
from authsync.reconcile import write_restoring
from authsync.start import acquire as acquire_patiently
from authsync.store import leases, sessions
from authsync.store.connection import Patience, Trying
from authsync.store.leases import Lease, Order, Renewal, Start
from tests.integration.world import TTL_S, WAIT_S, World, a_start, in_thread, until
from tests.support.bots import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from authsync.store.connection import Database


def take(db: Database, start: Start, session: str = "default", **how: Any) -> Lease | None:  # noqa: ANN401
    """Try to take a session."""
    return db.call(lambda c: leases.acquire(c, db, session, start, ttl_s=TTL_S, **how))


def taken(db: Database, start: Start, session: str = "default", **how: Any) -> Lease:  # noqa: ANN401
    """Take a session, which has to succeed."""
    lease = take(db, start, session, **how)
    assert lease is not None
    return lease


def renewed(db: Database, lease: Lease) -> Renewal | NoRow:
    """Renew a lease."""
    return db.call(lambda c: leases.renew(c, db, lease.fence, ttl_s=TTL_S))


def release(db: Database, lease: Lease, outcome: str = "done") -> None:
    """Give a lease back."""
    db.call(lambda c: leases.release(c, db, lease.fence, outcome=outcome))


def left_s(world: World, session: str = "default") -> float:
    """What is left of a lease, by the database's clock."""
    left = "extract(epoch FROM expires_at - clock_timestamp())::float8"
    return float(world.stored.rows(f"SELECT {left} AS s FROM {{s}}.sessions WHERE session_id = %s", session)[0]["s"])


@pytest.fixture
def db(world: World) -> Database:
    """A database."""
    return world.database()


# Taking


def test_free(world: World, db: Database) -> None:
    """A session that nobody knows is taken, with a full TTL; nothing is stored yet."""
    start = a_start(scope="shop")
    lease = taken(db, start)
    assert (lease.fence.owner, lease.fence.token) == (start.owner, 1)
    assert (lease.head.revision, lease.head.state, lease.head.last_writer) == (0, SessionState.LIVE, None)
    assert (lease.file_count, lease.total_bytes) == (0, 0)
    assert 0 < left_s(world) <= TTL_S
    assert world.stored.session["scope"] == "shop"


def test_held(world: World, db: Database) -> None:
    """A session that is held is not taken, and its row says who holds it and for how long yet."""
    holder = a_start(host="there")
    db.call(lambda c: leases.register(c, db, "default", holder))
    taken(db, holder)
    before = world.lines("sessions")
    assert take(db, a_start()) is None
    assert world.lines("sessions") == before
    claim = db.call(lambda c: leases.read_claim(c, db, "default"))
    assert claim is not None
    assert (claim.owner, claim.owner_host, refusal(claim, scope="shop")) == (holder.owner, "there", Refusal.HELD)
    assert claim.expires_in_s is not None
    assert 0 < claim.expires_in_s <= TTL_S


def test_expired(world: World, db: Database) -> None:
    """A lease that ran out is taken, and its line comes with it."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}"})
    world.expire()
    lease = taken(db, a_start())
    assert lease.fence.token == owner.fence.token + 1
    assert (lease.head.revision, lease.head.digest) == (1, owner.manifest.digest)
    assert lease.head.last_writer == owner.fence.owner
    assert (lease.file_count, lease.total_bytes) == (1, 2)
    assert lease.age_s >= 0


def test_released(world: World, db: Database) -> None:
    """A lease that was given back is taken at once."""
    owner = world.owner()
    owner.release()
    assert world.stored.session["owner"] is None
    assert taken(db, a_start()).fence.token == owner.fence.token + 1


def test_forced(world: World, db: Database) -> None:
    """A forced start takes a session that is held, from any scope, and moves it to its own."""
    owner = world.owner(scope="shop")
    owner.flush({"creds.json": b"{}"})
    lease = taken(db, a_start(scope="other"), force=True)
    assert lease.fence.token == owner.fence.token + 1
    assert world.stored.session["scope"] == "other"


def test_predecessor(db: Database) -> None:
    """The lease of the process that ran here before is taken at once; that of anybody else is not."""
    gone, other = a_start(), a_start()
    lease = taken(db, gone)
    assert take(db, a_start(), predecessor=other.owner) is None
    assert taken(db, a_start(), predecessor=gone.owner).fence.token == lease.fence.token + 1


def test_own(db: Database) -> None:
    """A start whose answer was lost takes what it already holds."""
    start = a_start()
    assert taken(db, start).fence.token == 1
    assert taken(db, start).fence.token == 2


def test_other_scope(world: World, db: Database) -> None:
    """A session belongs to the service that first stored it, free or not."""
    owner = world.owner(scope="shop")
    owner.flush({"creds.json": b"{}"})
    for _ in ("held", "free"):
        assert take(db, a_start(scope="other")) is None
        claim = db.call(lambda c: leases.read_claim(c, db, "default"))
        assert claim is not None
        assert refusal(claim, scope="other") is Refusal.OTHER_SCOPE
        owner.release()
    assert take(db, a_start(scope="shop")) is not None


def test_scope_of_nothing(world: World, db: Database) -> None:
    """Revision 0 fixes no scope: a session that was never written is free for any service."""
    world.owner(scope="shop").release()
    taken(db, a_start(scope="other"))
    assert world.stored.session["scope"] == "other"


def test_any_scope(world: World, db: Database) -> None:
    """A command that a person confirmed takes a session of another scope, and leaves it there."""
    owner = world.owner(scope="shop")
    owner.flush({"creds.json": b"{}"})
    assert take(db, a_start(scope="laptop"), any_scope=True) is None
    owner.release()
    taken(db, a_start(scope="laptop"), any_scope=True)
    assert world.stored.session["scope"] == "shop"


def test_unknown_scope(world: World, db: Database) -> None:
    """A session whose row names no scope belongs to the first that takes it."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}"})
    owner.release()
    world.stored.execute("UPDATE {s}.sessions SET scope = NULL")
    taken(db, a_start(scope="first"))
    assert world.stored.session["scope"] == "first"


def test_token_rises(world: World, db: Database) -> None:
    """Each acquisition, however it came about, raises the token; a put back database does not lower it."""
    first = a_start()
    tokens = [taken(db, first).fence.token, taken(db, first).fence.token]
    tokens.append(taken(db, a_start(), force=True).fence.token)
    world.expire()
    last = a_start()
    tokens.append(taken(db, last).fence.token)
    release(db, taken(db, last))
    tokens.append(taken(db, last).fence.token)

    world.stored.execute("DELETE FROM {s}.sessions")
    tokens.append(taken(db, last, least_token=tokens[-1]).fence.token)
    world.stored.execute("UPDATE {s}.sessions SET token = 1")
    tokens.append(taken(db, last, least_token=tokens[-1]).fence.token)
    world.stored.execute("UPDATE {s}.sessions SET token = 1000")
    tokens.append(taken(db, last, least_token=tokens[-2]).fence.token)
    assert tokens == sorted(set(tokens))


def test_two_at_once(world: World) -> None:
    """Of two starts that take a free session at once, one gets it."""
    with psycopg.connect(world.dsn) as beside:
        beside.execute("LOCK TABLE authsync.sessions IN SHARE MODE")
        databases = [world.database() for _ in range(2)]
        both = [in_thread(lambda db=db: take(db, a_start())) for db in databases]  # type: ignore[misc]
        world.wait_locked(2)
    got = [future.result(WAIT_S) for future in both]
    assert sorted(lease is not None for lease in got) == [False, True]


def test_database_clock(world: World, db: Database) -> None:
    """A lease ends by the clock of the database at that moment, not by that of a transaction's begin."""
    world.owner()
    start = a_start()
    with psycopg.connect(world.dsn) as long_ago:
        long_ago.execute("SELECT now()")
        world.expire()
        lease = leases.acquire(long_ago, db, "default", start, ttl_s=TTL_S)
        assert lease is not None
        for ask in (
            lambda: leases.renew(long_ago, db, lease.fence, ttl_s=TTL_S),
            lambda: leases.acquire(long_ago, db, "default", start, ttl_s=TTL_S),
        ):
            before = long_ago.execute("SELECT clock_timestamp()").fetchone()
            ask()
            after = long_ago.execute("SELECT max(expires_at) FROM authsync.sessions").fetchone()
            assert before is not None
            assert after is not None
            assert after[0] >= before[0] + timedelta(seconds=TTL_S)


def test_two_sessions(world: World, db: Database) -> None:
    """Two sessions of one database know nothing of each other."""
    one, two = world.owner("one"), world.owner("two", scope="other")
    one.flush({"creds.json": b"1"})
    two.flush({"creds.json": b"2"})
    one.kept()
    two.flush({"creds.json": b"22"})
    one.release()
    assert taken(db, a_start(), "one").fence.token == 2
    assert two.flush({"creds.json": b"222"}) == 3
    assert one.send(one.order({"creds.json": b"x"})) is NoRow.FENCED
    db.call(lambda c: sessions.delete(c, db, two.fence))
    contents = {row["session_id"]: bytes(row["content"]) for row in world.stored.rows("SELECT * FROM {s}.files")}
    assert contents == {"one": b"1"}
    assert world.count("{s}.snapshots WHERE session_id = 'one'") == 1


# Renewing and giving back


def test_renewal(world: World, db: Database) -> None:
    """A renewal gives a full TTL again, also where the lease ran out and nobody took it."""
    lease = taken(db, a_start())
    world.expire()
    assert renewed(db, lease) == Renewal(revision=0, order=None)
    assert left_s(world) > 0
    assert take(db, a_start()) is None


def _taken(_world: World, db: Database, _lease: Lease) -> None:
    """Another owner took the session."""
    taken(db, a_start(), force=True)


def _deleted(world: World, db: Database, _lease: Lease) -> None:
    """Another process deleted the session."""
    lease = taken(db, a_start(), force=True)
    assert db.call(lambda c: sessions.delete(c, db, lease.fence))
    release(db, lease)
    assert world.stored.session["state"] == "deleted"


def _gone(world: World, _db: Database, _lease: Lease) -> None:
    """The row is gone."""
    world.stored.execute("DELETE FROM {s}.sessions")


def _older(world: World, _db: Database, _lease: Lease) -> None:
    """The row is of a time before ours."""
    world.stored.execute("UPDATE {s}.sessions SET token = token - 1, owner = NULL")


@pytest.mark.parametrize(
    ("happened", "cause"),
    [(_taken, NoRow.FENCED), (_deleted, NoRow.TOMBSTONE), (_gone, NoRow.PUT_BACK), (_older, NoRow.PUT_BACK)],
)
def test_renewal_after_a_loss(
    world: World, db: Database, happened: Callable[[World, Database, Lease], None], cause: NoRow
) -> None:
    """A renewal of what is no longer ours changes nothing, and tells why."""
    lease = taken(db, a_start())
    happened(world, db, lease)
    before = world.lines("sessions")
    assert renewed(db, lease) is cause
    assert world.lines("sessions") == before


def test_release_after_a_loss(world: World, db: Database) -> None:
    """Who lost the session cannot free it."""
    old = taken(db, a_start())
    new = taken(db, a_start(), force=True)
    release(db, old)
    assert str(world.stored.session["owner"]) == new.fence.owner
    assert take(db, a_start()) is None


# The registry


def enter(db: Database, start: Start, **how: Any) -> tuple[Lease, int, tuple[str, str] | None]:  # noqa: ANN401
    """Register, take and record, as a start does."""
    number = db.call(lambda c: leases.register(c, db, "default", start))
    lease = taken(db, start, **how)
    return lease, number, db.call(lambda c: leases.record_acquisition(c, db, lease.fence, number))


def test_registry(world: World, db: Database) -> None:
    """Each start has a number by the database's order, and a row that says when it asked, held and ended, and how."""
    first = a_start(host="one")
    lease, number, previous = enter(db, first)
    assert previous is None
    row = world.stored.owners()[0]
    assert {name: str(row[name]) for name in ("owner", "command", "scope", "host", "boot_id", "version")} == {
        name: getattr(first, name) for name in ("owner", "command", "scope", "host", "boot_id", "version")
    }
    assert row["asked_at"] <= row["acquired_at"]
    assert (row["ended_at"], row["outcome"]) == (None, None)

    release(db, lease, "stopped")
    _, second, previous = enter(db, a_start(host="two"))
    assert second > number
    assert previous == ("one", "stopped")
    row = world.stored.owners()[0]
    assert row["outcome"] == "stopped"
    assert row["ended_at"] >= row["acquired_at"]


def test_lost_owner(world: World, db: Database) -> None:
    """An owner that never said goodbye has lost the session to its successor, whatever it says later."""
    lease, _, _ = enter(db, a_start(host="one"))
    _, _, previous = enter(db, a_start(), force=True)
    assert previous == ("one", "lost")
    ended_at = world.stored.owners()[0]["ended_at"]
    release(db, lease, "stopped")
    row = world.stored.owners()[0]
    assert (row["outcome"], row["ended_at"]) == ("lost", ended_at)


def test_refused_starts(world: World, db: Database) -> None:
    """A start that only asked is no previous owner."""
    enter(db, a_start(host="owner"))
    refused = a_start(host="refused")
    db.call(lambda c: leases.register(c, db, "default", refused))
    db.call(lambda c: leases.end(c, db, "default", refused.owner, outcome="refused"))
    _, _, previous = enter(db, a_start(), force=True)
    assert previous == ("owner", "lost")
    assert [row["outcome"] for row in world.stored.owners()] == ["lost", "refused", None]
    assert [owner.host for owner in db.call(lambda c: sessions.owners(c, db, "default", most=20))] == ["here", "owner"]


def test_registry_is_bounded(world: World, db: Database) -> None:
    """A crash loop does not fill the registry: the newest starts of a session stay, and all of the others."""
    world.stored.execute(
        "INSERT INTO {s}.owners (session_id, owner, command)"
        " SELECT name, gen_random_uuid(), 'run' FROM generate_series(1, %s), unnest(ARRAY['default', 'other']) name",
        leases.KEPT_STARTS + 50,
    )
    _, number, _ = enter(db, a_start())
    kept = world.stored.owners()
    assert len(kept) == leases.KEPT_STARTS
    assert kept[-1]["number"] == number
    assert world.count("{s}.owners WHERE session_id = 'other'") == leases.KEPT_STARTS + 50


# Orders


def give(db: Database, order: Order) -> str | None:
    """Leave an order."""
    return db.call(lambda c: leases.give_order(c, db, "default", order))


def answer(db: Database, order: str) -> dict[str, Any] | None:
    """What became of an order."""
    return db.call(lambda c: leases.read_outcome(c, db, "default", order))


def test_order(world: World, db: Database) -> None:
    """The owner finds an order with its renewal, carries it out, and clears it with its answer."""
    lease = taken(db, a_start())
    order = Order(id="one", kind="backup", note="before the move")
    assert give(db, order) == lease.fence.owner
    assert answer(db, "one") is None
    assert renewed(db, lease) == Renewal(revision=0, order=order)

    db.call(lambda c: leases.finish_order(c, db, lease.fence, "one", {"revision": 7}))
    assert renewed(db, lease) == Renewal(revision=0, order=None)
    assert answer(db, "one") == {"id": "one", "revision": 7}
    assert answer(db, "two") is None
    assert world.stored.session["standing_order"] is None


def test_order_to_nobody(world: World, db: Database) -> None:
    """An order is left for a live owner alone."""
    order = Order(id="one", kind="backup", note=None)
    assert give(db, order) is None
    lease = taken(db, a_start())
    world.expire()
    assert give(db, order) is None
    release(db, lease)
    assert give(db, order) is None
    assert world.stored.session["standing_order"] is None


def test_answer_to_another_order(db: Database) -> None:
    """An answer that comes late does not clear the order that came after it."""
    lease = taken(db, a_start())
    give(db, Order(id="one", kind="backup", note=None))
    give(db, Order(id="two", kind="backup", note=None))
    db.call(lambda c: leases.finish_order(c, db, lease.fence, "one", {}))
    renewal = renewed(db, lease)
    assert isinstance(renewal, Renewal)
    assert renewal.order is not None
    assert renewal.order.id == "two"
    assert answer(db, "two") is None


# A start


def test_start_of_another_service(world: World) -> None:
    """A start from another scope gets 75 and what to do; nothing is restored, and nobody is asked to stop."""
    write(world.home / "shop", {"creds.json": b"{}"})
    owner = world.start("shop")
    before = world.lines("sessions", "files", "snapshots")
    stranger = world.begin("laptop", scope="laptop")
    with pytest.raises(OwnedError, match="another service") as error:
        stranger.acquire(wait=True)
    assert error.value.exit_code == 75
    assert "--session-id" in error.value.hint
    assert "--takeover force" in error.value.hint
    assert [path.name for path in stranger.root.iterdir()] == [".authsync.json"]
    assert world.lines("sessions", "files", "snapshots") == before
    assert [row["outcome"] for row in world.stored.owners()] == [None, "refused"]
    assert owner.line.fence.token == 1


def test_start_that_does_not_wait(world: World) -> None:
    """A one-shot that meets a live owner is refused with 75, and told on which host that runs."""
    owner = world.start("one")
    with pytest.raises(OwnedError, match=owner.opening.start.host) as error:
        world.begin("two").acquire()
    assert error.value.exit_code == 75


def test_start_that_waits(world: World) -> None:
    """A second start waits for the owner to end, says so once, and owns the session then."""
    owner = world.start("one")
    second = world.begin("two")
    waiting = in_thread(lambda: second.acquire(wait=True))
    until(lambda: "owner_waited_for" in second.events(), "it waits")
    assert not waiting.done()
    owner.end()
    assert waiting.result(WAIT_S).fence.token == owner.line.fence.token + 1
    assert second.events() == ["owner_waited_for", "session_acquired"]
    assert second.told[-1][1]["previous_ended"] == "done"


def test_told_to_stop_while_waiting(world: World) -> None:
    """A start that waits ends when it is told to stop, and takes nothing."""
    owner = world.start("one")
    second = world.begin("two")
    patience = Patience()
    waiting = in_thread(lambda: acquire_patiently(second.opening, Trying(budget_s=600, patience=patience), wait=True))
    until(lambda: "owner_waited_for" in second.events(), "it waits")
    patience.cancel()
    with pytest.raises(OwnedError):
        waiting.result(WAIT_S)
    assert str(world.stored.session["owner"]) == owner.opening.start.owner


def test_restart_in_place(world: World) -> None:
    """A start that finds its killed predecessor's marker, unlocked, takes over that lease without waiting for it."""
    killed = world.start()
    killed.die()
    again = world.begin()
    assert again.acquire().fence.token == killed.line.fence.token + 1


def test_restart_in_place_of_a_restore(world: World) -> None:
    """The same for one that was killed in the middle of its restore."""
    killed = world.start()
    write_restoring(killed.opening)
    killed.die()
    again = world.begin()
    assert again.acquire().fence.token == killed.line.fence.token + 1


def test_folder_in_use(world: World) -> None:
    """Two processes never run in one folder: the marker's lock tells, whatever the database says."""
    world.start()
    with pytest.raises(OwnedError, match="runs in the folder"):
        world.begin()


def test_copied_folder(world: World) -> None:
    """A copy of a folder is another place: its start does not take the lease of the one that still runs."""
    running = world.start("one")
    shutil.copytree(running.root, world.home / "two")
    with pytest.raises(OwnedError):
        world.begin("two").acquire()


def test_other_machine(world: World) -> None:
    """A folder that came from another machine, or from before a boot, gives no right to its owner's lease."""
    running = world.start()
    running.die()
    for name in ("host", "boot_id"):
        again = world.begin()
        marker = again.root / ".authsync.json"
        found = marker.read_text()
        value = getattr(running.opening.start, name)
        marker.write_text(found.replace(f'"{name}": "{value}"', f'"{name}": "another"'))
        with pytest.raises(OwnedError):
            again.acquire()
        marker.write_text(found)
        again.die()


def test_forced_start(world: World) -> None:
    """A forced start takes the session at once, and the owner before it is fenced off."""
    owner = world.start("one")
    forced = world.begin("two", force=True, scope="other")
    forced.acquire()
    db = owner.opening.db
    assert db.call(lambda c: leases.renew(c, db, owner.line.fence, ttl_s=TTL_S)) is NoRow.FENCED
    assert world.stored.session["scope"] == "other"
