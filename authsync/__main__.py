"""The entry point: signal handlers first, then everything else."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import NoReturn

SUPERVISES = frozenset({"run", "watch"})


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    gc.disable()  # imports leave no garbage to look for; `run` and `watch` enable it when they have begun
    if len(sys.argv) > 1 and sys.argv[1] in SUPERVISES:
        from authsync import signals  # noqa: PLC0415 - before the imports below, which take a tenth of a second

        signals.install()
    from authsync.cli.main import run_command_line  # noqa: PLC0415 - after the handlers

    _leave(run_command_line(sys.argv[1:]))


def _leave(code: int) -> NoReturn:
    """End the process at once: taking the interpreter apart costs more than restoring a thousand files.

    All that has to be closed is closed, and a thread that still waits on the network must not hold the exit up.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # its reader has gone, or it is closed, or None
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
