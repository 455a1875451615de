"""The benchmarks: what authsync costs, each figure beside a baseline of the same run, as one table of ratios.

    .venv/bin/python -m tests.bench                  all of it, about 15 minutes
    .venv/bin/python -m tests.bench --quick          fewer sizes and repetitions, about 3 minutes
    .venv/bin/python -m tests.bench --only restore   one part; may be repeated
    .venv/bin/python -m tests.bench --json           the same figures for programs

Run it from the repository, in the environment of the development tools, on a machine that does little else. It starts a
PostgreSQL of its own, durable and on a disk below TMPDIR, and runs authsync as an installation would: in an environment
without the development tools, compiled. Nothing here passes or fails a build: a target that is missed says NO.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import flush, footprint, restore
from tests.bench.postgres import Postgres, file_system_of, serving
from tests.bench.product import Installed, install
from tests.bench.samples import Row, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUITES: dict[str, Callable[..., Iterator[Row]]] = {
    "latency": flush.latency,
    "cost": flush.cost,
    "restore": restore.restore,
    "memory": footprint.memory,
    "idle": footprint.idle,
    "busy": footprint.busy,
}


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repetitions")
    parser.add_argument("--only", action="append", choices=SUITES, metavar="NAME", help=f"one of: {', '.join(SUITES)}")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON instead of the table")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="authsync-bench-"))
    work.chmod(0o711)  # as root, PostgreSQL runs as another user, who has to get into what is below
    try:
        with serving(work) as postgres:
            installed = install(work / "installed")
            rows = list(_measure(options.only or list(SUITES), postgres, installed, work, quick=options.quick))
            about = _about(postgres, work)
        _print(about, rows, as_json=options.as_json)
        print("Removing what was made ...", file=sys.stderr)  # half a million files take their time
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _print(about: dict[str, str | int], rows: list[Row], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**about, "rows": [row.as_json() for row in rows]}, indent=2), flush=True)
    else:
        print(", ".join(f"{name} {value}" for name, value in about.items()))
        print(table(rows), flush=True)


def _measure(names: list[str], postgres: Postgres, installed: Installed, work: Path, *, quick: bool) -> Iterator[Row]:
    for name in names:
        for row in SUITES[name](postgres, installed, work, quick=quick):
            print(f"{row.suite}: {row.what}: {row.ours or row.baseline} {row.unit}", file=sys.stderr, flush=True)
            yield row


def _about(postgres: Postgres, work: Path) -> dict[str, str | int]:
    return {
        "postgresql": postgres.version,
        "python": platform.python_version(),
        "cpus": os.cpu_count() or 0,
        "file_system": file_system_of(work),
    }


if __name__ == "__main__":
    main()
