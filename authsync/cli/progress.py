"""Progress for a person: a line that is rewritten on a terminal, from the first second on; nothing elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Self

FIRST_AFTER_S, EVERY_S = 1.0, 0.2


class Progress:
    """Files, bytes and rate of something that may take long."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._began = time.monotonic()
        self._shown_at = self._began + FIRST_AFTER_S - EVERY_S
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            sys.stderr.write("\n")

    def show(self, files: int, size_bytes: int) -> None:
        """So much is done."""
        now = time.monotonic()
        if not sys.stderr.isatty() or now - self._shown_at < EVERY_S:
            return
        self._shown_at, self._open = now, True
        rate = files / (now - self._began)
        sys.stderr.write(f"\r{self._verb} {files} files, {size_bytes / 1e6:.1f} MB, {rate:.0f} files/s")
        sys.stderr.flush()
