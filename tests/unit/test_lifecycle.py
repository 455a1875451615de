"""The life of a run: histories of events with what is done and how it ends, and what holds for every history."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsync.core.clearing import Child
from authsync.core.lifecycle import (
    CLOSE_BUDGET_S,
    CLOSE_RESERVE_S,
    MIN_DRAIN_S,
    SIGINT,
    SIGTERM,
    ChildEnded,
    Closed,
    Effect,
    Event,
    Failed,
    FenceLost,
    FlushAsked,
    FlushSettled,
    LeaderEnded,
    Limits,
    Opened,
    Phase,
    SendSignal,
    Signalled,
    State,
    Tick,
    Waiting,
    step,
)

LIMITS = Limits(stop_timeout_s=6.0, grace_s=10.0)
SIGHUP, SIGKILL = 1, 9
START, CANCEL, FLUSH_NOW, HURRY = Effect.START_CHILD, Effect.CANCEL_OPENING, Effect.FLUSH_NOW, Effect.HURRY
KILL, DRAIN, KEEP_COPY, CLOSE = Effect.KILL_CHILD, Effect.DRAIN, Effect.KEEP_COPY, Effect.CLOSE
TERM, INT = SendSignal(SIGTERM), SendSignal(SIGINT)
OPENED, TICK, CLOSED, LOST = Opened(), Tick(), Closed(), FenceLost()
STOP = Signalled(SIGTERM)
STORED, UNSTORED = FlushSettled(stored=True), FlushSettled(stored=False)

History = list[tuple[float, Event]]


@dataclass(kw_only=True)
class Life:
    """A machine that is fed events as the daemon does it, and all that it asked for."""

    has_child: bool = True
    limits: Limits = LIMITS
    now: float = 0.0
    ended_at: float = inf
    effects: list[Effect | SendSignal] = field(default_factory=list)
    times: list[tuple[float, Effect | SendSignal]] = field(default_factory=list)
    state: State = field(init=False)

    def __post_init__(self) -> None:
        self.state = State(limits=self.limits, has_child=self.has_child)

    def feed(self, event: Event, at: float, *, prompt: bool = True) -> None:
        """One event at its time; ``prompt``: after the ticks that came due before it."""
        if prompt:
            self.pass_time(at)
        self.now = max(self.now, at)
        self._step(event)
        self._step(TICK)

    def pass_time(self, until: float = inf) -> None:
        """Deliver the ticks that are due until then."""
        for _ in range(20):
            if self.state.deadline > until or self.state.deadline == inf:
                return
            self.now = max(self.now, self.state.deadline)
            self._step(TICK)
        raise AssertionError("time passes, and the deadline does not move on")

    def _step(self, event: Event) -> None:
        self.state, effects = step(self.state, event, self.now)
        self.effects += effects
        self.times += [(self.now, effect) for effect in effects]
        if self.state.phase is Phase.ENDED:
            self.ended_at = min(self.ended_at, self.now)


def lived(history: History, *, has_child: bool = True) -> Life:
    """A life through this history, with ticks as they come due."""
    life = Life(has_child=has_child)
    for at, event in history:
        life.feed(event, at)
    return life


@pytest.mark.parametrize(
    ("history", "effects", "code"),
    [
        pytest.param(
            [(0, OPENED), (9, ChildEnded(0)), (9.1, STORED), (9.2, CLOSED)], [START, DRAIN, CLOSE], 0, id="ends well"
        ),
        pytest.param(
            [(0, OPENED), (9, ChildEnded(3)), (9.1, STORED), (9.2, CLOSED)], [START, DRAIN, CLOSE], 3, id="fails"
        ),
        pytest.param(
            [(0, OPENED), (9, ChildEnded(-11)), (9.1, STORED), (9.2, CLOSED)], [START, DRAIN, CLOSE], 139, id="crashes"
        ),
        pytest.param(
            [(0, OPENED), (9, ChildEnded(0)), (9.1, UNSTORED), (9.2, CLOSED)],
            [START, DRAIN, CLOSE],
            74,
            id="ends well, last changes not stored",
        ),
        pytest.param(
            [(0, OPENED), (9, ChildEnded(3)), (9.1, UNSTORED), (9.2, CLOSED)],
            [START, DRAIN, CLOSE],
            3,
            id="fails, last changes not stored",
        ),
        pytest.param(
            [(0, OPENED), (9, ChildEnded(0)), (60, CLOSED)],
            [START, DRAIN, CLOSE],
            74,
            id="ends well, the last flush never ends",
        ),
        pytest.param(
            [(0, OPENED), (9, STOP), (10, ChildEnded(0)), (10.1, STORED), (10.2, CLOSED)],
            [START, TERM, FLUSH_NOW, HURRY, DRAIN, CLOSE],
            0,
            id="SIGTERM",
        ),
        pytest.param(
            [(0, OPENED), (9, Signalled(SIGINT)), (10, ChildEnded(-SIGINT)), (10.1, STORED), (10.2, CLOSED)],
            [START, INT, FLUSH_NOW, HURRY, DRAIN, CLOSE],
            130,
            id="SIGINT",
        ),
        pytest.param(
            [(0, OPENED), (9, STOP), (10, ChildEnded(-SIGTERM)), (10.1, STORED), (10.2, CLOSED)],
            [START, TERM, FLUSH_NOW, HURRY, DRAIN, CLOSE],
            143,
            id="SIGTERM ends a child without handler",
        ),
        pytest.param(
            [(0, OPENED), (9, STOP), (14.9, TICK), (15, TICK), (15.1, ChildEnded(-9)), (15.2, STORED), (15.3, CLOSED)],
            [START, TERM, FLUSH_NOW, HURRY, KILL, DRAIN, CLOSE],
            137,
            id="SIGTERM ignored",
        ),
        pytest.param(
            [(0, OPENED), (9, STOP), (60, TICK)],
            [START, TERM, FLUSH_NOW, HURRY, KILL, DRAIN, CLOSE],
            143,
            id="SIGTERM, and nothing ever answers",
        ),
        pytest.param(
            [(0, OPENED), (9, STOP), (10, STOP), (10.5, ChildEnded(0)), (10.6, STOP), (10.7, STORED), (10.8, STOP)],
            [START, TERM, FLUSH_NOW, HURRY, DRAIN, CLOSE],
            0,
            id="SIGTERM again and again",
        ),
        pytest.param(
            [(0, OPENED), (9, ChildEnded(0)), (9.1, STOP), (9.2, STORED), (9.3, CLOSED)],
            [START, DRAIN, HURRY, CLOSE],
            0,
            id="SIGTERM after the end",
        ),
        pytest.param([(0, STOP), (0.1, CLOSED)], [CANCEL, HURRY, CLOSE], 143, id="SIGTERM while opening"),
        pytest.param(
            [(0, Waiting()), (5, STOP), (5.1, CLOSED)], [CANCEL, HURRY, CLOSE], 0, id="SIGTERM while standing by"
        ),
        pytest.param(
            [(0, Waiting()), (5, OPENED), (6, STOP), (7, ChildEnded(-15)), (7.1, STORED), (7.2, CLOSED)],
            [START, TERM, FLUSH_NOW, HURRY, DRAIN, CLOSE],
            143,
            id="SIGTERM after standing by",
        ),
        pytest.param([(0, STOP), (0.1, OPENED), (0.2, CLOSED)], [CANCEL, HURRY, CLOSE], 143, id="opened after SIGTERM"),
        pytest.param([(0, STOP), (0.1, Failed(69)), (0.2, CLOSED)], [CANCEL, HURRY, CLOSE], 143, id="failed after it"),
        pytest.param([(0, Failed(69)), (0.1, CLOSED)], [CLOSE], 69, id="database unreachable"),
        pytest.param([(0, Failed(65)), (0.1, CLOSED)], [CLOSE], 65, id="stored data damaged"),
        pytest.param([(0, Failed(75)), (9, TICK)], [CLOSE], 75, id="refused, and the lease cannot be released"),
        pytest.param([(0, OPENED), (0.1, Failed(127)), (0.2, CLOSED)], [START, CLOSE], 127, id="no such command"),
        pytest.param([(0, LOST), (0.1, CLOSED)], [CANCEL, CLOSE], 75, id="lost while opening"),
        pytest.param(
            [(0, OPENED), (9, LOST), (10, ChildEnded(0)), (10.1, UNSTORED), (10.2, CLOSED)],
            [START, TERM, KEEP_COPY, CLOSE],
            75,
            id="lost while running",
        ),
        pytest.param(
            [(0, OPENED), (9, LOST), (15, TICK), (15.1, ChildEnded(-9)), (15.2, UNSTORED), (15.3, CLOSED)],
            [START, TERM, KILL, KEEP_COPY, CLOSE],
            75,
            id="lost while running, SIGTERM ignored",
        ),
        pytest.param(
            [(0, OPENED), (9, STOP), (9.5, LOST), (10, ChildEnded(0)), (10.1, UNSTORED), (10.2, CLOSED)],
            [START, TERM, FLUSH_NOW, HURRY, KEEP_COPY, CLOSE],
            75,
            id="lost while stopping",
        ),
        pytest.param(
            [(0, OPENED), (9, ChildEnded(0)), (9.1, LOST), (9.2, UNSTORED), (9.3, CLOSED)],
            [START, DRAIN, KEEP_COPY, CLOSE],
            75,
            id="lost in the last flush",
        ),
        pytest.param(
            [(0, OPENED), (9, ChildEnded(0)), (9.1, LOST), (9.2, LOST), (9.3, UNSTORED), (9.4, CLOSED)],
            [START, DRAIN, KEEP_COPY, CLOSE],
            75,
            id="two threads find it lost",
        ),
        pytest.param(
            [(0, OPENED), (9, LeaderEnded(0)), (9.5, ChildEnded(0)), (9.6, STORED), (9.7, CLOSED)],
            [START, FLUSH_NOW, DRAIN, CLOSE],
            0,
            id="ends and leaves processes that end soon",
        ),
        pytest.param(
            [
                (0, OPENED),
                (9, LeaderEnded(3)),
                (10, TICK),
                (16, TICK),
                (16.1, ChildEnded(3)),
                (16.2, STORED),
                (16.3, CLOSED),
            ],
            [START, FLUSH_NOW, TERM, KILL, DRAIN, CLOSE],
            3,
            id="fails and leaves stubborn processes",
        ),
        pytest.param(
            [(0, OPENED), (9, LeaderEnded(3)), (60, TICK)],
            [START, FLUSH_NOW, TERM, KILL, DRAIN, CLOSE],
            3,
            id="fails and leaves what nothing ends",
        ),
        pytest.param(
            [
                (0, OPENED),
                (9, LeaderEnded(3)),
                (9.5, STOP),
                (11, ChildEnded(3)),
                (11.1, STORED),
                (11.2, CLOSED),
            ],
            [START, FLUSH_NOW, TERM, HURRY, DRAIN, CLOSE],
            3,
            id="SIGTERM while the rest of the group ends",
        ),
        pytest.param(
            [
                (0, OPENED),
                (9, STOP),
                (10, LeaderEnded(0)),
                (11, ChildEnded(0)),
                (11.1, STORED),
                (11.2, CLOSED),
            ],
            [START, TERM, FLUSH_NOW, HURRY, FLUSH_NOW, DRAIN, CLOSE],
            0,
            id="SIGTERM, and npm ends before node",
        ),
        pytest.param(
            [(0, OPENED), (1, FlushAsked()), (2, Signalled(SIGHUP)), (3, ChildEnded(0)), (4, STORED), (5, CLOSED)],
            [START, FLUSH_NOW, SendSignal(SIGHUP), DRAIN, CLOSE],
            0,
            id="other signals go to the child",
        ),
        pytest.param(
            [(0, Signalled(SIGHUP)), (1, FlushAsked()), (2, OPENED), (3, ChildEnded(0)), (4, STORED), (5, CLOSED)],
            [START, DRAIN, CLOSE],
            0,
            id="other signals without a child",
        ),
    ],
)
def test_run(history: History, effects: list[Effect | SendSignal], code: int) -> None:
    """What a run does on each event, and its exit code as the README lists them."""
    life = lived(history)
    life.pass_time()
    assert life.effects == effects
    assert life.state.phase is Phase.ENDED
    assert life.state.exit_code == code


@pytest.mark.parametrize(
    ("history", "effects", "code"),
    [
        pytest.param([(0, OPENED), (9, STOP), (9.1, STORED), (9.2, CLOSED)], [HURRY, DRAIN, CLOSE], 0, id="SIGTERM"),
        pytest.param(
            [(0, OPENED), (9, STOP), (9.1, UNSTORED), (9.2, CLOSED)], [HURRY, DRAIN, CLOSE], 74, id="not stored"
        ),
        pytest.param([(0, OPENED), (9, STOP), (60, TICK)], [HURRY, DRAIN, CLOSE], 74, id="nothing ever answers"),
        pytest.param([(0, STOP), (0.1, CLOSED)], [CANCEL, HURRY, CLOSE], 0, id="SIGTERM while opening"),
        pytest.param([(0, OPENED), (9, LOST), (9.1, UNSTORED), (9.2, CLOSED)], [KEEP_COPY, CLOSE], 75, id="lost"),
        pytest.param([(0, Failed(69)), (0.1, CLOSED)], [CLOSE], 69, id="database unreachable"),
    ],
)
def test_watch(history: History, effects: list[Effect | SendSignal], code: int) -> None:
    """``watch`` has no child: it drains at once, and exits 75 when it loses the lease."""
    life = lived(history, has_child=False)
    life.pass_time()
    assert life.effects == effects
    assert life.state.phase is Phase.ENDED
    assert life.state.exit_code == code


@pytest.mark.parametrize(
    ("history", "child"),
    [
        pytest.param([(0, OPENED)], Child.ALIVE, id="running"),
        pytest.param([(0, OPENED), (1, FlushAsked())], Child.ALIVE, id="asked to flush"),
        pytest.param([(0, OPENED), (1, ChildEnded(0))], Child.ENDED, id="ended by itself"),
        pytest.param([(0, OPENED), (1, ChildEnded(1))], Child.ENDED, id="failed by itself"),
        pytest.param([(0, OPENED), (1, ChildEnded(-9))], Child.SIGNALLED, id="a signal ended it"),
        pytest.param([(0, OPENED), (1, STOP)], Child.STOPPING, id="being stopped"),
        pytest.param([(0, OPENED), (1, STOP), (2, ChildEnded(0))], Child.SIGNALLED, id="stopped"),
        pytest.param([(0, OPENED), (1, LOST)], Child.STOPPING, id="being stopped since the session is lost"),
        pytest.param([(0, OPENED), (1, LeaderEnded(-9))], Child.STOPPING, id="a signal ended its leader"),
        pytest.param(
            [(0, OPENED), (1, LeaderEnded(0))], Child.ALIVE, id="its leader ended by itself, the rest is left a moment"
        ),
        pytest.param(
            [(0, OPENED), (1, LeaderEnded(0)), (2, TICK)], Child.STOPPING, id="its leader ended, we signal the rest"
        ),
        pytest.param(
            [(0, OPENED), (1, LeaderEnded(0)), (2, TICK), (3, ChildEnded(0))],
            Child.SIGNALLED,
            id="the rest ended by our signal",
        ),
        pytest.param(
            # Some platforms signal every process: the bot's wipe and end then come before our own signal.
            [(0, OPENED), (1, ChildEnded(0)), (2, STOP)],
            Child.SIGNALLED,
            id="ended, and the platform stops us right after",
        ),
    ],
)
def test_child(history: History, child: Child) -> None:
    """What clearing has to know: whether the child and its group live, and whether anybody signalled them."""
    assert lived(history).state.child is child


@pytest.mark.parametrize(
    ("history", "signalled_at"),
    [
        pytest.param([(0, OPENED), (1, ChildEnded(0))], None, id="never"),
        pytest.param([(0, OPENED), (1, STOP), (2, STOP), (3, ChildEnded(-15))], 1.0, id="stopped"),
        pytest.param([(0, OPENED), (1, ChildEnded(0)), (2, STOP)], 2.0, id="stopped after the bot ended"),
        pytest.param([(0, OPENED), (1, LOST), (2, STOP)], 1.0, id="stopped since the session is lost"),
        pytest.param([(0, OPENED), (1, ChildEnded(-9))], 1.0, id="somebody killed it"),
        pytest.param([(0, OPENED), (1, LeaderEnded(-9)), (2, ChildEnded(-9))], 1.0, id="somebody killed its leader"),
        pytest.param([(0, OPENED), (1, LeaderEnded(0)), (5, ChildEnded(0))], 2.0, id="we signalled its group"),
        pytest.param([(0, OPENED), (1, LeaderEnded(0)), (1.5, ChildEnded(0))], None, id="its group ended by itself"),
    ],
)
def test_signalled_at(history: History, signalled_at: float | None) -> None:
    """When somebody first signalled the bot: what it wiped before that is a logout, what it wipes then is not."""
    assert lived(history).state.signalled_at == signalled_at


@pytest.mark.parametrize(
    ("history", "child"),
    [
        pytest.param([(0, OPENED)], Child.ALIVE, id="running"),
        pytest.param([(0, OPENED), (1, STOP)], Child.STOPPING, id="told to stop"),
    ],
)
def test_unknown_child(history: History, child: Child) -> None:
    """``watch`` never knows whether the bot is gone."""
    assert lived(history, has_child=False).state.child is child


def test_flush_and_signal_at_once() -> None:
    """The signal is forwarded in the step that it comes in, with the flush: a dead database cannot delay it."""
    life = lived([(0, OPENED)])
    state, effects = step(life.state, STOP, 1.0)
    assert effects[0] == TERM
    assert FLUSH_NOW in effects
    assert state.deadline == 1.0 + LIMITS.stop_timeout_s


@pytest.mark.parametrize(
    ("history", "times", "ended_at"),
    [
        pytest.param([(0, OPENED), (9, STOP)], [(9, TERM), (15, KILL), (17, DRAIN), (18.5, CLOSE)], 19, id="SIGTERM"),
        pytest.param(
            [(0, OPENED), (9, STOP), (10, ChildEnded(0))],
            [(9, TERM), (10, DRAIN), (18.5, CLOSE)],
            19,
            id="SIGTERM, the bot ends",
        ),
        pytest.param([(0, OPENED), (9, ChildEnded(0))], [(9, DRAIN), (18.5, CLOSE)], 21.5, id="the bot ends"),
        pytest.param(
            [(0, OPENED), (9, ChildEnded(0)), (9.5, STOP)],
            [(9, DRAIN), (18.5, CLOSE)],
            19.5,
            id="the bot ends, SIGTERM",
        ),
        pytest.param(
            [(0, OPENED), (9, LeaderEnded(0))],
            [(10, TERM), (16, KILL), (16.5, DRAIN), (26, CLOSE)],
            29,
            id="the bot ends, its group does not",
        ),
        pytest.param(
            [(0, OPENED), (9, LeaderEnded(0)), (9.5, Signalled(SIGHUP))],
            [(9.5, SendSignal(SIGHUP)), (10, TERM), (16, KILL), (16.5, DRAIN), (26, CLOSE)],
            29,
            id="another signal changes nothing",
        ),
        pytest.param(
            [(0, OPENED), (9, LOST)], [(9, TERM), (15, KILL), (25, KEEP_COPY), (34.5, CLOSE)], 37.5, id="lost"
        ),
        pytest.param([(9, STOP)], [(9, CLOSE)], 12, id="SIGTERM while opening"),
        pytest.param([(9, Failed(69))], [(9, CLOSE)], 12, id="failed"),
    ],
)
def test_budgets(history: History, times: list[tuple[float, Effect | SendSignal]], ended_at: float) -> None:
    """Each phase has its time, no less and no more: with 10 s of grace and 6 s for the bot, where nothing answers."""
    life = lived(history)
    life.pass_time()
    untimed = {START, FLUSH_NOW, HURRY, CANCEL}
    assert [(at, effect) for at, effect in life.times if effect not in untimed] == times
    assert life.ended_at == ended_at


@pytest.mark.parametrize(("settled_after_s", "code"), [(9.4, 0), (9.6, 74)])
def test_last_moment(settled_after_s: float, code: int) -> None:
    """A last flush that ends within the grace counts, up to the share that giving the lease back needs."""
    life = lived([(0, OPENED), (9, STOP), (10, ChildEnded(0)), (9 + settled_after_s, STORED)])
    assert life.state.exit_code == code


def test_killed_in_time() -> None:
    """The code of a bot that ends after SIGKILL, while its group is still waited for, is the run's."""
    assert lived([(0, OPENED), (9, STOP), (16.9, ChildEnded(-SIGKILL))]).state.exit_code == 137


def test_late_tick() -> None:
    """A process that was frozen past all its limits still kills its child first, and gives each step a moment."""
    life = lived([(0, OPENED), (1, STOP)])
    for at, event, effect in ((1000, TICK, KILL), (1000.1, ChildEnded(-SIGKILL), DRAIN), (1000.2, STORED, CLOSE)):
        life.feed(event, at, prompt=False)
        assert life.effects[-1] is effect
        assert at < life.state.deadline <= at + CLOSE_RESERVE_S


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([(0, STOP)], id="opening"),
        pytest.param([(0, OPENED), (1, STOP)], id="running"),
        pytest.param([(0, OPENED), (1, ChildEnded(0)), (2, STOP)], id="draining"),
        pytest.param([(0, OPENED), (1, LeaderEnded(0)), (2, STOP)], id="stopping since its leader ended"),
        pytest.param([(0, OPENED), (1, LOST), (2, STOP)], id="stopping since the session is lost"),
        pytest.param([(0, OPENED), (1, LOST), (2, ChildEnded(0)), (3, STOP)], id="keeping a copy"),
    ],
)
def test_within_grace(history: History) -> None:
    """From SIGTERM to the end takes the platform's grace at most, whatever hangs, and says that there is a hurry."""
    life = lived(history)
    life.pass_time()
    assert HURRY in life.effects
    assert life.state.phase is Phase.ENDED
    assert life.ended_at - history[-1][0] <= LIMITS.grace_s + CLOSE_RESERVE_S


def test_ended() -> None:
    """After the end nothing changes any more."""
    life = lived([(0, OPENED), (1, ChildEnded(0)), (2, STORED), (3, CLOSED)])
    assert life.state.deadline == inf
    for event in (OPENED, STOP, Failed(70), ChildEnded(1), LeaderEnded(1), LOST, UNSTORED, CLOSED, FlushAsked(), TICK):
        assert step(life.state, event, 99.0) == (life.state, ())


codes = st.sampled_from([0, 1, 3, -9, -15])
run_events: st.SearchStrategy[Event] = st.one_of(
    st.sampled_from([OPENED, Waiting(), LOST, STORED, UNSTORED, CLOSED, FlushAsked(), TICK]),
    st.sampled_from([SIGTERM, SIGINT, SIGHUP]).map(Signalled),
    codes.map(ChildEnded),
    codes.map(LeaderEnded),
    st.sampled_from([65, 69, 75, 78]).map(Failed),
)
gaps = st.one_of(st.floats(0, 1), st.floats(0, 20))
beginnings: st.SearchStrategy[list[Event]] = st.sampled_from([[], [OPENED], [Waiting(), OPENED]])


def histories(*, has_child: bool, most: int) -> st.SearchStrategy[list[tuple[float, Event, bool]]]:
    """Any events, most often after an opening; each with the time before it, and whether ticks came in time."""
    events = run_events if has_child else run_events.filter(lambda e: not isinstance(e, ChildEnded | LeaderEnded))
    timed = st.tuples(gaps, events, st.booleans())
    return st.builds(
        lambda first, then: [(0.0, event, True) for event in first] + then, beginnings, st.lists(timed, max_size=most)
    )


limits = st.builds(
    lambda stop_s, more_s: Limits(stop_timeout_s=stop_s, grace_s=stop_s + MIN_DRAIN_S + more_s),
    st.floats(0.5, 30),
    st.floats(0, 30),
)


def check(life: Life) -> None:
    """What holds at any moment of any life."""
    count = life.effects.count
    assert count(START) <= 1
    assert count(CLOSE) == (life.state.phase in {Phase.CLOSING, Phase.ENDED})
    assert count(DRAIN) <= 1
    assert count(KEEP_COPY) <= 1
    assert count(HURRY) <= 1
    if CLOSE in life.effects:
        assert life.effects[-1] is CLOSE, "nothing is begun after the lease is given back"


def allowed_codes(life: Life, fed: list[Event]) -> set[int]:
    """The exit codes that remain for these events, whichever of them came in time."""
    found = {0, 74} if not life.has_child else {74}
    for event in fed:
        if isinstance(event, Failed):
            found.add(event.exit_code)
        elif isinstance(event, FenceLost):
            found.add(75)
        elif isinstance(event, ChildEnded | LeaderEnded):
            found.add(event.code if event.code >= 0 else 128 - event.code)
        elif isinstance(event, Signalled) and life.has_child:
            found.add(128 + event.signum)
        elif isinstance(event, Waiting):
            found.add(0)
    return found


@pytest.mark.parametrize("has_child", [True, False], ids=["run", "watch"])
@given(data=st.data())
def test_any_history(data: st.DataObject, *, has_child: bool) -> None:
    """Whatever happens: one start, one end, no last flush beside a living child, and an exit code with a reason."""
    life = Life(has_child=has_child, limits=data.draw(limits))
    fed: list[Event] = []
    gone = False
    for gap, event, prompt in data.draw(histories(has_child=has_child, most=25)):
        before = len(life.effects)
        life.feed(event, life.now + gap, prompt=prompt)
        fed.append(event)
        check(life)
        running = life.state.phase in {Phase.RUNNING, Phase.STOPPING}
        gone = gone or (isinstance(event, ChildEnded) and START in life.effects)
        begun = life.effects[before:]
        if has_child and {DRAIN, KEEP_COPY} & set(begun):
            assert gone or KILL in life.effects
        if SendSignal(SIGTERM) in begun:
            assert START in life.effects or not has_child
        assert life.state.deadline < inf or life.state.phase is Phase.ENDED or running or START not in life.effects
    if life.state.phase is Phase.ENDED:
        assert life.state.exit_code in allowed_codes(life, fed)


@pytest.mark.parametrize("has_child", [True, False], ids=["run", "watch"])
@given(data=st.data())
def test_always_ends(data: st.DataObject, *, has_child: bool) -> None:
    """Told to stop in any phase, it ends within the platform's grace though nothing ever answers again."""
    life = Life(has_child=has_child, limits=data.draw(limits))
    told_at = inf
    for gap, event, _ in data.draw(histories(has_child=has_child, most=6)):
        life.feed(event, life.now + gap)
        if event in {STOP, Signalled(SIGINT)}:
            told_at = min(told_at, life.now)
    if told_at == inf:
        told_at = life.now
        life.feed(STOP, told_at)
    life.pass_time()
    check(life)
    assert life.state.phase is Phase.ENDED
    assert life.ended_at <= told_at + max(life.limits.grace_s + CLOSE_RESERVE_S, CLOSE_BUDGET_S)
