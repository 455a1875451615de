"""The lease's times, and why a session was not acquired or a fenced statement changed nothing."""

from __future__ import annotations

import pytest

from authsync.core.ownership import (
    HOLDING,
    LEAVING,
    Claim,
    FenceView,
    LeaseTimes,
    NoRow,
    Refusal,
    refusal,
    why_no_row,
)

HERE, ELSEWHERE = "railway:api:production", "local"
US, OTHERS = "owner-1", "owner-2"
TOKEN = 5
PUSH = "push-1"


def test_times() -> None:
    """A lease lasts 10 s and is renewed every 3; from SIGTERM on every second to 3 s."""
    assert (HOLDING.ttl_s, HOLDING.renew_s) == (10.0, 3.0)
    assert (LEAVING.ttl_s, LEAVING.renew_s) == (3.0, 1.0)


@pytest.mark.parametrize(("ttl_s", "renew_s"), [(10.0, 5.0), (3.0, 3.0), (1.0, 10.0)])
def test_impossible_times(ttl_s: float, renew_s: float) -> None:
    """Times that do not survive one lost renewal cannot be made."""
    with pytest.raises(ValueError, match="one lost renewal"):
        LeaseTimes(ttl_s=ttl_s, renew_s=renew_s)


@pytest.mark.parametrize(
    ("scope", "revision", "expected"),
    [
        pytest.param(HERE, 7, Refusal.HELD, id="our scope"),
        pytest.param(ELSEWHERE, 7, Refusal.OTHER_SCOPE, id="another scope"),
        pytest.param(ELSEWHERE, 1, Refusal.OTHER_SCOPE, id="another scope, first revision"),
        pytest.param(ELSEWHERE, 0, Refusal.HELD, id="revision 0 fixes no scope"),
        pytest.param(None, 7, Refusal.HELD, id="no scope"),
    ],
)
def test_refusal(scope: str | None, revision: int, expected: Refusal) -> None:
    """Another service's session is never waited for; one of ours is."""
    claim = Claim(scope=scope, revision=revision, owner=OTHERS, owner_host="h", expires_in_s=3.0)
    assert refusal(claim, scope=HERE) is expected


def view(
    *, owner: str | None = US, token: int = TOKEN, last_push_id: str | None = "earlier", deleted: bool = False
) -> FenceView:
    """What the session's row says."""
    return FenceView(deleted=deleted, owner=owner, token=token, last_push_id=last_push_id)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(None, NoRow.PUT_BACK, id="no row"),
        pytest.param(view(), NoRow.PUT_BACK, id="an older revision under our token"),
        pytest.param(view(last_push_id=None), NoRow.PUT_BACK, id="never written, under our token"),
        pytest.param(view(token=TOKEN - 1), NoRow.PUT_BACK, id="an older token of ours"),
        pytest.param(view(owner=None, token=TOKEN - 1), NoRow.PUT_BACK, id="released before we came"),
        pytest.param(view(last_push_id=PUSH), NoRow.OWN_COMMIT, id="our own commit"),
        pytest.param(
            view(last_push_id=PUSH, owner=OTHERS, token=TOKEN + 1), NoRow.OWN_COMMIT, id="our own commit, then fenced"
        ),
        pytest.param(view(owner=OTHERS, token=TOKEN + 1), NoRow.FENCED, id="another owner"),
        pytest.param(view(owner=OTHERS), NoRow.FENCED, id="another owner with our token"),
        pytest.param(view(token=TOKEN + 1), NoRow.FENCED, id="a later token"),
        pytest.param(view(owner=None, token=TOKEN + 1), NoRow.FENCED, id="another owner that has left"),
        pytest.param(view(owner=None, token=TOKEN + 1, deleted=True), NoRow.TOMBSTONE, id="deleted"),
        pytest.param(view(owner=OTHERS, token=TOKEN + 1, deleted=True), NoRow.TOMBSTONE, id="being deleted"),
    ],
)
def test_why_no_row(row: FenceView | None, expected: NoRow) -> None:
    """The four causes of a statement that changed nothing, told apart by what the row says now."""
    assert why_no_row(row, owner=US, token=TOKEN, push_id=PUSH) is expected
