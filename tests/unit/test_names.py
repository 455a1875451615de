"""Which paths are synced, which are safe, and how numbers are masked."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsync.core.names import NameRules, family, is_twin, mask_numbers, unsafe_reason


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        pytest.param("", "leaves the folder", id="empty"),
        pytest.param(".", "leaves the folder", id="dot"),
        pytest.param("..", "leaves the folder", id="dots"),
        pytest.param("../creds.json", "leaves the folder", id="parent"),
        pytest.param("a/../../creds.json", "leaves the folder", id="parent inside"),
        pytest.param("a/..", "leaves the folder", id="parent at the end"),
        pytest.param("./creds.json", "leaves the folder", id="dot first"),
        pytest.param("/etc/passwd", "leaves the folder", id="absolute"),
        pytest.param("//etc/passwd", "leaves the folder", id="absolute twice"),
        pytest.param("a//b", "leaves the folder", id="empty part"),
        pytest.param("a/", "leaves the folder", id="slash at the end"),
        pytest.param("a\0b", "holds a NUL", id="NUL"),
        pytest.param("a/\udcff.json", "is not UTF-8", id="not UTF-8"),
        pytest.param("x" * 256, "is too long", id="name of 256"),
        pytest.param("ü" * 128, "is too long", id="name of 256 bytes"),
        pytest.param("/".join(["x" * 199] * 10) + "xx", "is too long", id="path of 2001 bytes"),
        pytest.param(".authsync.json", "is a name of authsync's own", id="marker"),
        pytest.param(".authsync.sock", "is a name of authsync's own", id="socket"),
        pytest.param("a/.authsync-stage/b", "is a name of authsync's own", id="stage below"),
    ],
)
def test_unsafe(path: str, reason: str) -> None:
    """What would leave the folder, cannot be stored or is our own must never be written."""
    assert unsafe_reason(path) == reason


@pytest.mark.parametrize(
    "path",
    [
        "creds.json",
        "user_17/creds.json",
        "...",
        "..a",
        "a..",
        ".hidden/x",
        "session-5511987654321@s.whatsapp.net.json",
        "C:\\x",
        "a b\n\t.json",
        "ü/😀.json",
        "x" * 255,
        "/".join(["x" * 199] * 10) + "x",
        "my.authsync.json",
    ],
    ids=lambda path: ascii(path[:20]),
)
def test_safe(path: str) -> None:
    """Everything else may be written, odd as it looks."""
    assert unsafe_reason(path) is None


@given(st.lists(st.sampled_from([*"./\\a\0ü\udcff", "..", ".authsync"]), max_size=12).map("".join))
def test_stays_below(path: str) -> None:
    """A path that is safe names exactly one place below the folder."""
    if unsafe_reason(path) is None:
        assert os.path.normpath(f"/root/{path}") == f"/root/{path}"


@pytest.mark.parametrize(
    ("path", "belongs"),
    [
        pytest.param("creds.json", True, id="creds"),
        pytest.param("a/b/creds.json", True, id="nested"),
        pytest.param("README", True, id="any name"),
        pytest.param("creds.json.tmp", False, id="tmp"),
        pytest.param("a/creds.json.bak", False, id="bak"),
        pytest.param("creds.tmp.json", True, id="tmp inside"),
        pytest.param(".authsync.json", False, id="marker"),
        pytest.param(".authsync-stage/creds.json", False, id="stage"),
        pytest.param("a/.authsync.json", False, id="marker below"),
        pytest.param("a.authsync.json", True, id="a name that only contains ours"),
        pytest.param(".authority.json", True, id="another hidden file"),
    ],
)
def test_belongs(path: str, *, belongs: bool) -> None:
    """All is synced but our own files and a writer's half-finished and previous versions."""
    assert NameRules().belongs(path) is belongs


@pytest.mark.parametrize(
    ("globs", "path", "belongs"),
    [
        pytest.param(("*.log",), "x.log", False, id="name"),
        pytest.param(("*.log",), "a/b/x.log", False, id="name below"),
        pytest.param(("*.log",), "x.log.json", True, id="whole name only"),
        pytest.param(("media/*",), "media/a/x.jpg", False, id="whole path"),
        pytest.param(("media/*",), "a/media/x.jpg", True, id="path from the root"),
        pytest.param(("a", "b.json"), "b.json", False, id="any of several"),
        pytest.param(("a", "b.json"), "c.json", True, id="none of several"),
        pytest.param(("pre-key-[0-9].json",), "pre-key-7.json", False, id="class"),
        pytest.param(("a.json",), "aXjson", True, id="a dot is a dot"),
    ],
)
def test_ignored(globs: tuple[str, ...], path: str, *, belongs: bool) -> None:
    """``--ignore`` globs are held against the whole path and against the last name."""
    assert NameRules(ignore=globs).belongs(path) is belongs


def test_twins() -> None:
    """A writer's twins are told by their last suffix."""
    assert [path for path in ("a.tmp", "a.bak", "a.tmp/x", "tmp", "a.TMP") if is_twin(path)] == ["a.tmp", "a.bak"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("creds.json", "creds"),
        ("user_17/creds.json", "creds"),
        ("pre-key-812.json", "pre-key"),
        ("session-5511987654321.0.json", "session"),
        ("sender-key-123@g.us--5511987654321--0.json", "sender-key"),
        ("sender-key-memory-123@g.us.json", "sender-key-memory"),
        ("app-state-sync-key-AAAAAF.json", "app-state-sync-key"),
        ("app-state-sync-version-critical_block.json", "app-state-sync-version"),
        ("identity-key-5511987654321.0.json", "identity-key"),
        ("device-list-5511987654321.json", "device-list"),
        ("lid-mapping-5511987654321.json", "lid-mapping"),
        ("tctoken-5511987654321.json", "tctoken"),
        ("sessions.json", "other"),
        ("pre-keys.db", "other"),
        ("session-1/notes.txt", "other"),
    ],
)
def test_family(name: str, expected: str) -> None:
    """A file's family is told by its name alone."""
    assert family(name) == expected


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        pytest.param("5511987654321", "5511*****4321", id="number"),
        pytest.param("session-5511987654321.0.json", "session-5511*****4321.0.json", id="file name"),
        pytest.param("5511987654321 and 4915112345678", "5511*****4321 and 4915*****5678", id="two"),
        pytest.param("12345678", "12*****78", id="eight digits"),
        pytest.param("1234567", "1234567", id="seven digits"),
        pytest.param("revision 812 in 12.5 ms", "revision 812 in 12.5 ms", id="other numbers"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_masked(text: str, masked: str) -> None:
    """A number is shown by its first and last four digits; what is too short for a phone number stays."""
    assert mask_numbers(text) == masked


@pytest.mark.parametrize("length", range(8, 16))
def test_enough_hidden(length: int) -> None:
    """Of a number of any length at least four digits are hidden: fewer are quickly tried."""
    number = "9876543210987654"[:length]
    assert sum(char.isdigit() for char in mask_numbers(number)) <= length - 4


@given(st.text(alphabet=st.sampled_from("0123456789a-"), max_size=60))
def test_nothing_left(text: str) -> None:
    """No run of eight digits survives masking, and masking again changes nothing."""
    masked = mask_numbers(text)
    assert re.search(r"\d{8}", masked) is None
    assert mask_numbers(masked) == masked
    assert (masked == text) == (re.search(r"\d{8}", text) is None)
