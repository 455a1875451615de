"""What a creds.json says of an identity: read, never judged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsync.core.identity import Identity, just_paired, read_identity, replaces_paired

KEY = {"private": {"type": "Buffer", "data": "cHJpdmF0ZQ=="}, "public": {"type": "Buffer", "data": "cHVibGlj"}}
OTHER_KEY = {"public": {"type": "Buffer", "data": "b3RoZXI="}}


def read(**creds: object) -> Identity:
    """The identity in a creds.json with these fields."""
    identity = read_identity(json.dumps(creds).encode())
    assert identity is not None
    return identity


PAIRED = read(signedIdentityKey=KEY, account={"details": "x"}, me={"id": "5511987654321:7@s.whatsapp.net"})
OTHER_PAIRED = read(signedIdentityKey=OTHER_KEY, account={"details": "x"}, me={"id": "4915112345678@s.whatsapp.net"})
UNPAIRED = read(signedIdentityKey=KEY)
OTHER_UNPAIRED = read(signedIdentityKey=OTHER_KEY)


@pytest.mark.parametrize(
    ("fields", "paired"),
    [
        pytest.param({"account": {"d": 1}, "me": {"id": "1@s"}}, True, id="account and me.id"),
        pytest.param(
            {"account": {"d": 1}, "me": {"id": "1@s"}, "registered": False}, True, id="registered stays false"
        ),
        pytest.param({"account": {"d": 1}}, False, id="account alone"),
        pytest.param({"me": {"id": "1@s"}}, False, id="me alone"),
        pytest.param({"account": {"d": 1}, "me": {}}, False, id="me without id"),
        pytest.param({"account": {"d": 1}, "me": "1@s"}, False, id="me is no object"),
        pytest.param({"account": None, "me": {"id": "1@s"}}, False, id="account is null"),
        pytest.param({"registered": True}, False, id="registered alone"),
        pytest.param({}, False, id="nothing"),
    ],
)
def test_paired(fields: dict[str, object], *, paired: bool) -> None:
    """An identity is paired when ``account`` and ``me.id`` are there, whatever ``registered`` says."""
    assert read(**fields).paired is paired


@pytest.mark.parametrize(
    ("jid", "number"),
    [
        ("5511987654321:7@s.whatsapp.net", "5511987654321"),
        ("5511987654321@s.whatsapp.net", "5511987654321"),
        ("5511987654321", "5511987654321"),
        ("", ""),
        (None, ""),
        (7, ""),
    ],
    ids=repr,
)
def test_number(jid: object, number: str) -> None:
    """The number is what stands before the device and the server."""
    assert read(me={"id": jid}).number == number


def test_number_hidden() -> None:
    """The number is not in the repr, which ends in logs."""
    assert PAIRED.number == "5511987654321"
    assert "5511987654321" not in repr(PAIRED)


def test_key() -> None:
    """The identity is its public key: other fields and the order of keys do not matter, another key does."""
    turned = dict(reversed([("public", dict(reversed(KEY["public"].items()))), ("extra", 1)]))
    assert read(signedIdentityKey=turned).key_id == UNPAIRED.key_id == PAIRED.key_id != ""
    assert OTHER_UNPAIRED.key_id != UNPAIRED.key_id
    assert "cHVibGlj" not in UNPAIRED.key_id


@pytest.mark.parametrize("key", [None, {}, {"public": None}, {"public": ""}, [], "x"], ids=repr)
def test_no_key(key: object) -> None:
    """Without a public key there is no fingerprint."""
    assert read(signedIdentityKey=key).key_id == ""


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"a": 1', b"\xff\xfe", b"\0" * 8, b"[" * 200_000],
    ids=lambda content: repr(content[:8]),
)
def test_torn(content: bytes) -> None:
    """What is no JSON tells no identity, and reading it never fails."""
    assert read_identity(content) is None


@pytest.mark.parametrize("content", [b"null", b"[]", b'"x"', b"7", b"{}"], ids=repr)
def test_no_identity(content: bytes) -> None:
    """JSON without an identity is nobody: it is not paired, and replaces a paired one."""
    assert read_identity(content) == Identity(key_id="", paired=False, number="")
    assert replaces_paired(PAIRED, read_identity(content))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["account", "me", "id", "signedIdentityKey", "public"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(json_values)
def test_never_fails(value: object) -> None:
    """Any JSON can be read, and only an object with ``account`` and ``me.id`` is paired."""
    identity = read_identity(json.dumps(value).encode())
    assert identity is not None
    assert not identity.paired or (isinstance(value, dict) and {"account", "me"} <= value.keys())


@pytest.mark.parametrize(
    ("stored", "local", "replaces"),
    [
        pytest.param(PAIRED, PAIRED, False, id="the same"),
        pytest.param(PAIRED, UNPAIRED, True, id="the same key, unpaired"),
        pytest.param(PAIRED, OTHER_UNPAIRED, True, id="another, unpaired"),
        pytest.param(PAIRED, OTHER_PAIRED, True, id="another, paired"),
        pytest.param(UNPAIRED, PAIRED, False, id="pairing"),
        pytest.param(UNPAIRED, OTHER_PAIRED, False, id="an unpaired one goes"),
        pytest.param(None, UNPAIRED, False, id="the first"),
        pytest.param(PAIRED, None, False, id="nothing new"),
        pytest.param(None, None, False, id="nothing"),
    ],
)
def test_replaces_paired(stored: Identity | None, local: Identity | None, *, replaces: bool) -> None:
    """A paired identity is replaced by one that is unpaired or has another key; only then a snapshot comes first."""
    assert replaces_paired(stored, local) is replaces


@pytest.mark.parametrize(
    ("earlier", "later", "pairing"),
    [
        pytest.param(UNPAIRED, PAIRED, True, id="pairing"),
        pytest.param(None, PAIRED, True, id="paired at first sight"),
        pytest.param(PAIRED, PAIRED, False, id="paired before"),
        pytest.param(PAIRED, OTHER_PAIRED, False, id="another paired one"),
        pytest.param(None, UNPAIRED, False, id="unpaired"),
        pytest.param(PAIRED, None, False, id="gone"),
    ],
)
def test_just_paired(earlier: Identity | None, later: Identity | None, *, pairing: bool) -> None:
    """A pairing is the step from an identity that is not paired, or none, to one that is."""
    assert just_paired(earlier, later) is pairing
