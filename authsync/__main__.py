"""The entry point: signal handlers first, then everything else."""

from __future__ import annotations

import sys

SUPERVISES = frozenset({"run", "watch"})


def main() -> None:
    """Run the command line and exit with its code."""
    if len(sys.argv) > 1 and sys.argv[1] in SUPERVISES:
        from authsync import signals  # noqa: PLC0415 - before the imports below, which take a tenth of a second

        signals.install()
    from authsync.cli.main import run_command_line  # noqa: PLC0415 - after the handlers

    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
