"""What ``authsync run`` takes beside the bot: memory and CPU of its process alone."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.bench import corpus
from tests.bench.product import REPOSITORY, Installed, Running, cpu_s, environment, kilobytes
from tests.bench.samples import Row, Spread, paired

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.postgres import Postgres

RSS_TARGET_MB = 48.0
IDLE_TARGET_PERCENT = 0.2
FILES = 1000
MESSAGES_PER_S = 20
_BAILEYS = REPOSITORY / "tests" / "baileys"
# What no program with these packages gets below.
_PACKAGES_ALONE = "import click, psycopg, structlog, tenacity, time, watchdog.observers; time.sleep(60)"


def memory(postgres: Postgres, installed: Installed, work: Path, *, quick: bool) -> Iterator[Row]:
    """Resident memory of ``run``, after a restore and after an adoption, with and without development tools."""
    dsn = postgres.create_database()
    floor = _memory_of_packages(installed)
    work = work / "memory"
    work.mkdir()
    shapes = (
        ("after a first backup", "source", installed.command),
        ("after a restore", "restored", installed.command),
        ("the same, tools installed", "restored-too", installed.command_with_tools),
    )
    corpus.write_folder(work / "source", FILES)
    for what, name, command in shapes:
        with _running(command("run", "--dir", str(work / name), "--", "sleep", "86400"), dsn) as running:
            time.sleep(2.0 if quick else 5.0)
            figures = {figure: running.memory_mb(figure) for figure in ("VmRSS", "Pss", "VmHWM")}
        for figure, label in (("VmRSS", "RSS"), ("Pss", "PSS"), ("VmHWM", "peak RSS")):
            limited = figure == "VmRSS" and command == installed.command
            yield paired(
                "memory of run",
                f"{label} at {FILES:,} files, {what}",
                "MB",
                [(figures[figure], floor[figure])],
                against="its packages, imported",
                target=RSS_TARGET_MB if limited else None,
                limited="ours",
            )


def idle(postgres: Postgres, installed: Installed, work: Path, *, quick: bool) -> Iterator[Row]:
    """CPU and wakeups while nothing changes."""
    dsn = postgres.create_database()
    corpus.write_folder(work / "idle", FILES)
    percents, wakeups = [], []
    with _running(installed.command("run", "--dir", str(work / "idle"), "--", "sleep", "86400"), dsn) as running:
        time.sleep(5.0)
        for _ in range(1 if quick else 3):
            began, cpu, woken = time.monotonic(), running.cpu_s, running.wakeups
            time.sleep(30.0)
            elapsed_s = time.monotonic() - began
            percents.append((running.cpu_s - cpu) / elapsed_s * 100)
            wakeups.append((running.wakeups - woken) / elapsed_s)
    yield Row(
        suite="idle run",
        what=f"CPU over 30 s at {FILES:,} files",
        unit="% of a core",
        ours=Spread.of(percents),
        target=IDLE_TARGET_PERCENT,
    )
    yield Row(suite="idle run", what="wakeups", unit="1/s", ours=Spread.of(wakeups))


def busy(postgres: Postgres, installed: Installed, work: Path, *, quick: bool) -> Iterator[Row]:
    """CPU beside a real Baileys client at 20 messages a second, against the client's own."""
    dsn = postgres.create_database()
    seconds = 15 if quick else 60
    bot = ["node", str(_BAILEYS / "workload.mjs"), "--dir", str(work / "busy"), "--rate", str(MESSAGES_PER_S)]
    bot += ["--seconds", str(seconds), "pair", "chat"]
    _install_baileys()
    with Running(installed.command("run", "--dir", str(work / "busy"), "--", *bot), dsn) as running:
        client = int(running.wait_for("start")["pid"])
        running.wait_for("phase", name="chat")
        time.sleep(2.0)  # what the pairing left to flush
        pairs, flushes, files = [], 0, 0
        began, cpu = time.monotonic(), (running.cpu_s, cpu_s(client))
        while time.monotonic() - began < seconds - 5:
            line = running.wait_for("flush_done")
            flushes, files = flushes + 1, files + line["files"]
        elapsed_s = time.monotonic() - began
        pairs.append(((running.cpu_s - cpu[0]) / elapsed_s * 100, (cpu_s(client) - cpu[1]) / elapsed_s * 100))
        rss = running.memory_mb("VmRSS")
    suite = f"run at {MESSAGES_PER_S} messages/s"
    yield paired(suite, "CPU", "% of a core", pairs, against="the Baileys client itself")
    yield Row(suite=suite, what="flushes", unit="1/s", ours=Spread.of([flushes / elapsed_s]))
    yield Row(suite=suite, what="files stored", unit="1/s", ours=Spread.of([files / elapsed_s]))
    yield Row(suite=suite, what="RSS", unit="MB", ours=Spread.of([rss]))


@contextmanager
def _running(command: list[str], dsn: str) -> Iterator[Running]:
    with Running(command, dsn) as running:
        running.wait_for("child_started")
        yield running


def _memory_of_packages(installed: Installed) -> dict[str, float]:
    with subprocess.Popen([installed.python, "-c", _PACKAGES_ALONE], env=environment()) as process:
        time.sleep(3.0)
        files = {"VmRSS": "status", "Pss": "smaps_rollup", "VmHWM": "status"}
        found = {what: kilobytes(process.pid, file, what) / 1024 for what, file in files.items()}
        process.terminate()
    return found


def _install_baileys() -> None:
    """As tests/run does, once."""
    ready = _BAILEYS / "node_modules" / ".ready"
    if not ready.exists():
        words = ("--ignore-scripts", "--no-audit", "--no-fund", "--omit-lockfile-registry-resolved", "--loglevel=error")
        subprocess.run(["npm", "install", *words], cwd=_BAILEYS, check=True, stdout=sys.stderr)
        ready.touch()
