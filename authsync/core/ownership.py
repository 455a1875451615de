"""Who may write a session: the lease's times, and why an acquisition did not succeed.

The lease is a row in the database and expires by the database's clock; nothing here compares clocks of two machines.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How long a lease lasts and how often it is renewed."""

    ttl_s: float
    renew_s: float

    def __post_init__(self) -> None:
        if not self.renew_s * 2 < self.ttl_s:
            raise ValueError("a lease must survive one lost renewal: renew_s * 2 < ttl_s")


HOLDING = LeaseTimes(ttl_s=10.0, renew_s=3.0)
LEAVING = LeaseTimes(ttl_s=3.0, renew_s=1.0)
"""From SIGTERM on: a successor then does not wait for the full TTL of a process that was killed while it stopped."""


class Refusal(Enum):
    """Why a session was not acquired."""

    HELD = auto()
    """A live owner holds it: wait, or give up."""
    OTHER_SCOPE = auto()
    """It belongs to another service: never wait, never ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a session's row says to somebody who was refused."""

    scope: str | None
    revision: int
    owner: str | None
    owner_host: str | None
    expires_in_s: float | None


def refusal(claim: Claim, *, scope: str) -> Refusal:
    """Why a start from ``scope`` was refused. Revision 0 fixes no scope."""
    if claim.revision > 0 and claim.scope is not None and claim.scope != scope:
        return Refusal.OTHER_SCOPE
    return Refusal.HELD


class NoRow(Enum):
    """Why a fenced statement changed nothing: the four causes, told apart by one read."""

    OWN_COMMIT = auto()
    """Our own earlier try had committed, and its answer was lost."""
    TOMBSTONE = auto()
    """The session was deleted: stop the child."""
    FENCED = auto()
    """Another owner or another token: write nothing more."""
    PUT_BACK = auto()
    """An older revision under our own token, or no row at all: the database was put back from a dump or failed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceView:
    """The columns that tell the causes apart."""

    deleted: bool
    owner: str | None
    token: int
    last_push_id: str | None


def why_no_row(view: FenceView | None, *, owner: str, token: int, push_id: str) -> NoRow:
    """The cause, given what the row says now (None: there is none)."""
    if view is None:
        return NoRow.PUT_BACK
    if view.last_push_id == push_id:
        return NoRow.OWN_COMMIT
    if view.token < token or (view.owner in {None, owner} and view.token == token):
        return NoRow.PUT_BACK  # tokens only rise, and only we give ours back: this row is older than we are
    return NoRow.TOMBSTONE if view.deleted else NoRow.FENCED
