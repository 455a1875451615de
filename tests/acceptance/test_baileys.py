"""The main job with the real client: its identity survives its container, whatever end that finds."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.run import DEADLINE_S, until
from tests.support.stored import Stored, digest_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Starter

MAX_DELAY_S = 0.25  # --max-delay
DELETION_DELAY_S = 2.0  # a deletion waits for 1 s, and for 2 s where it is one of over a quarter of the files
SECOND_LOOK_S = 0.1  # a file that was read in the middle of a write is read again after so long
# From the kernel's event to the commit a change passes four threads of authsync and a process of PostgreSQL, on cores
# that also run the client at full speed and a second test with all of its processes: each may wait for a few slices.
SCHEDULING_S = 0.3

ROUNDS = 6

both = pytest.mark.parametrize("version", ["7", "6"])


def command(baileys: Path, version: str, *arguments: str) -> list[str]:
    """``run`` with the workload as the bot."""
    options = ["--baileys", version, "--rate", "20", "--prekeys", "200", "--churn", "20"]
    return ["run", "--", "node", str(baileys / "workload.mjs"), *options, *arguments]


@both
def test_container_lost(start: Starter, stored: Stored, folder: Path, baileys: Path, version: str) -> None:
    """After an end in good order a new container goes on from exactly what the client wrote last."""
    run = start(*command(baileys, version, "--seconds", "1", "pair", "chat", "churn"))
    assert run.wait() == 0
    paired = run.wait_said("final")
    assert digest_of(stored.files()) == paired["state_sha256"]
    assert [line["reason"] for line in run.logged("stopped")] == ["child ended"]

    shutil.rmtree(folder)
    run = start(*command(baileys, version, "--seconds", "60", "--progress", "100", "chat"))
    begun = run.wait_said("start")
    assert (begun["sha256"], begun["paired"]) == (paired["state_sha256"], True)
    run.wait_said("progress", count=5)
    assert run.stop() == 0
    stopped = run.wait_said("final")
    assert stopped["exit"] == "SIGTERM"
    undamaged(stopped)
    assert digest_of(stored.files()) == stopped["state_sha256"]

    shutil.rmtree(folder)
    run = start(*command(baileys, version, "--seconds", "1", "chat"))
    assert run.wait() == 0
    again = run.wait_said("final")
    assert again["start_sha256"] == stopped["state_sha256"]
    undamaged(again)


def undamaged(final: dict[str, Any]) -> None:
    """All contacts that the client met could be talked to."""
    assert final["contacts_seen"] > 0
    assert final["contacts_failed"] == 0
    assert final["counts"]["decrypt_errors"] == 0
    assert final["counts"]["peer_decrypt_errors"] == 0


@both
def test_killed(start: Starter, stored: Stored, folder: Path, baileys: Path, version: str) -> None:
    """What is stored when everything is killed is at most the maximum delay and one flush old, and never torn."""
    seed = int(os.environ.get("TEST_SEED", random.randrange(1 << 32)))
    print(f"TEST_SEED={seed}")
    rng = random.Random(seed)
    log = folder.with_name("oracle.jsonl")
    slowest_flush_s, was_paired = 0.0, False
    held: dict[str, bytes] = {}
    few = ["--contacts", "10", "--groups", "2", "--members", "5", "--no-world"]
    for number in range(ROUNDS):
        run = start(
            # Hardly ever quiet for --debounce.
            *command(baileys, version, "--rate", "60", "--seconds", "60", *few, "pair", "churn", "chat"),
            env={
                "AUTHSYNC_TAKEOVER": "force",  # instead of waiting until the lease of the killed one has expired
                "NODE_OPTIONS": f"--import={(baileys / 'oracle.mjs').as_uri()}",
                "ORACLE_DIR": str(folder),
                "ORACLE_LOG": str(log),
            },
        )
        begun = run.wait_said("start")
        assert (begun["sha256"], begun["paired"]) == (digest_of(held), was_paired)
        if number > 0 and not was_paired:  # only the first is killed while it pairs
            run.wait_logged("bot_paired")
        writes = rng.randrange(1, 150)
        until(lambda: log.exists() and log.read_text().count("begin") >= writes, f"{writes=}")  # noqa: B023
        time.sleep(rng.uniform(0, 0.5))  # the moment of the kill is what is tried out
        killed_at = run.kill_all()
        until(lambda: not stored.connections(), "what the killed one had sent is carried out, or given up")
        flushes = [line["took_ms"] / 1000 for line in run.logged("flush_done") if "took_ms" in line]
        slowest_flush_s = max(slowest_flush_s, *flushes, 0.0)
        assert not run.logged("failed") + run.logged("database_away")

        known = history(log, held)
        held = stored.files()
        late_s = {path: versions.late_s(held.get(path), killed_at) for path, versions in known.items()}
        latest = max(late_s, key=lambda path: late_s[path], default="")
        print(f"round {number}: {len(held)} files, {latest} late by {late_s.get(latest, 0):.3f} s, {slowest_flush_s=}")
        assert late_s.get(latest, 0) <= MAX_DELAY_S + slowest_flush_s + SCHEDULING_S
        assert held.keys() <= known.keys()
        assert all(json.loads(content) is not None for content in held.values())
        creds = json.loads(held.get("creds.json", b"{}"))
        was_paired = "account" in creds and "id" in creds.get("me", {})
        log.unlink()
        shutil.rmtree(folder)
    assert was_paired

    run = start(*command(baileys, version, "--seconds", "1", *few, "chat"), env={"AUTHSYNC_TAKEOVER": "force"})
    assert run.wait() == 0
    assert run.wait_said("start")["sha256"] == digest_of(held)
    assert digest_of(stored.files()) == run.wait_said("final")["state_sha256"]


@both
def test_oracle(tmp_path: Path, baileys: Path, version: str) -> None:
    """The oracle of the kills sees all that the client writes and removes."""
    log, folder = tmp_path / "oracle.jsonl", tmp_path / "auth_info"
    workload = command(baileys, version, "--no-world", "pair", "churn")[3:]
    subprocess.run(
        ["node", "--import", str(baileys / "oracle.mjs"), *workload],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "ORACLE_DIR": str(folder), "ORACLE_LOG": str(log)},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=DEADLINE_S,
    )
    known = history(log, {})
    assert all(version.done_at is not None for versions in known.values() for version in versions.all)
    last = {path: versions.all[-1].sha256 for path, versions in known.items()}
    assert {path: digest for path, digest in last.items() if digest} == {
        path.name: sha256(path.read_bytes()) for path in folder.iterdir()
    }
    assert None in last.values()
    assert len(known["creds.json"].all) > 5


@dataclass(slots=True)
class Version:
    """One version of a file as the client wrote it; no digest: it was removed."""

    sha256: str | None
    begun_at: float
    done_at: float | None = None


@dataclass(slots=True)
class Versions:
    """All versions of one file, the oldest first; number 0 is what the folder was restored to."""

    all: list[Version] = field(default_factory=lambda: [Version(None, 0.0, 0.0)])

    def late_s(self, content: bytes | None, killed_at: float) -> float:
        """For how long the file was newer than what is stored, or was gone, over what such a change may wait."""
        digest = None if content is None else sha256(content)
        stored = [number for number, version in enumerate(self.all) if version.sha256 == digest]
        assert stored, f"{digest} was never written: {self.all}"
        late_s, until_at = 0.0, killed_at
        newer = reversed(self.all[stored[-1] + 1 :])
        for is_gone, group in itertools.groupby(newer, key=lambda version: version.sha256 is None):
            versions = list(group)
            whole_at = min((version.done_at for version in versions if version.done_at is not None), default=until_at)
            may_wait_s = DELETION_DELAY_S if is_gone else SECOND_LOOK_S * (len(versions) - 1)
            late_s = max(late_s, until_at - whole_at - may_wait_s)
            until_at = versions[-1].begun_at
        return late_s


def history(log: Path, held: dict[str, bytes]) -> dict[str, Versions]:
    """What the client wrote by the oracle's log, after what the folder was restored to."""
    known = {path: Versions([Version(sha256(content), 0.0, 0.0)]) for path, content in held.items()}
    pending: dict[int, Version] = {}
    for text in log.read_text().splitlines():
        line = json.loads(text)
        assert line["event"] != "unknown", line
        if line["event"] == "begin":
            pending[line["id"]] = version = Version(line["sha256"], line["t"] / 1e9)
            known.setdefault(line["path"], Versions()).all.append(version)
        elif line["event"] == "end":
            pending[line["id"]].done_at = line["t"] / 1e9
        else:  # nothing was changed: mostly the removal of a file that is not there
            known[line["path"]].all.remove(pending[line["id"]])
    return known


def sha256(content: bytes) -> str:
    """The digest as the oracle notes it."""
    return hashlib.sha256(content).hexdigest()
