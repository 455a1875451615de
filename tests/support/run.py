"""authsync as a process: started as its users start it, watched through its log, and ended with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 40.0
"""For what a test waits for; a machine that is busy with other tests may need many times what an idle one does."""
POLL_S = 0.02

_TAG = "TEST_RUN"
"""A variable by which all descendants of a run are found, whatever sessions they made."""

T = TypeVar("T")
Fields = dict[str, Any]


def until(condition: Callable[[], T | None], what: str, *, timeout_s: float = DEADLINE_S) -> T:
    """Ask for ``condition`` until it gives a true value, and return that."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(POLL_S)


class _Stream:
    """The lines of a pipe, read by a thread; those that are a JSON object with an ``event`` are parsed."""

    def __init__(self, pipe: Any, changed: threading.Condition) -> None:  # noqa: ANN401 - IO[str] | None
        self.lines: list[str] = []
        self.events: list[Fields] = []
        self.ended = False
        self._pipe = pipe
        self._changed = changed
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the last process that holds the pipe has closed it."""
        self._thread.join(DEADLINE_S)
        assert self.ended, "a process that was started still holds the output open"

    def _read(self) -> None:
        with self._pipe:
            for line in self._pipe:
                with self._changed:
                    self._take(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        self.lines.append(line)
        with contextlib.suppress(ValueError):
            fields = json.loads(line)
            if isinstance(fields, dict) and "event" in fields:
                self.events.append({**fields, "read_at": time.monotonic()})


class Authsync:
    """One process ``python -m authsync …`` in a working directory of its own; its log is JSON, since nobody watches."""

    def __init__(self, *arguments: str, cwd: Path, env: Mapping[str, str], stdin: str | None = None) -> None:
        self._tag = secrets.token_hex(8)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "authsync", *arguments],
            cwd=cwd,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(cwd),
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(REPOSITORY),
                _TAG: self._tag,
                **env,
            },
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        if stdin is not None:
            assert self.process.stdin
            self.process.stdin.write(stdin)
            self.process.stdin.close()
        self._changed = threading.Condition()
        self._said = _Stream(self.process.stdout, self._changed)
        self._logged = _Stream(self.process.stderr, self._changed)

    # What it wrote

    @property
    def stdout(self) -> str:
        """What it and its child wrote to stdout so far."""
        with self._changed:
            return "\n".join(self._said.lines)

    @property
    def stderr(self) -> str:
        """What it and its child wrote to stderr so far."""
        with self._changed:
            return "\n".join(self._logged.lines)

    def logged(self, event: str, **fields: object) -> list[Fields]:
        """Its log lines so far with this event and these fields."""
        return self._found(self._logged, event, fields)

    def said(self, event: str, **fields: object) -> list[Fields]:
        """What its child said so far, as JSON lines on stdout."""
        return self._found(self._said, event, fields)

    def wait_logged(self, event: str, *, count: int = 1, **fields: object) -> Fields:
        """Wait for the ``count``-th log line with this event and these fields."""
        return self._wait(self._logged, event, count, fields)

    def wait_said(self, event: str, *, count: int = 1, **fields: object) -> Fields:
        """Wait until its child said this."""
        return self._wait(self._said, event, count, fields)

    def _found(self, stream: _Stream, event: str, fields: Mapping[str, object]) -> list[Fields]:
        with self._changed:
            return [
                line
                for line in stream.events
                if line["event"] == event and all(line.get(name) == value for name, value in fields.items())
            ]

    def _wait(self, stream: _Stream, event: str, count: int, fields: Mapping[str, object]) -> Fields:
        deadline = time.monotonic() + DEADLINE_S
        with self._changed:
            while True:
                ended = stream.ended  # read first: what came before the end is then in the list
                found = self._found(stream, event, fields)
                if len(found) >= count:
                    return found[count - 1]
                left_s = deadline - time.monotonic()
                if ended or left_s <= 0:
                    break
                self._changed.wait(left_s)
        how = "it ended without" if ended else f"not within {DEADLINE_S:g} s:"
        raise AssertionError(f"{how} {count} x {event} {dict(fields)}\n{self.report()}")

    # Its end

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    @property
    def child_pid(self) -> int:
        """The child's pid, which is also its group's and its session's number; waits until it runs."""
        return int(self.wait_logged("child_started")["pid"])

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal to the process alone, as a platform does to PID 1."""
        self.process.send_signal(signum)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for its end and for the end of all output; the exit code (negative: by that signal)."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {timeout_s:g} s\n{self.report()}") from None
        self._said.join()
        self._logged.join()
        return code

    def stop(self) -> int:
        """SIGTERM, and wait."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill_all(self) -> float:
        """SIGKILL to everything at once, as where a container's grace is over; the monotonic time just before."""
        children = [int(line["pid"]) for line in self.logged("child_started")]
        at = time.monotonic()
        for group in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.process.kill()
        self.finish()
        return at

    def finish(self) -> None:
        """Kill whatever is left of it and of all that it started."""
        while pids := self._left():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.process.poll() is None:
                self.process.wait(DEADLINE_S)
        self.wait()

    def _left(self) -> list[int]:
        """All living processes that carry the tag."""
        wanted = f"{_TAG}={self._tag}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def report(self) -> str:
        """All that it wrote, for a failed test."""
        return f"--- code {self.process.poll()}, stdout:\n{self.stdout}\n--- stderr:\n{self.stderr}\n---"
