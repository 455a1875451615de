"""What needs no database loads none of its code: psycopg alone takes longer to import than all else together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import authsync

ROOT = Path(authsync.__file__).parents[1]
HEAVY = {"psycopg", "watchdog", "tenacity"}
PROBE = """
import contextlib, io, json, os, runpy, sys
sys.argv = ["authsync", *sys.argv[1:]]
os._exit = sys.exit
code, out, err = None, io.StringIO(), io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
        runpy.run_module("authsync", run_name="__main__")
    except SystemExit as end:
        code = end.code
print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue(), "loaded": sorted(sys.modules)}))
"""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["--help"], 0, "Usage: authsync", id="--help"),
        pytest.param(["--version"], 0, "authsync ", id="--version"),
        pytest.param(["run", "--help"], 0, "Usage: authsync run", id="run --help"),
        pytest.param(["restore", "--help"], 0, "Usage: authsync restore", id="restore --help"),
        pytest.param(["status", "--help"], 0, "Usage: authsync status", id="status --help"),
        pytest.param(["--no-such-option"], 64, "--no-such-option", id="unknown option"),
        pytest.param(["run", "--no-such-option"], 64, "--no-such-option", id="unknown option of run"),
        pytest.param(["no-such-command"], 64, "no-such-command", id="unknown command"),
        pytest.param(["run"], 64, "no command to run", id="run without a command"),
        pytest.param(["run", "--debounce", "50", "--", "node"], 64, "--debounce", id="bad value"),
        pytest.param([], 64, "Usage: authsync", id="no command"),
    ],
)
def test_light(arguments: list[str], code: int, says: str) -> None:
    """Help, the version and errors of the command line load neither psycopg nor watchdog, and exit with 0 or 64."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"LC_ALL": "C.UTF-8"},
    )
    told = json.loads(done.stdout)
    assert HEAVY.isdisjoint(name.partition(".")[0] for name in told["loaded"])
    assert told["code"] == code
    assert says in (told["err"] if code else told["out"])
    if code and arguments:
        assert [line.partition(":")[0] for line in told["err"].splitlines()] == ["Error", "Try"]


def test_probe_sees() -> None:
    """The probe would see them: the module that runs a bot loads both."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, authsync.daemon; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert set(done.stdout.split()) >= HEAVY
