"""authsync as it is shipped: in an environment of its own with its five packages, compiled, and nothing else.

The development environment would not do: ``rich`` among its tools makes structlog import that, and a checkout without
``.pyc`` files costs each start half a second.
"""

from __future__ import annotations

import compileall
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
import venv
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import authsync

if TYPE_CHECKING:
    from types import TracebackType

READY_TIMEOUT_S = 120.0
_PACKAGE = Path(authsync.__file__).parent
REPOSITORY = _PACKAGE.parent
_SCRIPT = (
    "#!{python}\nimport sys\nfrom authsync.__main__ import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """An environment that holds authsync."""

    python: Path
    packages: Path

    def command(self, *arguments: str) -> list[str]:
        """The command line of one command, through the script that an installation makes."""
        return [str(self.python.with_name("authsync")), *arguments]

    def command_with_tools(self, *arguments: str) -> list[str]:
        """The same code, run by this interpreter, whose environment holds the development tools too."""
        start = f"import sys; sys.path.insert(0, {str(self.packages)!r}); from authsync.__main__ import main; main()"
        return [sys.executable, "-c", start, *arguments]


def install(folder: Path) -> Installed:
    """Make such an environment out of the packages of this one."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    shutil.copytree(_PACKAGE, packages / "authsync", ignore=shutil.ignore_patterns("__pycache__"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted, seen = list[str](project["dependencies"]), set[str]()
    while wanted:
        name, extras = _name_and_extras(requirement := wanted.pop())
        if requirement not in seen:
            seen.add(requirement)
            wanted += [inner for inner in metadata.requires(name) or () if _applies(inner, extras)]
            _copy(metadata.distribution(name), packages)
    compileall.compile_dir(packages, quiet=2)
    script = folder / "bin" / "authsync"
    script.write_text(_SCRIPT.format(python=folder / "bin" / "python"))
    script.chmod(0o755)
    return Installed(python=folder / "bin" / "python", packages=packages)


def _name_and_extras(requirement: str) -> tuple[str, tuple[str, ...]]:
    match = re.match(r"([\w.-]+)\s*(?:\[([\w, -]*)\])?", requirement)
    assert match is not None
    return match[1].lower().replace("_", "-"), tuple(extra.strip() for extra in (match[2] or "").split(",") if extra)


def _applies(requirement: str, extras: tuple[str, ...]) -> bool:
    """Whether an installed distribution's requirement is one of ours: without an extra, or with one that we want."""
    extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
    if extra is not None and extra[1] not in extras:
        return False
    try:
        metadata.distribution(_name_and_extras(requirement)[0])
    except metadata.PackageNotFoundError:
        return False  # for another Python or another system
    return True


def _copy(distribution: metadata.Distribution, packages: Path) -> None:
    for file in distribution.files or ():
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(file.locate()), target)


def environment(dsn: str = "") -> dict[str, str]:
    """What a process gets: nothing of ours that would change what it does."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AUTHSYNC_", "DATABASE_URL", "PYTHON", "PG", "RAILWAY_", "FLY_"))
    }
    return {**kept, "AUTHSYNC_SCOPE": "bench", **({"DATABASE_URL": dsn} if dsn else {})}


class Running:
    """An ``authsync run``: its log as it comes, and what the kernel says of the process alone."""

    def __init__(self, command: list[str], dsn: str) -> None:
        self._process = subprocess.Popen(
            command,
            env={**environment(dsn), "AUTHSYNC_LOG_FORMAT": "json", "AUTHSYNC_LOG_LEVEL": "debug"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._read, args=(stream, source), daemon=True)
            for stream, source in ((self._process.stdout, "stdout"), (self._process.stderr, "log"))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it as a platform does."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(READY_TIMEOUT_S)

    def _read(self, stream: Any, source: str) -> None:  # noqa: ANN401 - a text stream
        for line in stream:
            if line.startswith("{"):
                self._lines.put({"source": source, **json.loads(line)})

    def wait_for(self, event: str, **fields: object) -> dict[str, Any]:
        """The next line of that event and with those fields; others before it are dropped."""
        give_up_at = time.monotonic() + READY_TIMEOUT_S
        while True:
            line = self._lines.get(timeout=max(0.1, give_up_at - time.monotonic()))
            assert line.get("level") != "error", line
            if line["event"] == event and all(line.get(name) == value for name, value in fields.items()):
                return line

    def forget_lines(self) -> None:
        """Drop what was logged so far."""
        while not self._lines.empty():
            self._lines.get()

    @property
    def cpu_s(self) -> float:
        """User and system time of all its threads."""
        return cpu_s(self._process.pid)

    @property
    def wakeups(self) -> int:
        """How often its threads slept and were woken."""
        found = 0
        for status in Path(f"/proc/{self._process.pid}/task").glob("*/status"):
            match = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status.read_text(), re.MULTILINE)
            found += int(match[1]) if match else 0
        return found

    def memory_mb(self, what: str) -> float:
        """``VmRSS`` or ``VmHWM`` (its peak), or ``Pss``, in which pages shared with others count in part."""
        file = "smaps_rollup" if what == "Pss" else "status"
        return kilobytes(self._process.pid, file, what) / 1024


def kilobytes(pid: int, file: str, what: str) -> int:
    """A figure that the kernel gives of a process."""
    match = re.search(rf"^{what}:\s*(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def cpu_s(pid: int) -> float:
    """User and system time of a process, to the nanosecond: /proc/PID/stat counts in steps of 10 ms."""
    return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) returns on Linux


def logged_at(line: dict[str, Any]) -> float:
    """When a line was logged, in seconds of ``time.time()``."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()
