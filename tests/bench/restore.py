"""A restore as a whole process into a new folder, against the least that could do it: psql's COPY and ``tar -x``.

The folders lie on one file system, each run gets a new one, and none is removed before all have been timed: creating
files right after a mass deletion measures the deletion.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING

from tests.bench import corpus
from tests.bench.product import Installed, environment, kilobytes
from tests.bench.samples import Row, Spread, interleaved, paired

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.postgres import Postgres

_TARGETS = {10_000: 1.3, 50_000: 1.0}
_PAIRS = {1000: 15, 10_000: 9, 50_000: 4}
_IMPORTS = "import click, psycopg, structlog, tenacity"
_COPY = "COPY (SELECT path, content FROM authsync.files WHERE session_id = 'default' AND died IS NULL) TO STDOUT"


def restore(postgres: Postgres, installed: Installed, work: Path, *, quick: bool) -> Iterator[Row]:
    """``authsync restore`` against psql and tar."""
    for count in (1000, 10_000) if quick else (1000, 10_000, 50_000):
        yield from _restore(postgres, installed, work / f"restore-{count}", count, quick=quick)


def _restore(postgres: Postgres, installed: Installed, work: Path, count: int, *, quick: bool) -> Iterator[Row]:
    dsn = postgres.create_database()
    work.mkdir()
    files = corpus.write_folder(work / "source", count)
    _write_tar(work / "files.tar", files)
    backup = installed.command("backup", "--dir", str(work / "source"))
    subprocess.run(backup, env=environment(dsn), check=True, capture_output=True)
    parts: dict[str, list[float]] = {"copy": [], "tar": []}
    made: list[Path] = []

    def new_folder() -> Path:
        os.sync()  # what the run before left to write is not this one's
        made.append(work / f"run-{len(made)}")
        return made[-1]

    def ours() -> float:
        return _run(installed.command("restore", "--dir", str(new_folder())), dsn)

    def baseline() -> float:
        folder = new_folder()
        folder.mkdir()
        parts["copy"].append(_run([postgres.psql, "-X", "-q", "-c", _COPY, dsn], dsn))
        parts["tar"].append(_run(["tar", "-x", "-f", str(work / "files.tar"), "-C", str(folder)], dsn))
        return parts["copy"][-1] + parts["tar"][-1]

    pairs = interleaved(ours, baseline, pairs=3 if quick else _PAIRS[count])
    imports = [_run([str(installed.python), "-c", _IMPORTS], dsn) for _ in range(5)]
    for folder in made:
        found = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        assert found == files.keys(), folder
    assert all((made[0] / name).read_bytes() == content for name, content in files.items())
    suite = f"restore of {count:,} files"
    yield paired(suite, "the whole process", "ms", pairs, against="psql COPY + tar -x", target=_TARGETS.get(count))
    yield Row(suite=suite, what="of that: Python with its packages", unit="ms", ours=Spread.of(imports))
    yield Row(suite=suite, what="of the baseline: COPY", unit="ms", baseline=Spread.of(parts["copy"]))
    yield Row(suite=suite, what="of the baseline: tar", unit="ms", baseline=Spread.of(parts["tar"]))
    peak = _peak_mb(installed.command("restore", "--dir", str(new_folder())), dsn)
    yield Row(suite=suite, what="peak memory", unit="MB", ours=Spread.of([peak]))


def _write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            tar.addfile(member, io.BytesIO(content))


def _run(command: list[str], dsn: str) -> float:
    env = environment(dsn)
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def _peak_mb(command: list[str], dsn: str) -> float:
    """The peak of its resident memory; looked at often, since it is gone with the process."""
    peak = 0
    with subprocess.Popen(
        command, env=environment(dsn), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            try:
                peak = max(peak, kilobytes(process.pid, "status", "VmHWM"))
            except (AssertionError, OSError):
                break  # it has ended
            time.sleep(0.002)
    assert process.wait() == 0
    return peak / 1024
