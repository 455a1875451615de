"""Whole or torn: a truncated or empty read never replaces a good version."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsync.core.torn import StoredForm, Verdict, judge, parses

OBJECT = b'{"noiseKey": {"private": "x"}, "n": 12, "list": [1, 2]}'
ODD = b'{"noiseKey": {"pri'
LONG_S = 3600.0
NOTHING, EMPTY, JSON, OPAQUE = StoredForm.NOTHING, StoredForm.EMPTY, StoredForm.JSON, StoredForm.OPAQUE
WHOLE, TORN, UNSETTLED = Verdict.WHOLE, Verdict.TORN, Verdict.UNSETTLED


@pytest.mark.parametrize(
    ("path", "content", "stored", "still_s", "expected"),
    [
        pytest.param("creds.json", OBJECT, NOTHING, 0.0, WHOLE, id="new JSON"),
        pytest.param("creds.json", OBJECT, EMPTY, 0.0, WHOLE, id="JSON over an empty one"),
        pytest.param("creds.json", OBJECT, JSON, 0.0, WHOLE, id="JSON over JSON"),
        pytest.param("creds.json", OBJECT, OPAQUE, 0.0, WHOLE, id="JSON over an opaque one"),
        pytest.param("creds.json", ODD, JSON, 0.0, TORN, id="half over JSON"),
        pytest.param("creds.json", ODD, JSON, LONG_S, TORN, id="half over JSON, still for an hour"),
        pytest.param("creds.json", b"", JSON, 0.0, TORN, id="empty over JSON"),
        pytest.param("creds.json", b"", JSON, LONG_S, TORN, id="empty over JSON, still for an hour"),
        pytest.param("creds.json", b"", OPAQUE, LONG_S, TORN, id="empty over an opaque .json"),
        pytest.param("notes.txt", b"", OPAQUE, LONG_S, TORN, id="empty over a file of another kind"),
        pytest.param("notes.txt", b"", NOTHING, 0.0, WHOLE, id="new empty file of another kind"),
        pytest.param("notes.txt", b"", EMPTY, 0.0, WHOLE, id="empty over empty"),
        pytest.param("notes.txt", ODD, OPAQUE, 0.0, WHOLE, id="another kind over itself"),
        pytest.param("notes.txt", ODD, NOTHING, 0.0, WHOLE, id="new file of another kind"),
        pytest.param("notes", ODD, JSON, 0.0, WHOLE, id="no .json, whatever it was"),
        pytest.param("key.json", ODD, NOTHING, 0.0, UNSETTLED, id="new, no JSON"),
        pytest.param("key.json", ODD, NOTHING, 4.999, UNSETTLED, id="new, no JSON, still for less than 5 s"),
        pytest.param("key.json", ODD, NOTHING, 5.0, WHOLE, id="new, no JSON, still for 5 s"),
        pytest.param("key.json", ODD, EMPTY, 4.999, UNSETTLED, id="over an empty one, not settled"),
        pytest.param("key.json", ODD, EMPTY, 5.0, WHOLE, id="over an empty one, settled"),
        pytest.param("key.json", ODD, OPAQUE, 0.0, WHOLE, id="over an opaque one: the name was taken as opaque before"),
        pytest.param("key.json", b"", NOTHING, 0.0, UNSETTLED, id="new and empty"),
        pytest.param("key.json", b"", NOTHING, 5.0, WHOLE, id="new and empty, settled"),
        pytest.param("a/creds.json", ODD, JSON, 0.0, TORN, id="nested"),
    ],
)
def test_verdict(path: str, content: bytes, stored: StoredForm, still_s: float, expected: Verdict) -> None:
    """A .json that held JSON must parse, an empty file replaces no other, an odd .json settles after 5 s."""
    assert judge(path, content, stored=stored, still_s=still_s) is expected


@pytest.mark.parametrize("length", range(len(OBJECT)))
def test_every_cut(length: int) -> None:
    """Whatever part of a write was read, the stored version stays, for ever."""
    assert judge("creds.json", OBJECT[:length], stored=JSON, still_s=LONG_S) is TORN


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=3) | st.integers(), min_size=1), st.data())
def test_any_cut(value: dict[str, object], data: st.DataObject) -> None:
    """The same for any object: no proper part of its text parses."""
    content = json.dumps(value).encode()
    cut = data.draw(st.integers(0, len(content) - 1))
    assert judge("x.json", content[:cut], stored=JSON, still_s=LONG_S) is TORN
    assert judge("x.json", content, stored=JSON, still_s=0.0) is WHOLE


@given(st.binary(), st.sampled_from(StoredForm), st.floats(0, 1e6), st.sampled_from(["a.json", "a"]))
def test_empty_over_content(content: bytes, stored: StoredForm, still_s: float, path: str) -> None:
    """An empty file never replaces one that is not empty, and content without tearing is never called torn."""
    verdict = judge(path, content, stored=stored, still_s=still_s)
    if not content and stored in {JSON, OPAQUE}:
        assert verdict is TORN
    if verdict is TORN:
        assert not content or (stored is JSON and path == "a.json" and not parses(content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{}", True),
        (b"7", True),
        (b" null\n", True),
        (b"", False),
        (b"{", False),
        (b"{}{}", False),
        (b"\xff", False),
        (b"\0" * 16, False),
        (b"[" * 200_000, False),
    ],
    ids=lambda value: repr(value[:8]) if isinstance(value, bytes) else str(value),
)
def test_parses(content: bytes, *, expected: bool) -> None:
    """JSON is what parses; whatever the bytes, asking never fails."""
    assert parses(content) is expected
