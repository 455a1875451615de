"""What missing files mean: each row of the table in ``core/clearing``, at its boundary times."""

from __future__ import annotations

import pytest

from authsync.core.clearing import Action, Child, Creds, Decision, Removal, decide, is_wipe

T = 100.0
"""When the files were first seen missing."""

ALIVE, ENDED, STOPPING, SIGNALLED = Child.ALIVE, Child.ENDED, Child.STOPPING, Child.SIGNALLED
KEYS = frozenset({"pre-key-1.json", "pre-key-2.json"})
CREDS = frozenset({"creds.json"})


def gone(paths: frozenset[str], *, of: int, creds: Creds = Creds.SAME, since: float = T) -> Removal:
    """Files missing at the same moment, of so many that are stored."""
    return Removal(missing=dict.fromkeys(paths, since), stored_count=of, creds=creds)


FEW = gone(KEYS, of=100)
WIPE = gone(KEYS, of=3)
LOGOUT = gone(KEYS | CREDS, of=100, creds=Creds.GONE)
REPAIRED = gone(KEYS, of=3, creds=Creds.NEW)
STRAY = gone(frozenset("abcde"), of=5, creds=Creds.NONE)
FEW_STRAY = gone(KEYS, of=2, creds=Creds.NONE)
UNCLEAR = gone(KEYS, of=3, creds=Creds.UNCLEAR)

NOTHING = Decision(action=Action.DELETE)
DELETE_NOTHING_YET = Decision(action=Action.DELETE, look_at=T + 1.0)
DELETE_KEYS = Decision(action=Action.DELETE, paths=KEYS)
HOLD = Decision(action=Action.HOLD, look_at=T + 2.0)
HOLD_LONG = Decision(action=Action.HOLD, look_at=T + 60.0)
KEEP = Decision(action=Action.KEEP)
CLEAR = Decision(action=Action.CLEAR, snapshot=True)
DELETE_AFTER_SNAPSHOT = Decision(action=Action.DELETE, paths=KEYS, snapshot=True)
DELETE_STRAY = Decision(action=Action.DELETE, paths=frozenset("abcde"), snapshot=True)
REPLACE = Decision(action=Action.REPLACE, paths=KEYS, snapshot=True)


def hold_until(after_s: float) -> Decision:
    """Nothing of the bot is flushed until then."""
    return Decision(action=Action.HOLD, look_at=pytest.approx(T + after_s))  # type: ignore[arg-type]  # equals floats


@pytest.mark.parametrize(
    ("missing", "of", "creds", "wipe"),
    [
        pytest.param(1, 4, Creds.SAME, False, id="a quarter"),
        pytest.param(2, 7, Creds.SAME, True, id="over a quarter"),
        pytest.param(25, 100, Creds.SAME, False, id="a quarter of many"),
        pytest.param(26, 100, Creds.SAME, True, id="over a quarter of many"),
        pytest.param(1, 1000, Creds.GONE, True, id="creds alone"),
        pytest.param(1, 1000, Creds.NEW, False, id="another identity, few files"),
        pytest.param(1, 4, Creds.NONE, False, id="a quarter of no bot"),
        pytest.param(4, 4, Creds.NONE, False, id="all of no bot, but few"),
        pytest.param(5, 5, Creds.NONE, True, id="all of no bot"),
        pytest.param(2, 7, Creds.UNCLEAR, True, id="over a quarter, creds being written"),
    ],
)
def test_wipe(missing: int, of: int, creds: Creds, *, wipe: bool) -> None:
    """A bot is wiped when its creds.json, or over a quarter of its files, is gone."""
    paths = frozenset(str(number) for number in range(missing))
    assert is_wipe(gone(paths, of=of, creds=creds)) is wipe


@pytest.mark.parametrize(
    ("removal", "child", "watching", "after_s", "expected"),
    [
        pytest.param(FEW, ALIVE, False, 0.0, DELETE_NOTHING_YET, id="few: at once"),
        pytest.param(FEW, ALIVE, False, 0.999, DELETE_NOTHING_YET, id="few: before 1 s"),
        pytest.param(FEW, ALIVE, False, 1.0, DELETE_KEYS, id="few: at 1 s"),
        pytest.param(FEW, ALIVE, True, 1.0, DELETE_KEYS, id="few: at 1 s, watch"),
        pytest.param(FEW, ENDED, False, 0.0, DELETE_KEYS, id="few: nobody is left to put them back"),
        pytest.param(FEW, SIGNALLED, False, 0.0, DELETE_KEYS, id="few: the same after a signal"),
        pytest.param(FEW, STOPPING, False, 0.0, NOTHING, id="few: maybe the first of a wipe"),
        pytest.param(FEW, STOPPING, False, 60.0, NOTHING, id="few: maybe the first of a wipe, for long"),
        pytest.param(WIPE, ALIVE, False, 0.0, HOLD, id="wipe, same identity: at once"),
        pytest.param(WIPE, ALIVE, False, 1.999, HOLD, id="wipe, same identity: before 2 s"),
        pytest.param(WIPE, ALIVE, False, 2.0, DELETE_AFTER_SNAPSHOT, id="wipe, same identity: at 2 s"),
        pytest.param(WIPE, ENDED, False, 1.999, HOLD, id="wipe, same identity, ended: before 2 s"),
        pytest.param(WIPE, ENDED, False, 2.0, DELETE_AFTER_SNAPSHOT, id="wipe, same identity, ended: at 2 s"),
        pytest.param(WIPE, SIGNALLED, False, 0.0, KEEP, id="wipe, same identity, signalled"),
        pytest.param(WIPE, SIGNALLED, False, 3600.0, KEEP, id="wipe, same identity, signalled, for ever"),
        pytest.param(LOGOUT, ALIVE, False, 0.0, HOLD, id="logout: at once"),
        pytest.param(LOGOUT, ALIVE, False, 1.999, HOLD, id="logout: before 2 s"),
        pytest.param(LOGOUT, ALIVE, False, 2.0, CLEAR, id="logout: at 2 s"),
        pytest.param(LOGOUT, ENDED, False, 1.999, HOLD, id="logout, ended: before 2 s"),
        pytest.param(LOGOUT, ENDED, False, 2.0, CLEAR, id="logout, ended: at 2 s"),
        pytest.param(LOGOUT, SIGNALLED, False, 0.0, KEEP, id="logout, signalled"),
        pytest.param(LOGOUT, SIGNALLED, False, 3600.0, KEEP, id="logout, signalled, for ever"),
        pytest.param(LOGOUT, STOPPING, False, 60.0, KEEP, id="logout, being stopped"),
        pytest.param(WIPE, STOPPING, False, 60.0, KEEP, id="wipe, same identity, being stopped"),
        pytest.param(REPAIRED, STOPPING, False, 60.0, KEEP, id="new identity, being stopped"),
        pytest.param(LOGOUT, ALIVE, True, 1.999, HOLD, id="logout, watch: before 2 s"),
        pytest.param(LOGOUT, ALIVE, True, 2.0, HOLD_LONG, id="logout, watch: at 2 s"),
        pytest.param(LOGOUT, ALIVE, True, 59.999, HOLD_LONG, id="logout, watch: before 60 s"),
        pytest.param(LOGOUT, ALIVE, True, 60.0, CLEAR, id="logout, watch: at 60 s"),
        pytest.param(LOGOUT, SIGNALLED, True, 60.0, KEEP, id="logout, watch, signalled"),
        pytest.param(REPAIRED, ALIVE, False, 1.999, HOLD, id="new identity: before 2 s"),
        pytest.param(REPAIRED, ALIVE, False, 2.0, REPLACE, id="new identity: at 2 s"),
        pytest.param(REPAIRED, ENDED, False, 2.0, REPLACE, id="new identity, ended: at 2 s"),
        pytest.param(REPAIRED, ALIVE, True, 2.0, REPLACE, id="new identity, watch: does not wait 60 s"),
        pytest.param(REPAIRED, SIGNALLED, False, 2.0, KEEP, id="new identity, signalled"),
        pytest.param(STRAY, ALIVE, False, 1.999, HOLD, id="no bot's files: before 2 s"),
        pytest.param(STRAY, ALIVE, False, 2.0, DELETE_STRAY, id="no bot's files: at 2 s"),
        pytest.param(FEW_STRAY, ALIVE, False, 1.0, DELETE_KEYS, id="few of no bot's files: at 1 s"),
        pytest.param(UNCLEAR, ALIVE, False, 1.999, HOLD, id="creds being written: before 2 s"),
        pytest.param(UNCLEAR, ALIVE, False, 2.0, hold_until(2.1), id="creds being written: at 2 s"),
        pytest.param(UNCLEAR, ALIVE, False, 30.0, hold_until(30.1), id="creds being written: for long"),
        pytest.param(UNCLEAR, STOPPING, False, 2.0, KEEP, id="creds being written, being stopped"),
        pytest.param(UNCLEAR, SIGNALLED, False, 2.0, KEEP, id="creds being written, signalled"),
    ],
)
def test_decision(removal: Removal, child: Child, *, watching: bool, after_s: float, expected: Decision) -> None:
    """What happens to missing files, by what is missing, what became of the bot, and for how long they are gone."""
    assert decide(removal, child=child, watching=watching, now=T + after_s) == expected


@pytest.mark.parametrize("child", [STOPPING, SIGNALLED], ids=lambda child: str(child.name))
@pytest.mark.parametrize(
    ("removal", "signal_after_s", "after_s", "expected"),
    [
        pytest.param(LOGOUT, 0.501, 1.999, HOLD, id="logout, then a signal: before 2 s"),
        pytest.param(LOGOUT, 0.501, 2.0, CLEAR, id="logout, then a signal: at 2 s"),
        pytest.param(LOGOUT, 30.0, 60.0, CLEAR, id="logout, much later a signal"),
        pytest.param(WIPE, 0.501, 2.0, DELETE_AFTER_SNAPSHOT, id="wipe, same identity, then a signal"),
        pytest.param(REPAIRED, 0.501, 2.0, REPLACE, id="new identity, then a signal"),
        pytest.param(LOGOUT, 0.499, 2.0, KEEP, id="logout, and a signal at once"),
        pytest.param(LOGOUT, -1.0, 2.0, KEEP, id="a signal, then a wipe"),
    ],
)
def test_before_a_signal(
    removal: Removal, child: Child, signal_after_s: float, after_s: float, expected: Decision
) -> None:
    """What a bot did before anybody signalled it counts; but some platforms signal the bot just before us."""
    signalled_at = T + signal_after_s
    assert decide(removal, child=child, watching=False, now=T + after_s, signalled_at=signalled_at) == expected


def test_each_in_its_time() -> None:
    """Of ordinary deletions each is flushed after its own second; the next look is at the earliest of the others."""
    removal = Removal(missing={"a": T, "b": T + 0.4, "c": T + 0.7}, stored_count=100, creds=Creds.SAME)
    assert decide(removal, child=ALIVE, watching=False, now=T + 1.0) == Decision(
        action=Action.DELETE, paths=frozenset({"a"}), look_at=T + 1.4
    )
    assert decide(removal, child=ALIVE, watching=False, now=T + 1.5) == Decision(
        action=Action.DELETE, paths=frozenset({"a", "b"}), look_at=T + 1.7
    )


def test_hold_of_creds() -> None:
    """A creds.json that went later than other files holds for its own 2 s."""
    removal = Removal(
        missing={"a": T, "creds.json": T + 1.5}, stored_count=100, creds=Creds.GONE, creds_gone_since=T + 1.5
    )
    assert decide(removal, child=ALIVE, watching=False, now=T + 3.4) == hold_until(3.5)
    assert decide(removal, child=ALIVE, watching=False, now=T + 3.5) == CLEAR


def test_hold_of_a_growing_wipe() -> None:
    """Removing thousands of files takes a while: the hold runs from the first of them, and none goes before its end."""
    removal = Removal(missing={"a": T, "b": T + 1.5}, stored_count=2, creds=Creds.SAME)
    assert decide(removal, child=ALIVE, watching=False, now=T + 1.9).action is Action.HOLD
    assert decide(removal, child=ALIVE, watching=False, now=T + 2.0).paths == {"a", "b"}
