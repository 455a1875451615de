"""The life of one ``run`` or ``watch``, as a state machine: ``step(state, event, now) -> (state, effects)``.

::

    OPENING --Opened--> RUNNING --signal, fence lost--> STOPPING --ChildEnded--> DRAINING
       |                   +---------ChildEnded, by itself-------------------------^  |
       |                                                                    FlushSettled
       +--signal, Failed--> CLOSING <-------------------------------------------------+
                               +--Closed--> ENDED

OPENING owns the session and reconciles the folder; no child runs. RUNNING flushes as the schedule says. STOPPING has
told the child's group to stop, and kills it at ``kill_at``. DRAINING makes the last flush, after the last process of
the child's group is gone, until ``end_at``. CLOSING releases the lease. Every phase after a stop was asked for has a
limit: a budget that runs out moves on by ``Tick``. ``watch`` has no child: it drains at once.

Nothing about transitions is decided elsewhere; ``daemon.py`` performs the effects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from math import inf

from authsync.core.clearing import Child
from authsync.errors import OwnedError, UnstoredError

SIGINT, SIGTERM = 2, 15  # the same numbers everywhere
CLOSE_BUDGET_S = 3.0
"""For releasing the lease when nothing presses; a successor otherwise waits for it to expire."""
MIN_DRAIN_S = 2.0
"""The last flush gets at least this of the platform's grace, whatever the child does with the rest."""
LEADER_LOOK_S = 1.0
"""What is left of a group whose leader ended by itself is told to stop so much later: a logout that the leader made
right before its end is then known to be older than our signal."""
CLOSE_RESERVE_S = 0.5
"""Of the grace, left for the lease when the last flush takes all it may."""


class Phase(Enum):
    """Where the process is."""

    OPENING = auto()
    RUNNING = auto()
    STOPPING = auto()
    DRAINING = auto()
    CLOSING = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class Opened:
    """The session is owned and the folder reconciled."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another owner holds the session; we stand by."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Opening, or starting the child, ended in an error with this exit code."""

    exit_code: int


@dataclass(frozen=True, slots=True)
class Signalled:
    """We got a signal."""

    signum: int


@dataclass(frozen=True, slots=True)
class FlushAsked:
    """Somebody wants a flush now (SIGUSR1)."""


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """The child and its group are gone; ``code`` as Popen gives it (negative: by that signal)."""

    code: int


@dataclass(frozen=True, slots=True)
class LeaderEnded:
    """The child ended, but processes of its group live on."""

    code: int


@dataclass(frozen=True, slots=True)
class FenceLost:
    """The session is no longer ours, or was deleted."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class FlushSettled:
    """The last flush is done; ``stored`` tells whether everything is."""

    stored: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """The lease is released."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = (
    Opened
    | Waiting
    | Failed
    | Signalled
    | FlushAsked
    | ChildEnded
    | LeaderEnded
    | FenceLost
    | FlushSettled
    | Closed
    | Tick
)


class Effect(Enum):
    """What the daemon does on a step."""

    START_CHILD = auto()
    CANCEL_OPENING = auto()
    FLUSH_NOW = auto()
    HURRY = auto()
    """Shorten the lease, and let no retry pause for long."""
    KILL_CHILD = auto()
    DRAIN = auto()
    """Flush until nothing is left."""
    KEEP_COPY = auto()
    """Store what was not flushed beside the line; it needs no token."""
    CLOSE = auto()


@dataclass(frozen=True, slots=True)
class SendSignal:
    """Send ``signum`` to the child's group."""

    signum: int


Effects = tuple[Effect | SendSignal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The budgets of a stop."""

    stop_timeout_s: float
    """From the signal to SIGKILL for the child."""
    grace_s: float
    """From the signal to the end of everything: the platform kills us then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that the next step depends on."""

    limits: Limits
    has_child: bool = True
    phase: Phase = Phase.OPENING
    signum: int | None = None
    """The signal that asked us to stop."""
    child_code: int | None = None
    signalled_at: float | None = None
    """When somebody first signalled the bot: a wipe from then on is not followed."""
    standby: bool = False
    """We never owned the session: a stop is no failure."""
    fenced: bool = False
    unstored: bool = False
    failure: int | None = None
    """The exit code of an error."""
    grace_until: float = inf
    """When the platform kills us."""
    term_at: float = inf
    """When what is left of the child's group is told to stop."""
    kill_at: float = inf
    end_at: float = inf
    """When this phase is over, whatever happens."""

    @property
    def deadline(self) -> float:
        """When the next Tick matters."""
        return min(self.term_at, self.kill_at, self.end_at)

    @property
    def child(self) -> Child:
        """What clearing has to know."""
        # `watch` never knows whether the bot is gone.
        gone = self.has_child and self.phase not in {Phase.OPENING, Phase.RUNNING, Phase.STOPPING}
        if self.signalled_at is not None:
            return Child.SIGNALLED if gone else Child.STOPPING
        return Child.ENDED if gone else Child.ALIVE

    @property
    def exit_code(self) -> int:
        """After sysexits, as the README lists them."""
        if self.failure is not None:
            return self.failure
        if self.fenced:
            return OwnedError.exit_code
        if self.child_code is not None:
            code = 128 - self.child_code if self.child_code < 0 else self.child_code
        else:
            interrupted = self.has_child and self.signum is not None and not self.standby
            code = 128 + (self.signum or 0) if interrupted else 0
        return UnstoredError.exit_code if code == 0 and self.unstored else code


_ASKS_TO_STOP = frozenset({SIGINT, SIGTERM})


def _opened(state: State, _event: Opened, _now: float) -> tuple[State, Effects]:
    state = replace(state, phase=Phase.RUNNING, standby=False)
    return state, (Effect.START_CHILD,) if state.has_child else ()


def _waiting(state: State, _event: Waiting, _now: float) -> tuple[State, Effects]:
    return replace(state, standby=True), ()


def _failed(state: State, event: Failed, now: float) -> tuple[State, Effects]:
    return _closing(replace(state, failure=event.exit_code), now)


def _signalled_opening(state: State, event: Signalled, now: float) -> tuple[State, Effects]:
    if event.signum not in _ASKS_TO_STOP:
        return state, ()
    state, effects = _closing(replace(state, signum=event.signum), now)
    return state, (Effect.CANCEL_OPENING, Effect.HURRY, *effects)


def _signalled_running(state: State, event: Signalled, now: float) -> tuple[State, Effects]:
    if event.signum not in _ASKS_TO_STOP:
        return state, (SendSignal(event.signum),)
    state = replace(_told_to_stop(state, event.signum, now), phase=Phase.STOPPING)
    if not state.has_child:
        return _draining(state, now, Effect.HURRY)
    return state, (SendSignal(event.signum), Effect.FLUSH_NOW, Effect.HURRY)


def _told_to_stop(state: State, signum: int, now: float) -> State:
    """From now on everything has to fit into the platform's grace."""
    limits = state.limits
    return replace(
        state,
        signum=signum,
        signalled_at=_first(state.signalled_at, now),
        term_at=inf,
        grace_until=now + limits.grace_s,
        kill_at=min(state.kill_at, now + limits.stop_timeout_s),
        end_at=min(state.end_at, now + max(limits.stop_timeout_s + CLOSE_RESERVE_S, limits.grace_s - MIN_DRAIN_S)),
    )


def _flush_asked(state: State, _event: FlushAsked, _now: float) -> tuple[State, Effects]:
    return state, (Effect.FLUSH_NOW,)


def _signalled_stopping(state: State, event: Signalled, now: float) -> tuple[State, Effects]:
    if event.signum not in _ASKS_TO_STOP:
        return state, (SendSignal(event.signum),)
    if state.signum is not None:
        return state, ()  # a second one would end a bot that handles the first, in the middle of its last save
    return _told_to_stop(state, event.signum, now), (SendSignal(event.signum), Effect.HURRY)


def _signalled_draining(state: State, event: Signalled, now: float) -> tuple[State, Effects]:
    if event.signum not in _ASKS_TO_STOP or state.signum is not None:
        return state, ()  # it never cancels the flush
    grace_until = now + state.limits.grace_s
    state = replace(
        state,
        signum=event.signum,
        signalled_at=_first(state.signalled_at, now),
        grace_until=grace_until,
        end_at=min(state.end_at, grace_until - CLOSE_RESERVE_S),
    )
    return state, (Effect.HURRY,)


def _leader_ended(state: State, event: LeaderEnded, now: float) -> tuple[State, Effects]:
    term_at = now + LEADER_LOOK_S if state.signum is None and not state.fenced else inf
    state = replace(
        state,
        phase=Phase.STOPPING,
        child_code=event.code,
        signalled_at=_first(state.signalled_at, now) if event.code < 0 else state.signalled_at,
        term_at=term_at,
        kill_at=min(state.kill_at, now + LEADER_LOOK_S + state.limits.stop_timeout_s),
        end_at=min(state.end_at, now + LEADER_LOOK_S + state.limits.stop_timeout_s + CLOSE_RESERVE_S),
    )
    return state, (Effect.FLUSH_NOW,)


def _child_ended(state: State, event: ChildEnded, now: float) -> tuple[State, Effects]:
    code = event.code if state.child_code is None else state.child_code
    signalled_at = _first(state.signalled_at, now) if code < 0 else state.signalled_at
    return _draining(replace(state, child_code=code, signalled_at=signalled_at), now)


def _fence_lost_opening(state: State, _event: FenceLost, now: float) -> tuple[State, Effects]:
    state, effects = _closing(replace(state, fenced=True), now)
    return state, (Effect.CANCEL_OPENING, *effects)


def _fence_lost(state: State, _event: FenceLost, now: float) -> tuple[State, Effects]:
    if state.fenced:
        return state, ()  # the lease thread and the store thread both find it
    state = replace(state, fenced=True, signalled_at=_first(state.signalled_at, now))
    if state.phase is Phase.DRAINING or not state.has_child:
        return _draining(state, now)
    if state.phase is Phase.STOPPING:
        return state, ()
    limits = state.limits
    state = replace(
        state,
        phase=Phase.STOPPING,
        kill_at=now + limits.stop_timeout_s,
        end_at=now + limits.stop_timeout_s + limits.grace_s,
    )
    return state, (SendSignal(SIGTERM),)


def _settled(state: State, event: FlushSettled, now: float) -> tuple[State, Effects]:
    return _closing(replace(state, unstored=not event.stored), now)


def _closed(state: State, _event: Closed, _now: float) -> tuple[State, Effects]:
    return replace(state, phase=Phase.ENDED, term_at=inf, kill_at=inf, end_at=inf), ()


def _tick_stopping(state: State, _event: Tick, now: float) -> tuple[State, Effects]:
    if now >= state.term_at:
        return replace(state, term_at=inf, signalled_at=_first(state.signalled_at, now)), (SendSignal(SIGTERM),)
    if now >= state.kill_at:  # first, however late this tick comes: nobody drains beside a living child
        return replace(state, kill_at=inf, end_at=max(state.end_at, now + CLOSE_RESERVE_S)), (Effect.KILL_CHILD,)
    if now >= state.end_at:  # not even SIGKILL ended the group (it hangs in the kernel): flush what there is
        return _draining(state, now)
    return state, ()


def _tick_draining(state: State, _event: Tick, now: float) -> tuple[State, Effects]:
    return _closing(replace(state, unstored=True), now) if now >= state.end_at else (state, ())


def _tick_closing(state: State, _event: Tick, now: float) -> tuple[State, Effects]:
    return _closed(state, Closed(), now) if now >= state.end_at else (state, ())


def _first(earlier: float | None, now: float) -> float:
    return now if earlier is None else earlier


def _draining(state: State, now: float, *first: Effect) -> tuple[State, Effects]:
    limit = min(state.grace_until, now + state.limits.grace_s)
    end_at = max(limit - CLOSE_RESERVE_S, now + CLOSE_RESERVE_S)
    state = replace(state, phase=Phase.DRAINING, term_at=inf, kill_at=inf, end_at=end_at)
    return state, (*first, Effect.KEEP_COPY if state.fenced else Effect.DRAIN)


def _closing(state: State, now: float) -> tuple[State, Effects]:
    end_at = min(now + CLOSE_BUDGET_S, max(state.grace_until, now + CLOSE_RESERVE_S))
    return replace(state, phase=Phase.CLOSING, term_at=inf, kill_at=inf, end_at=end_at), (Effect.CLOSE,)


_Handler = Callable[..., tuple[State, Effects]]

TRANSITIONS: dict[tuple[Phase, type[Event]], _Handler] = {
    (Phase.OPENING, Opened): _opened,
    (Phase.OPENING, Waiting): _waiting,
    (Phase.OPENING, Failed): _failed,
    (Phase.OPENING, Signalled): _signalled_opening,
    (Phase.OPENING, FenceLost): _fence_lost_opening,
    (Phase.RUNNING, Failed): _failed,
    (Phase.RUNNING, Signalled): _signalled_running,
    (Phase.RUNNING, FlushAsked): _flush_asked,
    (Phase.RUNNING, LeaderEnded): _leader_ended,
    (Phase.RUNNING, ChildEnded): _child_ended,
    (Phase.RUNNING, FenceLost): _fence_lost,
    (Phase.STOPPING, Signalled): _signalled_stopping,
    (Phase.STOPPING, LeaderEnded): _leader_ended,
    (Phase.STOPPING, ChildEnded): _child_ended,
    (Phase.STOPPING, FenceLost): _fence_lost,
    (Phase.STOPPING, Tick): _tick_stopping,
    (Phase.DRAINING, Signalled): _signalled_draining,
    (Phase.DRAINING, FenceLost): _fence_lost,
    (Phase.DRAINING, FlushSettled): _settled,
    (Phase.DRAINING, Tick): _tick_draining,
    (Phase.CLOSING, Closed): _closed,
    (Phase.CLOSING, Tick): _tick_closing,
}


def step(state: State, event: Event, now: float) -> tuple[State, Effects]:
    """The next state and what to do. An event that means nothing in this phase changes nothing."""
    handler = TRANSITIONS.get((state.phase, type(event)))
    return (state, ()) if handler is None else handler(state, event, now)
