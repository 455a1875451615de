"""Which snapshots are kept: explicit cases, and brute force over random histories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsync.core.retention import KeepPolicy, Snapshot, longer_kept, parse_keep, to_forget

NOW = datetime(2026, 11, 18, 12, 30, tzinfo=UTC)
NOTHING = KeepPolicy(last=0, periods=())
PINNED = ("cleared", "identity", "diverged", "rollback", "manual")
OTHERS = ("start", "paired", "hourly")


def taken(*ages: timedelta, reason: str = "hourly", paired: bool = False) -> list[Snapshot]:
    """Snapshots of these ages, numbered from 1 on."""
    return [
        Snapshot(number=number, taken_at=NOW - age, reason=reason, paired=paired)
        for number, age in enumerate(ages, start=1)
    ]


def kept(snapshots: list[Snapshot], policy: KeepPolicy) -> list[int]:
    """The numbers that stay."""
    forgotten = to_forget(snapshots, policy, now=NOW)
    assert forgotten <= {snapshot.number for snapshot in snapshots}
    return [snapshot.number for snapshot in snapshots if snapshot.number not in forgotten]


def every(step: timedelta, count: int) -> list[timedelta]:
    """Ages, the youngest first."""
    return [step * index for index in range(count)]


def test_last() -> None:
    """The newest so many are kept, in whatever order they come."""
    snapshots = taken(*every(timedelta(minutes=1), 5))
    assert kept(snapshots, KeepPolicy(last=3, periods=())) == [1, 2, 3]
    assert kept(snapshots[::-1], KeepPolicy(last=3, periods=())) == [3, 2, 1]
    assert kept(snapshots, KeepPolicy(last=9, periods=())) == [1, 2, 3, 4, 5]
    assert kept(snapshots, NOTHING) == []


def test_same_moment() -> None:
    """Of two snapshots of one moment the higher number is the newer."""
    moment = [timedelta(), timedelta()]
    assert kept(taken(*moment), KeepPolicy(last=1, periods=())) == [2]


@pytest.mark.parametrize(
    ("period", "step", "count", "expected"),
    [
        pytest.param("hourly", timedelta(minutes=20), 3, [1, 3, 6], id="hourly"),
        pytest.param("daily", timedelta(hours=8), 3, [1, 3, 6], id="daily"),
        pytest.param("weekly", timedelta(days=3), 2, [1, 2], id="weekly"),
        pytest.param("monthly", timedelta(days=10), 2, [1, 3], id="monthly"),
    ],
)
def test_period(period: str, step: timedelta, count: int, expected: list[int]) -> None:
    """Of each hour, day, week or month the newest is kept, for so many of them."""
    assert kept(taken(*every(step, 9)), KeepPolicy(last=0, periods=((period, count),))) == expected


def test_gaps() -> None:
    """Periods without a snapshot do not count: a bot that slept for a month keeps as many as one that did not."""
    ages = [timedelta(days=days) for days in (0, 40, 41, 90)]
    assert kept(taken(*ages), KeepPolicy(last=0, periods=(("daily", 3),))) == [1, 2, 3]


def test_default() -> None:
    """The default keeps 8, then one an hour for 24 hours, then one a day for 7 days."""
    numbers = kept(taken(*every(timedelta(minutes=10), 6 * 24 * 30)), KeepPolicy())
    assert len(numbers) == 8 + 22 + 5  # the last 8 span 2 hours, the 24 hours span 2 days
    assert numbers[:8] == list(range(1, 9))


@pytest.mark.parametrize("reason", PINNED)
def test_pinned(reason: str) -> None:
    """What undoes a disaster is kept for 30 days, whatever the policy says."""
    ages = [timedelta(days=29, hours=23), timedelta(days=30, hours=1)]
    assert kept(taken(*ages, reason=reason), NOTHING) == [1]


@pytest.mark.parametrize("reason", OTHERS)
def test_not_pinned(reason: str) -> None:
    """The other reasons keep nothing by themselves."""
    assert kept(taken(timedelta(), reason=reason), NOTHING) == []


def test_newest_paired() -> None:
    """The newest snapshot of a paired identity is kept, however old it is."""
    ages = [timedelta(days=400), timedelta(days=500)]
    unpaired = [Snapshot(number=9, taken_at=NOW, reason="start")]
    assert kept([*taken(*ages, reason="paired", paired=True), *unpaired], NOTHING) == [1]


@pytest.mark.parametrize("pinned", PINNED)
@pytest.mark.parametrize("other", OTHERS)
def test_longer_kept(pinned: str, other: str) -> None:
    """Of two reasons for one revision the pinned one is carried."""
    assert longer_kept(pinned, other) == longer_kept(other, pinned) == pinned


@pytest.mark.parametrize("reason", [*PINNED, *OTHERS])
def test_same_reason(reason: str) -> None:
    """Every reason is known."""
    assert longer_kept(reason, reason) == reason


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("last=8,hourly=24,daily=7", KeepPolicy()),
        (" last=1 , weekly=4 ", KeepPolicy(last=1, periods=(("weekly", 4),))),
        ("monthly=12", KeepPolicy(last=0, periods=(("monthly", 12),))),
        ("last=0", NOTHING),
    ],
)
def test_parsed(text: str, policy: KeepPolicy) -> None:
    """A policy as ``--keep`` takes it; what is not named is not kept."""
    assert parse_keep(text) == policy


@pytest.mark.parametrize("text", ["", "last", "last=", "last=-1", "last=x", "last=1.5", "yearly=1", "last=8,,daily=7"])
def test_refused(text: str) -> None:
    """What is no policy is refused, and the error says what is."""
    with pytest.raises(ValueError, match=r"last=8|none of last"):
        parse_keep(text)


def period_of(moment: datetime, period: str) -> tuple[int, ...]:
    """The hour, day, week or month of a moment."""
    year, week, _ = moment.isocalendar()
    return {
        "hourly": (moment.year, moment.month, moment.day, moment.hour),
        "daily": (moment.year, moment.month, moment.day),
        "weekly": (year, week),
        "monthly": (moment.year, moment.month),
    }[period]


def is_kept(snapshot: Snapshot, others: list[Snapshot], policy: KeepPolicy) -> bool:
    """Whether anything keeps a snapshot, by its definition."""
    newer = [s for s in others if (s.taken_at, s.number) > (snapshot.taken_at, snapshot.number)]
    if len(newer) < policy.last or (snapshot.paired and not any(s.paired for s in newer)):
        return True
    if snapshot.reason in PINNED and NOW - snapshot.taken_at < timedelta(days=30):
        return True
    for period, count in policy.periods:
        newer_periods = {period_of(s.taken_at, period) for s in newer}
        if period_of(snapshot.taken_at, period) not in newer_periods and len(newer_periods) < count:
            return True
    return False


histories = st.lists(
    st.tuples(
        st.one_of(
            st.timedeltas(timedelta(), timedelta(days=60)),
            st.integers(0, 5).map(lambda hours: timedelta(hours=hours)),
        ),
        st.sampled_from([*PINNED, *OTHERS]),
        st.booleans(),
    ),
    max_size=25,
).map(
    lambda items: [
        Snapshot(number=number, taken_at=NOW - age, reason=reason, paired=paired)
        for number, (age, reason, paired) in enumerate(items)
    ]
)
policies = st.builds(
    KeepPolicy,
    last=st.integers(0, 5),
    periods=st.lists(
        st.tuples(st.sampled_from(["hourly", "daily", "weekly", "monthly"]), st.integers(0, 4)), max_size=3
    ).map(tuple),
)


@given(histories, policies)
def test_brute_force(snapshots: list[Snapshot], policy: KeepPolicy) -> None:
    """For any history and policy exactly those go that nothing keeps; a second round then forgets no more."""
    expected = {s.number for s in snapshots if not is_kept(s, snapshots, policy)}
    assert to_forget(snapshots, policy, now=NOW) == expected
    left = [s for s in snapshots if s.number not in expected]
    assert to_forget(left, policy, now=NOW) == frozenset()
