"""Manifests against brute force: the set digest, the totals and the bots are what a recount gives."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsync.core.manifest import (
    EMPTY_DIGEST,
    Delta,
    Entry,
    Manifest,
    Totals,
    ancestors,
    bot_of,
    content_entry,
    copy_branch,
    folder_of,
    is_creds,
)

if TYPE_CHECKING:
    from random import Random

FOLDERS = ("", "a", "a/b", "a/b/c", "ab", "z")
NAMES = ("creds.json", "creds.json.x", "my-creds.json", "k.json", "ü")
PATHS = tuple(f"{folder}/{name}".lstrip("/") for folder in FOLDERS for name in NAMES)

paths = st.sampled_from(PATHS)
entries = st.binary(max_size=3).map(content_entry)
files = st.dictionaries(paths, entries)
deltas = st.builds(Delta, changed=files, removed=st.frozensets(paths))


def digest_of(held: dict[str, Entry]) -> bytes:
    """The set digest by its definition: the sum of the files' digests, modulo 2**256."""
    elements = (hashlib.sha256(path.encode() + b"\0" + entry.sha256).digest() for path, entry in held.items())
    return (sum(int.from_bytes(element, "big") for element in elements) % 2**256).to_bytes(32, "big")


def owner_of(path: str, bots: set[str]) -> str | None:
    """The bot of a path, by trying all: the longest folder above it that holds a creds.json."""
    above = [bot for bot in bots if not bot or path.startswith(f"{bot}/")]
    return max(above, key=len) if above else None


def after(held: dict[str, Entry], delta: Delta) -> dict[str, Entry]:
    """What a delta makes of a dictionary."""
    return {path: entry for path, entry in held.items() if path not in delta.removed} | dict(delta.changed)


def assert_equals(manifest: Manifest, held: dict[str, Entry]) -> None:
    """Everything that a manifest tells is what a recount of ``held`` gives."""
    assert dict(manifest.items()) == held
    assert set(manifest) == set(held)
    assert len(manifest) == len(held)
    assert manifest.totals == Totals(
        digest=digest_of(held), file_count=len(held), total_bytes=sum(entry.size_bytes for entry in held.values())
    )
    bots = {path.rpartition("/")[0] for path in held if path.split("/")[-1] == "creds.json"}
    assert manifest.bots == bots
    for bot in bots:
        assert manifest.files_of(bot) == {path for path in held if owner_of(path, bots) == bot}
        assert manifest.count_of(bot) == len(manifest.files_of(bot))
    assert manifest.count_of(None) == sum(owner_of(path, bots) is None for path in held)
    assert manifest.is_folder("") == bool(held)
    for folder in FOLDERS[1:]:
        inside = {path for path in held if path.startswith(f"{folder}/")}
        assert manifest.below(folder) == inside
        assert manifest.is_folder(folder) == bool(inside)
    for path in PATHS:
        assert (path in manifest) == (path in held)
        assert manifest.get(path) == held.get(path)


def test_empty() -> None:
    """A manifest of nothing has the digest of zero bytes, and no bots."""
    assert Manifest().totals == Totals(digest=EMPTY_DIGEST, file_count=0, total_bytes=0)
    assert_equals(Manifest(), {})


def test_content_entry() -> None:
    """A file's entry is the SHA-256 of its content and its size."""
    assert content_entry(b"abc") == (
        bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        3,
    )


def test_known_digest() -> None:
    """The stored digests of all versions are the same: this one is written down."""
    manifest = Manifest({"creds.json": content_entry(b"{}"), "a/k.json": content_entry(b"")})
    assert manifest.digest.hex() == "ab029f955c7a299713065962d1b5fa59b1780eacb2aff7db8e9cecb77abc0de4"


@given(files, st.randoms())
def test_order_free(held: dict[str, Entry], random: Random) -> None:
    """The digest does not depend on the order in which files come."""
    shuffled = list(held.items())
    random.shuffle(shuffled)
    assert Manifest(dict(shuffled)).digest == Manifest(held).digest


@given(files, files)
def test_digest_tells_apart(one: dict[str, Entry], other: dict[str, Entry]) -> None:
    """Two sets have the same digest exactly if they are the same."""
    assert (Manifest(one).digest == Manifest(other).digest) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"a": b"x", "b": b"y"}, {"a": b"y", "b": b"x"}, id="contents swapped"),
        pytest.param({"a": b"x"}, {"b": b"x"}, id="renamed"),
        pytest.param({"a": b"x"}, {"a": b"x", "b": b""}, id="an empty file more"),
        pytest.param({"a": b"x", "b": b"x"}, {"a": b"x"}, id="one of two equal ones less"),
    ],
)
def test_near_misses(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """Sets that differ in one thing alone have different digests."""
    first, second = (Manifest({path: content_entry(c) for path, c in held.items()}) for held in (one, other))
    assert first.digest != second.digest


@given(st.lists(st.tuples(paths, st.none() | entries), max_size=60))
def test_put_and_drop(steps: list[tuple[str, Entry | None]]) -> None:
    """After any history of puts and drops a manifest tells what a recount does."""
    manifest = Manifest()
    held: dict[str, Entry] = {}
    for path, entry in steps:
        if entry is None:
            manifest.drop(path)
            held.pop(path, None)
        else:
            manifest.put(path, entry)
            held[path] = entry
    assert_equals(manifest, held)


def test_below_root() -> None:
    """Below the root, which is written as an empty string everywhere, lies everything."""
    held = {path: content_entry(b"x") for path in PATHS}
    assert Manifest(held).below("") == held.keys()


@given(files, deltas)
def test_apply(held: dict[str, Entry], delta: Delta) -> None:
    """A delta applied gives the manifest that is built from scratch, and ``totals_after`` told so before."""
    manifest = Manifest(held)
    foretold = manifest.totals_after(delta)
    assert manifest.totals == Manifest(held).totals, "foretelling changes nothing"
    manifest.apply(delta)
    assert foretold == manifest.totals
    assert_equals(manifest, after(held, delta))


@given(files, deltas)
def test_delta_to(held: dict[str, Entry], delta: Delta) -> None:
    """The delta between two manifests turns the one into the other, holds nothing else, and is empty for equal ones."""
    one, other = Manifest(held), Manifest(after(held, delta))
    found = one.delta_to(other)
    assert all(one.get(path) != entry for path, entry in found.changed.items())
    assert all(path in one and path not in other for path in found.removed)
    assert bool(found) == (one.digest != other.digest)
    one.apply(found)
    assert_equals(one, dict(other.items()))
    assert not one.delta_to(other)


@given(files, deltas)
def test_copy(held: dict[str, Entry], delta: Delta) -> None:
    """A copy and its original do not change each other."""
    original = Manifest(held)
    twin = original.copy()
    twin.apply(delta)
    assert_equals(original, held)
    assert_equals(twin, after(held, delta))


@pytest.mark.parametrize(
    ("path", "bots", "expected"),
    [
        pytest.param("k.json", {""}, "", id="root"),
        pytest.param("a/k.json", {""}, "", id="folder of the root's bot"),
        pytest.param("a/k.json", {"", "a"}, "a", id="nested bot"),
        pytest.param("a/b/k.json", {"", "a"}, "a", id="folder of a nested bot"),
        pytest.param("ab/k.json", {"a"}, None, id="a name that only begins alike"),
        pytest.param("a", {"a"}, None, id="a file with the name of a bot"),
        pytest.param("k.json", {"a"}, None, id="beside the bots"),
        pytest.param("k.json", set(), None, id="no bots"),
    ],
)
def test_bot_of(path: str, bots: set[str], expected: str | None) -> None:
    """A file belongs to the nearest folder above it that holds a creds.json."""
    assert bot_of(path, bots) == expected


def test_paths() -> None:
    """The folders above a path, the nearest first; a creds.json is one by its whole name."""
    assert list(ancestors("a/b/c.json")) == ["a/b", "a", ""]
    assert list(ancestors("c.json")) == [""]
    assert list(ancestors("")) == []
    assert [folder_of(path) for path in ("a/b/c", "a/b", "a")] == ["a/b", "a", ""]
    assert [path for path in PATHS if is_creds(path)] == [f"{folder}/creds.json".lstrip("/") for folder in FOLDERS]


@pytest.mark.parametrize(
    ("digest", "branch"),
    [
        pytest.param(bytes(32), 1, id="zeros"),
        pytest.param(bytes(7) + b"\1" + b"\xff" * 24, 1, id="one"),
        pytest.param(b"\xff" * 32, 2**63 - 1, id="the largest bigint"),
        pytest.param(bytes(7) + b"\4" + bytes(24), 2, id="small"),
    ],
)
def test_copy_branch(digest: bytes, branch: int) -> None:
    """A copy's branch derives from its digest, so that the same folder is kept once; it is never the line's, 0."""
    assert copy_branch(digest) == branch


@given(st.binary(min_size=32, max_size=32))
def test_copy_branch_range(digest: bytes) -> None:
    """A copy's branch fits PostgreSQL's bigint and is positive."""
    assert 0 < copy_branch(digest) < 2**63
