"""One flush, decided: what goes, what waits, and what is kept first."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsync.core.clearing import Child
from authsync.core.flushplan import Absence, Before, FlushPlan, Note, NoteKind, Version, plan_flush
from authsync.core.identity import Identity, read_identity
from authsync.core.manifest import Manifest, content_entry, folder_of, is_creds
from authsync.core.reconcile import SessionState
from authsync.core.torn import StoredForm, parses

TORN = b'{"noiseKey": {"pri'
SOON_S = 0.1


def creds(key: str = "key-1", *, paired: bool = True, step: int = 0) -> bytes:
    """A creds.json of this identity; ``step`` makes versions of it differ."""
    fields: dict[str, object] = {"signedIdentityKey": {"public": key}, "nextPreKeyId": step}
    if paired:
        fields |= {"account": {"details": "x"}, "me": {"id": "5511987654321@s.whatsapp.net"}}
    return json.dumps(fields).encode()


def keys(count: int, folder: str = "") -> dict[str, bytes]:
    """So many files of a bot besides its creds.json."""
    return {f"{folder}pre-key-{number}.json": b'{"keyPair": %d}' % number for number in range(count)}


def bot(folder: str = "", key: str = "key-1", *, files: int = 9) -> dict[str, bytes]:
    """A paired bot in this folder, written like ``a/``."""
    return {f"{folder}creds.json": creds(key), **keys(files, folder)}


def identities_in(files: dict[str, bytes]) -> dict[str, Identity]:
    """Bot -> its identity."""
    return {
        folder_of(path): identity
        for path, content in files.items()
        if is_creds(path) and (identity := read_identity(content)) is not None
    }


@dataclass(kw_only=True)
class World:
    """A folder and a line, flushed by plans that are carried out to the letter."""

    stored: dict[str, bytes] = field(default_factory=dict)
    folder: dict[str, bytes] = field(default_factory=dict)
    child: Child = Child.ALIVE
    watching: bool = False
    signalled_at: float | None = None
    now: float = 100.0
    missing: dict[str, float] = field(default_factory=dict)
    cleared: frozenset[str] = frozenset()
    state: SessionState = SessionState.LIVE
    written_at: dict[str, float] = field(default_factory=dict)

    @classmethod
    def equal(cls, files: dict[str, bytes], *, child: Child = Child.ALIVE, watching: bool = False) -> World:
        """A folder that is stored as it is."""
        return cls(stored=dict(files), folder=dict(files), child=child, watching=watching)

    def write(self, path: str, content: bytes) -> None:
        """The bot writes a file."""
        self.folder[path] = content
        self.written_at[path] = self.now

    def delete(self, *paths: str) -> None:
        """The bot deletes files."""
        for path in paths:
            del self.folder[path]

    def look(self, path: str) -> Version | Absence:
        """What a flush sees at a path."""
        content = self.folder.get(path)
        if content is None:
            return Absence.MISSING
        old = self.stored.get(path)
        if old is None:
            form = StoredForm.NOTHING
        elif not old:
            form = StoredForm.EMPTY
        else:
            form = StoredForm.JSON if path.endswith(".json") and parses(old) else StoredForm.OPAQUE
        still_s = self.now - self.written_at.get(path, 0.0)
        return Version(content=content, entry=content_entry(content), still_s=still_s, stored=form)

    def plan(
        self,
        *,
        paths: set[str] | None = None,
        seen: dict[str, Version | Absence] | None = None,
        twins: frozenset[str] = frozenset(),
    ) -> FlushPlan:
        """Plan a flush of these paths (None: a full scan) and of what is missing, ``seen`` overriding the folder."""
        wanted = (self.stored.keys() | self.folder.keys() if paths is None else paths) | self.missing.keys()
        before = Before(
            line=Manifest({path: content_entry(content) for path, content in self.stored.items()}),
            identities=identities_in(self.stored),
            missing_since=self.missing,
            cleared=self.cleared,
            child=self.child,
            watching=self.watching,
            signalled_at=self.signalled_at,
        )
        return plan_flush(before, {path: self.look(path) for path in wanted} | (seen or {}), twins=twins, now=self.now)

    def flush(
        self,
        after_s: float = 0.0,
        *,
        paths: set[str] | None = None,
        seen: dict[str, Version | Absence] | None = None,
        twins: frozenset[str] = frozenset(),
    ) -> FlushPlan:
        """Plan a flush so much later, check what holds for every plan, and carry it out."""
        self.now += after_s
        plan = self.plan(paths=paths, seen=seen, twins=twins)
        after = {path: content for path, content in self.stored.items() if path not in plan.remove}
        after |= {path: version.content for path, version in plan.write.items()}
        check(self.stored, after, plan)
        self.stored = after
        self.missing = {path: since for path, since in plan.missing.items() if path in after}
        self.cleared = plan.cleared
        self.state = plan.state or self.state
        return plan


def check(before: dict[str, bytes], after: dict[str, bytes], plan: FlushPlan) -> None:
    """What holds for every plan."""
    assert plan.remove <= before.keys()
    assert not plan.remove & plan.write.keys()
    assert plan.delta.changed == {path: content_entry(version.content) for path, version in plan.write.items()}
    assert plan.delta.removed == plan.remove
    for path in before.keys() & after.keys():
        assert after[path] or not before[path], "an empty file replaces a good one"
        assert not path.endswith(".json") or not parses(before[path]) or parses(after[path]), "a torn file does"
    was, becomes = identities_in(before), identities_in(after)
    for name, identity in was.items():
        same = name in becomes and becomes[name].key_id == identity.key_id and becomes[name].paired
        assert same or not identity.paired or plan.snapshot is not None, f"{name!r} is lost without a snapshot"
    bots, left = Manifest(dict.fromkeys(before, content_entry(b""))), {folder_of(p) for p in after if is_creds(p)}
    for name in bots.bots - left:
        assert not bots.files_of(name) & after.keys(), f"half of {name!r} stays"


def notes(plan: FlushPlan) -> list[tuple[NoteKind, str]]:
    """What a plan tells."""
    return [(note.kind, note.about) for note in plan.notes]


def assert_nothing(plan: FlushPlan) -> None:
    """The plan changes nothing that is stored."""
    assert (plan.write, plan.remove, plan.snapshot, plan.state) == ({}, set(), None, None)


# What was written


def test_unchanged() -> None:
    """A folder that equals the line is not flushed, and nothing waits."""
    plan = World.equal(bot()).flush()
    assert_nothing(plan)
    assert (plan.look_again, plan.missing, plan.notes, plan.rescan) == ({}, {}, [], False)


def test_first_backup() -> None:
    """All of a new folder goes in one flush; its creds.json makes the session live."""
    world = World(folder=bot())
    plan = world.flush()
    assert world.stored == bot()
    assert plan.state is SessionState.LIVE
    assert plan.snapshot is None
    assert plan.identities == identities_in(bot())


def test_changed_and_new() -> None:
    """Only what differs goes, and without a creds.json the state stays."""
    world = World.equal(bot())
    world.write("pre-key-1.json", b'{"keyPair": 9}')
    world.write("session-1.json", b"{}")
    plan = world.flush()
    assert plan.write.keys() == {"pre-key-1.json", "session-1.json"}
    assert plan.state is None
    assert world.stored == world.folder


@pytest.mark.parametrize("content", [TORN, b""], ids=["half", "empty"])
@pytest.mark.parametrize("child", Child)
def test_torn(content: bytes, child: Child) -> None:
    """A torn file keeps its last good version, whatever became of the bot; the others go on, it is read again soon."""
    world = World.equal(bot(), child=child)
    world.write("creds.json", content)
    world.write("pre-key-1.json", b"{}")
    plan = world.flush()
    assert plan.write.keys() == {"pre-key-1.json"}
    assert plan.look_again == {"creds.json": world.now + SOON_S}
    assert notes(plan) == [(NoteKind.TORN, "creds.json")]
    world.write("creds.json", creds(step=1))
    assert world.flush(SOON_S).write.keys() == {"creds.json"}


def test_moving() -> None:
    """A file that changes while it is read is read again soon; it is neither torn nor missing, and the others go."""
    world = World.equal(bot())
    world.write("pre-key-1.json", b"{}")
    plan = world.flush(seen={"creds.json": Absence.MOVING})
    assert plan.write.keys() == {"pre-key-1.json"}
    assert plan.look_again == {"creds.json": world.now + SOON_S}
    assert not plan.missing
    assert not plan.notes


def test_unsynced() -> None:
    """Where a symlink, or a file that is too large, took the place of a stored one, the stored one stays."""
    world = World.equal(bot())
    for _ in range(3):
        plan = world.flush(60.0, seen={"creds.json": Absence.UNSYNCED, "pre-key-1.json": Absence.UNSYNCED})
        assert_nothing(plan)
        assert not plan.missing


def test_unsettled() -> None:
    """A new .json that is no JSON waits for 5 s of stillness without a warning, then it is taken as it is."""
    world = World.equal(bot())
    world.write("odd.json", TORN)
    plan = world.flush()
    assert_nothing(plan)
    assert plan.look_again == {"odd.json": world.now + SOON_S}
    assert not plan.notes
    assert not world.flush(4.9).write
    assert world.flush(0.1).write.keys() == {"odd.json"}


def test_unsettled_at_the_end() -> None:
    """A bot that ended by itself finishes no file any more: what it left is the file."""
    world = World.equal(bot(), child=Child.ENDED)
    world.write("odd.json", TORN)
    assert world.flush().write.keys() == {"odd.json"}


@pytest.mark.parametrize("child", [Child.ALIVE, Child.STOPPING, Child.SIGNALLED], ids=lambda child: str(child.name))
def test_unsettled_after_a_signal(child: Child) -> None:
    """A bot that a signal may have ended in the middle of a write left half a file: it is not taken."""
    world = World.equal(bot(), child=child)
    world.write("odd.json", TORN)
    assert not world.flush().write


# What is missing


def test_deletion() -> None:
    """A deletion is flushed after 1 s, counted from when it was first seen."""
    world = World.equal(bot())
    world.delete("pre-key-1.json")
    plan = world.flush()
    assert_nothing(plan)
    assert plan.look_again == {"pre-key-1.json": world.now + 1.0}
    assert_nothing(world.flush(0.5))
    plan = world.flush(0.5)
    assert plan.remove == {"pre-key-1.json"}
    assert (plan.snapshot, plan.notes, plan.missing) == (None, [], {})


def test_deleted_and_back() -> None:
    """A file that comes back within its second was never deleted; if it goes again, the second starts anew."""
    world = World.equal(bot())
    world.delete("pre-key-1.json")
    world.flush()
    world.write("pre-key-1.json", bot()["pre-key-1.json"])
    assert not world.flush(0.9).missing
    world.delete("pre-key-1.json")
    assert_nothing(world.flush(0.05))
    assert_nothing(world.flush(0.9))
    assert world.flush(0.2).remove == {"pre-key-1.json"}


def test_deletion_not_looked_at() -> None:
    """A flush of other paths keeps in mind what is missing, and since when."""
    world = World.equal(bot())
    world.delete("pre-key-1.json")
    since = world.now
    world.flush()
    plan = plan_flush(
        Before(
            line=Manifest({path: content_entry(content) for path, content in world.stored.items()}),
            identities={},
            missing_since=world.missing,
            cleared=frozenset(),
            child=Child.ALIVE,
            watching=False,
        ),
        {},
        now=since + 0.5,
    )
    assert plan.missing == {"pre-key-1.json": since}


def test_never_stored() -> None:
    """A file that was made and deleted between two flushes leaves nothing."""
    plan = World.equal(bot()).flush(paths={"gone.json"})
    assert_nothing(plan)
    assert not plan.missing
    assert not plan.look_again


def test_deletion_while_stopping() -> None:
    """While a signalled bot may still be wiping, no deletion is believed; what is gone when it is gone goes."""
    world = World.equal(bot(), child=Child.STOPPING)
    world.delete("pre-key-1.json")
    assert_nothing(world.flush())
    assert_nothing(world.flush(5.0))
    world.child = Child.SIGNALLED
    assert world.flush().remove == {"pre-key-1.json"}


# Wipes


def test_wipe_is_held() -> None:
    """While a wipe is held nothing of its bot is flushed, writes neither; another bot goes on."""
    world = World.equal(bot("a/") | bot("b/", "key-2"))
    world.delete("a/creds.json", *keys(5, "a/"))
    world.write("a/pre-key-8.json", b"{}")
    world.write("b/pre-key-8.json", b"{}")
    due_at = world.now + 2.0
    plan = world.flush()
    assert plan.write.keys() == {"b/pre-key-8.json"}
    assert not plan.remove
    assert plan.look_again == dict.fromkeys(["a/creds.json", "a/pre-key-8.json", *keys(5, "a/")], due_at)
    assert_nothing(world.flush(1.9))


def test_logout() -> None:
    """After 2 s without its creds.json a bot is cleared, snapshot first: all its rows go at once, remains included."""
    world = World.equal(bot())
    world.delete("creds.json", *keys(5))
    world.write("pre-key-8.json", b"{}")
    world.flush()
    plan = world.flush(2.0)
    assert plan.look_again == {}
    assert plan.snapshot == "cleared"
    assert plan.state is SessionState.CLEARED
    assert notes(plan) == [(NoteKind.CLEARED, "")]
    assert plan.remove == bot().keys()
    assert not plan.write
    assert plan.cleared == {""}
    assert world.stored == {}


def test_logout_of_one() -> None:
    """Where another bot is left the session stays live, and nothing of that bot goes."""
    world = World.equal(bot("a/") | bot("b/", "key-2"))
    world.delete("a/creds.json")
    world.flush()
    plan = world.flush(2.0)
    assert plan.state is None
    assert plan.snapshot == "cleared"
    assert world.stored == bot("b/", "key-2")


def test_logout_and_end() -> None:
    """The same where the bot ended by itself after its logout."""
    world = World.equal(bot(), child=Child.ENDED)
    world.delete(*bot())
    assert_nothing(world.flush())
    assert world.flush(2.0).cleared == {""}


def test_creds_replaced_slowly() -> None:
    """A creds.json beside which a twin lies is being rewritten, not gone: it is looked at again soon, for ever."""
    world = World.equal(bot())
    world.delete("creds.json")
    for _ in range(5):
        plan = world.flush(10.0, twins=frozenset({"creds.json"}))
        assert_nothing(plan)
        assert plan.look_again == {"creds.json": world.now + SOON_S}
        assert not plan.missing


def test_twin_and_a_quarter() -> None:
    """A creds.json that is being rewritten while a quarter of its bot goes, and no more, is no logout."""
    world = World.equal(bot(files=7))
    world.delete("creds.json", *keys(2))
    twins = frozenset({"creds.json"})
    assert_nothing(world.flush(twins=twins))
    plan = world.flush(1.0, twins=twins)
    assert plan.remove == set(keys(2))
    assert (plan.snapshot, plan.cleared) == (None, frozenset())


def test_creds_hold_their_own_time() -> None:
    """A bot's creds.json holds for its own 2 s, even where another file was deleted a little earlier."""
    world = World.equal(bot())
    world.delete("pre-key-1.json")
    world.flush()
    world.delete("creds.json")
    assert_nothing(world.flush(0.9))
    assert_nothing(world.flush(1.5))
    assert world.flush(0.5).cleared == {""}


def test_wipe_leaves_a_twin() -> None:
    """A wipe that leaves an old twin is a logout like any other: creds.json is still absent after 2 s."""
    world = World.equal(bot())
    world.delete(*bot())
    twins = frozenset({"creds.json"})
    world.flush(twins=twins)
    assert_nothing(world.flush(1.9, twins=twins))
    world.flush(0.2, twins=twins)
    world.flush(2.0, twins=twins)
    assert world.cleared == {""}
    assert world.stored == {}


@pytest.mark.parametrize("name", ["", "a"], ids=["root", "folder"])
def test_same_identity_again(name: str) -> None:
    """A mass deletion that brought back the same identity is followed after 2 s, with a snapshot."""
    folder = f"{name}/" if name else ""
    world = World.equal(bot(folder))
    world.delete(f"{folder}creds.json", *keys(5, folder))
    assert_nothing(world.flush())
    world.write(f"{folder}creds.json", creds(step=1))
    assert not world.flush(1.0).remove
    plan = world.flush(1.0)
    assert plan.snapshot is not None
    assert notes(plan) == [(NoteKind.MASS_DELETION, name)]
    assert plan.remove == set(keys(5, folder))
    assert world.stored == world.folder


def test_same_identity_works_on() -> None:
    """While the same credentials are there the bot works on: only its deletions are held, its changes go."""
    world = World.equal(bot())
    world.delete(*keys(5))
    world.write("creds.json", creds(step=1))
    world.write("session-1.json", b"{}")
    plan = world.flush()
    assert plan.write.keys() == {"creds.json", "session-1.json"}
    assert not plan.remove
    plan = world.flush(2.0)
    assert plan.snapshot is not None
    assert world.stored == world.folder


def test_new_identity() -> None:
    """A bot that logged out and pairs anew is replaced in one flush, snapshot first; until then the old one stays."""
    world = World.equal(bot())
    world.delete(*bot())
    world.flush()
    world.folder = bot(key="key-2", files=3)
    assert_nothing(world.flush(1.0))
    plan = world.flush(1.0)
    assert plan.snapshot is not None
    assert plan.state is SessionState.LIVE
    assert not plan.cleared
    assert (NoteKind.IDENTITY, "") in notes(plan)
    assert world.stored == world.folder


def test_creds_torn_at_the_end_of_a_hold() -> None:
    """A creds.json that is being written tells no identity: the hold goes on until it does."""
    world = World.equal(bot())
    world.delete(*bot())
    world.flush()
    world.write("creds.json", b"")
    plan = world.flush(2.0)
    assert_nothing(plan)
    assert "creds.json" in plan.look_again
    world.folder = bot(key="key-2", files=3)
    assert world.flush(SOON_S).snapshot is not None
    assert world.stored == world.folder


def test_creds_moving_at_the_end_of_a_hold() -> None:
    """The same for one that changes while it is read."""
    world = World.equal(bot())
    world.delete(*bot())
    world.flush()
    world.write("creds.json", creds("key-2"))
    assert_nothing(world.flush(2.0, seen={"creds.json": Absence.MOVING}))


@pytest.mark.parametrize("child", [Child.STOPPING, Child.SIGNALLED], ids=lambda child: str(child.name))
@pytest.mark.parametrize(
    "again", [None, creds("key-2", paired=False), b""], ids=["gone", "new identity", "empty creds"]
)
def test_wipe_after_a_signal(child: Child, again: bytes | None) -> None:
    """A wipe by a bot that somebody signalled is not followed: the last good revision stays whole, with a warning."""
    world = World.equal(bot())
    world.delete(*bot())
    world.flush()
    world.child = child
    world.write("pre-key-1.json", b"{}")
    if again is not None:
        world.write("creds.json", again)
    for _ in range(3):
        plan = world.flush(30.0)
        assert_nothing(plan)
        assert (NoteKind.WIPE_KEPT, "") in notes(plan)
        assert not plan.cleared
    assert world.stored == bot()


def test_deletions_after_a_signal() -> None:
    """A signalled bot that deletes most files and keeps its credentials: what it wrote goes, no deletion does."""
    world = World.equal(bot("a/"), child=Child.STOPPING)
    world.delete(*keys(5, "a/"))
    world.write("a/creds.json", creds(step=1))
    plan = world.flush()
    assert plan.write.keys() == {"a/creds.json"}
    assert not plan.remove
    assert notes(plan) == [(NoteKind.WIPE_KEPT, "a")]
    world.child = Child.SIGNALLED
    assert_nothing(world.flush(60.0))


@pytest.mark.parametrize(("before_s", "followed"), [(3.0, True), (0.6, True), (0.4, False), (-1.0, False)], ids=str)
def test_wipe_and_signal(before_s: float, *, followed: bool) -> None:
    """A logout is followed though a signal came within its 2 s; a wipe just before the signal was made on it."""
    world = World.equal(bot())
    signalled_at = world.now + before_s
    world.delete(*bot())
    world.flush()
    world.child, world.signalled_at = Child.SIGNALLED, signalled_at
    world.flush(1.0)
    assert world.stored == bot()
    world.flush(1.0)
    assert world.stored == ({} if followed else bot())


def test_watch_waits() -> None:
    """``watch`` cannot know whether the bot was signalled: a logout is followed after 60 s."""
    world = World.equal(bot(), watching=True)
    world.delete(*bot())
    world.flush()
    assert_nothing(world.flush(59.9))
    assert world.flush(0.1).cleared == {""}


def test_watch_new_identity() -> None:
    """``watch`` follows at once when new credentials appear."""
    world = World.equal(bot(), watching=True)
    world.delete(*bot())
    world.flush()
    world.folder = bot(key="key-2", files=3)
    world.flush(10.0)
    assert world.stored == world.folder


def test_stray_files() -> None:
    """Files of no bot are deleted as such: a mass deletion of them clears nobody."""
    stray = {f"{number}.json": b"{}" for number in range(6)}
    world = World.equal(bot("a/") | stray)
    world.delete(*stray)
    assert_nothing(world.flush())
    assert_nothing(world.flush(1.5))
    plan = world.flush(0.5)
    assert plan.remove == stray.keys()
    assert not plan.cleared
    assert world.stored == bot("a/")


def test_few_stray_files() -> None:
    """A lock file beside the bots comes and goes: its deletion is an ordinary one, and costs no snapshot."""
    world = World.equal(bot("a/") | {"lock": b"x"})
    world.delete("lock")
    assert_nothing(world.flush())
    plan = world.flush(1.0)
    assert plan.remove == {"lock"}
    assert (plan.snapshot, plan.notes) == (None, [])


# What is left of a cleared bot


def cleared_world() -> World:
    """A bot that logged out and left most of its files."""
    world = World.equal(bot())
    world.delete("creds.json")
    world.flush()
    world.flush(2.0)
    assert world.stored == {}
    return world


def test_remains() -> None:
    """What is left of a cleared bot is not stored, written anew or not, as long as it has no creds.json."""
    world = cleared_world()
    world.write("pre-key-1.json", b"{}")
    world.write("session-1.json", b"{}")
    plan = world.flush(60.0)
    assert_nothing(plan)
    assert not plan.look_again
    assert plan.cleared == {""}


def test_remains_and_torn_creds() -> None:
    """A creds.json that is half written brings nothing back yet."""
    world = cleared_world()
    world.write("creds.json", TORN)
    world.write("pre-key-1.json", b"{}")
    plan = world.flush()
    assert_nothing(plan)
    assert plan.cleared == {""}


def test_back() -> None:
    """With a creds.json the bot is back: it is stored, live, and the whole folder is compared."""
    world = cleared_world()
    world.write("creds.json", creds("key-2"))
    plan = world.flush(paths={"creds.json"})
    assert plan.write.keys() == {"creds.json"}
    assert plan.state is SessionState.LIVE
    assert plan.cleared == frozenset()
    assert plan.rescan
    world.flush()
    assert world.stored == world.folder


# Several bots, one in another


def test_nested_bot_outlives() -> None:
    """The logout of the bot in the root is not that of a bot below it, which is stored as before and ever after."""
    inner = bot("a/", "key-2")
    world = World.equal(bot() | inner)
    world.delete("creds.json")
    world.flush()
    world.flush(2.0)
    assert world.stored == inner
    world.write("a/creds.json", creds("key-2", step=1))
    world.write("a/session-1.json", b"{}")
    world.flush()
    assert world.stored == inner | {"a/creds.json": creds("key-2", step=1), "a/session-1.json": b"{}"}


def test_new_bot_below_a_cleared_one() -> None:
    """A bot that pairs below a cleared one is stored, whole."""
    world = cleared_world()
    new = bot("b/", "key-3")
    world.folder |= new
    plan = world.flush()
    assert world.stored == new
    assert plan.state is SessionState.LIVE
    world.write("b/session-1.json", b"{}")
    world.flush()
    assert "b/session-1.json" in world.stored
    assert "pre-key-1.json" not in world.stored


def test_new_bot_below_a_held_one() -> None:
    """A wipe that is held holds no bot that pairs below meanwhile, and its end loses nothing of that one."""
    world = World.equal(bot())
    world.delete("creds.json")
    world.flush()
    new = bot("b/", "key-3")
    world.folder |= new
    world.flush(1.0)
    world.flush(1.0, paths={"creds.json"})
    assert world.stored == new


def test_outer_wipe_counts_its_own() -> None:
    """Over a quarter is counted per bot: many files of a bot below do not hide a wipe of the one above."""
    world = World.equal(bot(files=3) | bot("a/", "key-2", files=99))
    world.delete("pre-key-1.json", "pre-key-2.json")
    assert_nothing(world.flush())
    assert_nothing(world.flush(1.5))
    assert world.flush(0.5).snapshot is not None


# Identities


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(creds("key-2"), id="another, paired"),
        pytest.param(creds("key-2", paired=False), id="another, unpaired"),
        pytest.param(creds(paired=False), id="the same, unpaired"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
    ],
)
def test_identity_replaced(content: bytes) -> None:
    """Whatever replaces a paired identity goes after a snapshot, and with a warning."""
    world = World.equal(bot())
    world.write("creds.json", content)
    plan = world.flush()
    assert plan.write.keys() == {"creds.json"}
    assert plan.snapshot == "identity"
    assert notes(plan) == [(NoteKind.IDENTITY, "")]


def test_pairing() -> None:
    """A pairing is told, per bot; it costs no snapshot first."""
    world = World.equal({"a/creds.json": creds(paired=False), "b/creds.json": creds("key-2")})
    world.write("a/creds.json", creds())
    world.write("b/creds.json", creds("key-2", step=1))
    plan = world.flush()
    assert notes(plan) == [(NoteKind.PAIRED, "a")]
    assert plan.snapshot is None
    assert plan.identities.keys() == {"a", "b"}


def test_unpaired_replaced() -> None:
    """An identity that was never paired may be replaced in silence."""
    world = World.equal({"creds.json": creds(paired=False)})
    world.write("creds.json", creds("key-2", paired=False))
    plan = world.flush()
    assert (plan.snapshot, plan.notes) == (None, [])


def test_held_identity_is_not_told() -> None:
    """A pairing that is held is told when it is flushed, once."""
    world = World.equal(bot())
    world.delete(*keys(9))
    world.write("creds.json", creds("key-2"))
    plan = world.flush()
    assert (plan.notes, plan.identities) == ([], {})
    assert notes(world.flush(2.0)).count((NoteKind.IDENTITY, "")) == 1


def test_longest_kept_reason() -> None:
    """Where one bot is cleared and another changes its identity, the one snapshot is kept as long as either needs."""
    world = World.equal(bot("a/") | bot("b/", "key-2"))
    world.delete("a/creds.json")
    world.flush()
    world.now += 2.0
    world.write("b/creds.json", creds("key-3"))
    plan = world.flush()
    assert plan.snapshot == "cleared"
    assert set(notes(plan)) == {(NoteKind.CLEARED, "a"), (NoteKind.IDENTITY, "b")}


# Folders and files in each other's place


def test_folder_for_file() -> None:
    """Where a folder took a file's place the old row goes in the same flush as its files come."""
    world = World.equal(bot() | {"x": b"old"})
    world.delete("x")
    world.write("x/y/1", b"new")
    plan = world.flush()
    assert plan.remove == {"x"}
    assert plan.write.keys() == {"x/y/1"}
    assert world.stored == world.folder
    assert not plan.missing
    assert (plan.snapshot, plan.notes) == (None, [])


def test_file_for_folder() -> None:
    """Where a file took a folder's place all rows below go in the same flush."""
    world = World.equal(bot() | {"x/1": b"old", "x/y/2": b"old", "xy": b"stays"})
    world.delete("x/1", "x/y/2")
    world.write("x", b"new")
    plan = world.flush()
    assert plan.remove == {"x/1", "x/y/2"}
    assert world.stored == world.folder
    assert not plan.missing


def test_torn_file_for_folder() -> None:
    """A file in a folder's place that is not whole yet displaces nothing yet."""
    world = World.equal(bot() | {"x.json/1": b"old"})
    world.delete("x.json/1")
    world.write("x.json", TORN)
    assert_nothing(world.flush())


@pytest.mark.parametrize("child", [Child.ALIVE, Child.SIGNALLED], ids=["held", "kept"])
def test_swap_during_a_wipe(child: Child) -> None:
    """Nothing of a bot whose wipe is held, or not followed, goes: not what a folder displaced either."""
    world = World.equal(bot() | {"x": b"old"}, child=child)
    world.delete("creds.json", "x")
    world.write("x/1", b"new")
    assert_nothing(world.flush())


def test_file_for_a_bot() -> None:
    """A file in the place of a bot's folder is that bot's logout: a snapshot comes first."""
    world = World.equal(bot("a/") | bot("b/", "key-2"))
    world.delete(*bot("a/"))
    world.write("a", b"new")
    told = {note for _ in range(4) for note in world.flush(1.0).notes}
    assert told
    assert world.stored == bot("b/", "key-2") | {"a": b"new"}


# Any history

BOTS = ("a/", "b/")
NAMES = ("creds.json", *keys(6))
any_path = st.one_of(
    st.builds("".join, st.tuples(st.sampled_from(BOTS), st.sampled_from(NAMES[1:]))), st.sampled_from(["n.json", "m"])
)
any_creds = st.builds(creds, st.sampled_from(["key-1", "key-2"]), paired=st.booleans(), step=st.integers(0, 2))
acts = st.one_of(
    st.tuples(st.just("write"), any_path, st.sampled_from([b"{}", b'{"a": 1}', TORN, b""])),
    st.tuples(st.just("write"), st.sampled_from([f"{name}creds.json" for name in BOTS]), any_creds | st.just(b"")),
    st.tuples(st.just("delete"), any_path | st.sampled_from([f"{name}creds.json" for name in BOTS]), st.just(b"")),
    st.tuples(st.just("wipe"), st.sampled_from(BOTS), st.just(b"")),
)
pauses = st.sampled_from([0.0, 0.05, 0.5, 1.1, 2.1, 7.0])


@dataclass(kw_only=True)
class Driven(World):
    """A world whose flushes look at what changed, at second looks that are due, and at all of it when told to."""

    touched: set[str] = field(default_factory=set)
    looks: dict[str, float] = field(default_factory=dict)
    rescan: bool = False
    was_bot: set[str] = field(default_factory=set)

    def act(self, kind: str, path: str, content: bytes) -> None:
        """The bot does something."""
        gone = [name for name in self.folder if name.startswith(path)] if kind == "wipe" else [path]
        for name in gone:
            self.touched.add(name)
            self.folder.pop(name, None)
        if kind == "write":
            self.write(path, content)

    def beat(self) -> None:
        """One flush."""
        due = {path for path, at in self.looks.items() if at <= self.now}
        paths = None if self.rescan else self.touched | due
        self.looks = {path: at for path, at in self.looks.items() if path not in due | self.touched}
        self.touched = set()
        plan = self.flush(paths=paths)
        self.looks |= plan.look_again
        self.rescan = plan.rescan
        self.was_bot |= {folder_of(path) for path in self.stored if is_creds(path)}


@given(st.lists(st.tuples(acts, pauses, st.booleans()), max_size=25))
def test_any_history(history: list[tuple[tuple[str, str, bytes], float, bool]]) -> None:
    """Whatever a bot does, what is stored is in the end what lies in the folder, by events and second looks alone.

    But for what is torn, and for bots that logged out, of which nothing is left.
    """
    world = Driven()
    for act, pause_s, flush in history:
        world.act(*act)
        world.now += pause_s
        if flush:
            world.beat()
    for _ in range(100):
        world.now += 0.1
        world.beat()
    for name in ("a", "b"):
        stored, found = (
            {path: content for path, content in files.items() if path.startswith(f"{name}/")}
            for files in (world.stored, world.folder)
        )
        identity = found.get(f"{name}/creds.json")
        if identity == b"":
            continue  # torn for ever: the last good version stays, the rest may go or wait
        if identity is None and name in world.was_bot:
            assert stored == {}
            continue
        assert stored.keys() <= found.keys()
        for path, content in found.items():
            assert stored.get(path) == content or not parses(content)
    assert world.stored.get("n.json") == world.folder.get("n.json") or not parses(world.folder["n.json"])
    assert world.stored.get("m") == world.folder.get("m") or not world.folder["m"]
    live = any(is_creds(path) for path in world.stored)
    assert (world.state is SessionState.LIVE) == (live or not world.was_bot)


def test_secret_content() -> None:
    """The content of a file is in no repr of a plan, which ends in logs."""
    world = World(folder={"creds.json": creds("secret")})
    assert "secret" not in repr(world.flush())


def test_noted_once() -> None:
    """The same thing is told once in a plan."""
    plan = FlushPlan()
    plan.note(NoteKind.TORN, "x")
    plan.note(NoteKind.TORN, "x")
    plan.note(NoteKind.TORN, "y")
    assert plan.notes == [Note(kind=NoteKind.TORN, about="x"), Note(kind=NoteKind.TORN, about="y")]
