"""A torn or empty file never replaces a good one, and holds up no other file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.bots import creds, session, write
from tests.support.run import until
from tests.support.stored import Stored, digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Starter


def test_left_torn(start: Starter, stored: Stored, folder: Path) -> None:
    """A ``creds.json`` that stays torn for seconds leaves the stored one whole; when it is whole it is stored.

    A ``.json`` that never held JSON is stored as it is when it has been still for as long.
    """
    run = start.idle()
    expected = session()
    write(folder, expected)
    until(lambda: stored.files() == expected, "the first files are stored")
    write(folder, {"creds.json": b"", "notes.json": b"not { JSON"})
    number = 0

    def write_another() -> None:
        nonlocal number
        number += 1
        expected[f"session-{number}.json"] = content = b"%d" % number
        write(folder, {f"session-{number}.json": content})
        until(
            lambda: {**stored.files(), "notes.json": b""} == {**expected, "notes.json": b""},
            "the other files go on, and creds.json is as it was",
        )

    while not run.logged("file_torn", path="creds.json", level="warning"):
        write_another()
    assert number > 5
    expected["notes.json"] = b"not { JSON"
    until(lambda: stored.files() == expected, "what is no JSON is stored")
    write(folder, {"creds.json": creds(counter=1)[:40]})
    for _ in range(5):
        write_another()
    write(folder, {"creds.json": creds(counter=1)})
    expected["creds.json"] = creds(counter=1)
    until(lambda: stored.files() == expected, "the whole one is stored")
    assert run.stop() == 0
    assert stored.files() == expected


def test_torn_at_the_end(start: Starter, stored: Stored, folder: Path) -> None:
    """A bot that dies in the middle of a save leaves the stored file as it was, and the next start mends the folder."""
    run = start.idle()
    write(folder, session())
    until(lambda: stored.files() == session(), "the first files are stored")
    write(folder, {"creds.json": b"", "pre-key-1.json": b'{"n"'})
    run.stop()
    assert stored.files() == session()
    start.idle()
    assert {name: (folder / name).read_bytes() for name in session()} == session()


@pytest.mark.parametrize("version", ["7", "6"])
def test_stalled_client(start: Starter, stored: Stored, folder: Path, baileys: Path, version: str) -> None:
    """The real client, busy with other things in the middle of its saves, never has a torn file stored."""
    options = ["--baileys", version, "--rate", "20", "--seconds", "1", "--prekeys", "100", "--creds-every", "5"]
    run = start("run", "--", "node", str(baileys / "workload.mjs"), *options, "--stall", "300", "pair", "chat")
    run.wait_said("start")
    empty_on_disk = 0
    while not run.said("final"):
        assert run.alive
        with_creds = folder / "creds.json"
        empty_on_disk += with_creds.exists() and with_creds.stat().st_size == 0
        for content in stored.files().values():
            json.loads(content)
    assert empty_on_disk, "the client was never caught in the middle of a save"
    assert run.wait() == 0
    assert digest_of(stored.files()) == run.wait_said("final")["state_sha256"]
