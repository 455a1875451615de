"""When a flush is due: a quiet period, a maximum delay, full scans, second looks; and no path is ever lost."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsync.core.debounce import Batch, FlushSchedule

T = 1000.0
QUIET_S, MAX_DELAY_S, INTERVAL_S = 0.05, 0.25, 120.0


@pytest.fixture
def schedule() -> FlushSchedule:
    """A schedule with the default periods, made at ``T``."""
    return FlushSchedule(quiet_s=QUIET_S, max_delay_s=MAX_DELAY_S, interval_s=INTERVAL_S, now=T)


def batch(*paths: str, scan: bool = False) -> Batch:
    """A batch of these paths."""
    return Batch(paths=frozenset(paths), scan=scan)


def test_idle(schedule: FlushSchedule) -> None:
    """With nothing dirty the next flush is the full scan at the interval."""
    assert len(schedule.waiting) == 0
    assert schedule.due_at == T + INTERVAL_S


def test_quiet(schedule: FlushSchedule) -> None:
    """A path is due once nothing changed for the quiet period."""
    schedule.touch(["a"], T + 1)
    assert schedule.due_at == pytest.approx(T + 1 + QUIET_S)
    schedule.touch(["a"], T + 1.02)
    assert schedule.due_at == pytest.approx(T + 1.02 + QUIET_S)
    assert schedule.take(T + 2) == batch("a")
    assert schedule.due_at == T + INTERVAL_S


def test_constant_writer(schedule: FlushSchedule) -> None:
    """A bot that never pauses is flushed every maximum delay, counted from the first change after the last flush."""
    flushes, now = [], T
    for step in range(1, 501):
        now = T + step * 0.02
        if schedule.due_at <= now:
            flushes.append(schedule.due_at)
            assert schedule.take(now).paths
        schedule.touch([f"pre-key-{step}"], now)
    gaps = [later - earlier for earlier, later in pairwise(flushes)]
    assert len(flushes) == pytest.approx(10.0 / MAX_DELAY_S, abs=4)
    assert max(gaps) < MAX_DELAY_S + 0.03


def test_nothing_touched(schedule: FlushSchedule) -> None:
    """No paths are no change: they neither start a delay nor prolong one."""
    schedule.touch([], T)
    assert schedule.due_at == T + INTERVAL_S
    schedule.touch(["a"], T + 1)
    schedule.touch([], T + 1.04)
    schedule.give_back(batch(), T + 1.04)
    assert schedule.due_at == pytest.approx(T + 1 + QUIET_S)


def test_waiting(schedule: FlushSchedule) -> None:
    """The waiting paths are those that changed and those that wait for a second look."""
    schedule.touch(["a", "a", "b"], T)
    schedule.touch(["a"], T + 1)
    schedule.look_again({"a": T + 2, "c": T + 3})
    assert len(schedule.waiting) == 3


def test_interval(schedule: FlushSchedule) -> None:
    """The full scan comes with whatever flush is next after the interval, and then an interval later."""
    assert schedule.take(T + INTERVAL_S - 1) == batch()
    schedule.touch(["a"], T + INTERVAL_S)
    assert schedule.take(T + INTERVAL_S + 0.1) == batch("a", scan=True)
    assert schedule.due_at == T + INTERVAL_S + 0.1 + INTERVAL_S


def test_scan_soon(schedule: FlushSchedule) -> None:
    """Where events cannot tell all, the scan comes after the quiet period."""
    schedule.scan_soon(T + 1)
    assert schedule.due_at == pytest.approx(T + 1 + QUIET_S)


def test_scan_by(schedule: FlushSchedule) -> None:
    """A scan can be asked for earlier, never put off."""
    schedule.scan_by(T + 5)
    schedule.scan_by(T + 50)
    assert schedule.due_at == T + 5
    assert schedule.take(T + 5) == batch(scan=True)
    schedule.scan_by(T + 500)
    assert schedule.due_at == T + 5 + INTERVAL_S


def test_look_again(schedule: FlushSchedule) -> None:
    """A second look comes at its time though nothing changed, and only once."""
    schedule.look_again({"a": T + 0.1, "b": T + 2})
    assert schedule.due_at == T + 0.1
    assert schedule.take(T + 0.1) == batch("a")
    assert schedule.due_at == T + 2
    assert schedule.take(T + 2) == batch("b")
    assert schedule.due_at == T + INTERVAL_S


def test_look_moved(schedule: FlushSchedule) -> None:
    """The last time given for a second look is the one that counts."""
    schedule.look_again({"a": T + 0.1})
    schedule.look_again({"a": T + 2})
    assert schedule.due_at == T + 2


def test_change_before_a_look(schedule: FlushSchedule) -> None:
    """A path that changes while it waits for a second look goes with the change, and is not looked at twice."""
    schedule.look_again({"a": T + 2})
    schedule.touch(["a"], T)
    assert schedule.take(T + 1) == batch("a")
    assert len(schedule.waiting) == 0


def test_early_take(schedule: FlushSchedule) -> None:
    """A flush takes all that changed, but a second look only when its time has come, or when it is the last flush."""
    schedule.touch(["a"], T)
    schedule.look_again({"b": T + 9})
    assert schedule.take(T) == batch("a")
    assert schedule.take(T, everything=True) == batch("b")
    assert len(schedule.waiting) == 0


def test_give_back(schedule: FlushSchedule) -> None:
    """What could not be stored waits again, its scan too."""
    schedule.touch(["a"], T)
    schedule.scan_by(T)
    taken = schedule.take(T + 1)
    schedule.touch(["b"], T + 1.5)
    schedule.give_back(taken, T + 2)
    assert schedule.due_at <= T + 2 + QUIET_S
    assert schedule.take(T + 2.1) == batch("a", "b", scan=True)


def test_hold_off(schedule: FlushSchedule) -> None:
    """While the database is away nothing is due; the changes gather, and go together afterwards."""
    schedule.touch(["a"], T)
    schedule.hold_off(T + 30)
    schedule.touch(["b"], T + 10)
    assert schedule.due_at == T + 30
    assert schedule.take(T + 30) == batch("a", "b")
    schedule.touch(["c"], T + 31)
    assert schedule.due_at == pytest.approx(T + 31 + QUIET_S)


def test_never_infinite(schedule: FlushSchedule) -> None:
    """Whatever happened, some flush is due: the scan comes round."""
    schedule.take(T, everything=True)
    assert schedule.due_at < inf


names = st.sampled_from(["a", "b", "c", "d"])
steps = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.one_of(
            st.tuples(st.just("touch"), st.lists(names, max_size=3)),
            st.tuples(st.just("look"), st.dictionaries(names, st.floats(-1, 3), max_size=2)),
            st.tuples(st.just("hold"), st.floats(0, 2)),
            st.tuples(st.just("scan"), st.floats(0, 3)),
            st.tuples(st.sampled_from(["store", "fail", "wait"]), st.none()),
        ),
    ),
    max_size=40,
)


@given(steps)
def test_nothing_lost(history: list[tuple[float, tuple[str, object]]]) -> None:
    """No touched path is ever lost, failed flushes included; none waits longer than the maximum delay or a hold-off."""
    schedule = FlushSchedule(quiet_s=QUIET_S, max_delay_s=MAX_DELAY_S, interval_s=INTERVAL_S, now=0.0)
    now, held_until = 0.0, -inf
    dirty: dict[str, float] = {}  # path -> when it was first touched
    looks: dict[str, float] = {}
    for delay_s, (kind, what) in history:
        now += delay_s
        if kind == "touch":
            assert isinstance(what, list)
            schedule.touch(what, now)
            dirty |= {path: now for path in what if path not in dirty}
        elif kind == "look":
            assert isinstance(what, dict)
            times = {path: now + after_s for path, after_s in what.items()}
            schedule.look_again(times)
            looks |= times
        elif kind == "hold":
            assert isinstance(what, float)
            held_until = now + what
            schedule.hold_off(held_until)
        elif kind == "scan":
            assert isinstance(what, float)
            schedule.scan_by(now + what)
        else:
            now = max(now, schedule.due_at) if kind == "wait" else now
            taken = schedule.take(now)
            due_looks = {path for path, at in looks.items() if at <= now}
            assert taken.paths == dirty.keys() | due_looks
            looks = {path: at for path, at in looks.items() if path not in taken.paths}
            dirty = {}
            if kind == "fail":
                schedule.give_back(taken, now)
                dirty = dict.fromkeys(taken.paths, now)
                assert not taken.scan or schedule.due_at <= max(now, held_until)
        assert len(schedule.waiting) == len(dirty.keys() | looks.keys())
        wanted = [at + MAX_DELAY_S for at in dirty.values()] + list(looks.values())
        assert held_until <= schedule.due_at <= max(held_until, min(wanted, default=inf)) + 1e-6
    assert schedule.take(now, everything=True).paths == dirty.keys() | looks.keys()
