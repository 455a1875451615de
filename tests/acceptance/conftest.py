"""Fixtures of the acceptance tests: real processes, each ended with all that it started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.bots import IDLE
from tests.support.run import REPOSITORY, Authsync
from tests.support.stored import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator


class Starter:
    """Starts authsync in a test's own working directory, with the test's own database."""

    def __init__(self, cwd: Path, url: str) -> None:
        self.cwd = cwd
        self.url = url
        self._started: list[Authsync] = []

    def __call__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        url: str | None = None,
        env: dict[str, str] | None = None,
        stdin: str | None = None,
    ) -> Authsync:
        """``authsync ARGUMENTS…``; an empty ``url`` is not set at all."""
        url = self.url if url is None else url
        variables = {"DATABASE_URL": url} if url else {}
        run = Authsync(*arguments, cwd=cwd or self.cwd, env={**variables, **(env or {})}, stdin=stdin)
        self._started.append(run)
        return run

    def once(
        self,
        *arguments: str,
        cwd: Path | None = None,
        url: str | None = None,
        env: dict[str, str] | None = None,
        stdin: str | None = None,
    ) -> tuple[int, Authsync]:
        """The same, and wait for its end: the exit code, and what it wrote."""
        run = self(*arguments, cwd=cwd, url=url, env=env, stdin=stdin)
        return run.wait(), run

    def fails(
        self, code: int, *arguments: str, url: str | None = None, env: dict[str, str] | None = None, stdin: str = ""
    ) -> tuple[str, str]:
        """Check that a command fails as all do; returns what is wrong, and what to do."""
        got, run = self.once(*arguments, url=url, env=env, stdin=stdin)
        lines = run.stderr.splitlines()
        told = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
        assert (got, len(told)) == (code, 1)
        assert told[0] + 2 == len(lines), "the two lines are the last ones"
        assert lines[-1].startswith("Try: ")
        assert not run.stdout
        assert "Traceback" not in run.stderr
        return lines[-2].removeprefix("Error: "), lines[-1].removeprefix("Try: ")

    def json(self, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
        """What a command that ends well prints with ``--json``."""
        code, run = self.once(*arguments, "--json", env=env)
        assert code == 0
        printed: dict[str, Any] = json.loads(run.stdout)
        return printed

    def idle(self, *options: str, url: str | None = None, cwd: Path | None = None) -> Authsync:
        """``run`` with a bot that is up and does nothing."""
        run = self("run", *options, "--", *IDLE, url=url, cwd=cwd)
        run.wait_said("up")
        return run

    @property
    def output(self) -> str:
        """What all of them wrote so far."""
        return "\n".join(run.stdout + run.stderr for run in self._started)

    def finish(self) -> None:
        """End all that runs, and tell what each wrote: pytest shows it where the test failed."""
        for run in self._started:
            run.finish()
            print(run.report())


@pytest.fixture
def start(tmp_path: Path, dsn: str) -> Iterator[Starter]:
    """Starts authsync in ``tmp_path``; nothing that it started outlives the test."""
    starter = Starter(tmp_path, dsn)
    yield starter
    starter.finish()


@pytest.fixture
def stored(dsn: str) -> Stored:
    """What the test's database holds of the session ``default``."""
    return Stored(dsn)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the bot's folder is by default; not made yet."""
    return tmp_path / "auth_info"


@pytest.fixture(scope="session")
def baileys() -> Path:
    """The directory of the real client's workload, with its packages."""
    directory = REPOSITORY / "tests/baileys"
    for package in ("baileys6", "baileys7"):
        if not (directory / "node_modules" / package / "package.json").is_file():
            pytest.fail(f"{directory}/node_modules holds no {package}: tests/run installs it")
    return directory
