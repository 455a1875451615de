"""Signal handlers, installed before any heavy import: as PID 1 a signal that finds no handler is lost.

The handlers only post to a ``SimpleQueue``: its ``put`` is reentrant, ``queue.Queue``'s deadlocks in a handler.
"""

from __future__ import annotations

import signal
from queue import SimpleQueue
from types import FrameType

_OURS = {"SIGKILL", "SIGSTOP", "SIGCHLD", "SIGCLD", "SIGPIPE", "SIGTSTP", "SIGTTIN", "SIGTTOU"}  # or nobody's to catch
_FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGIOT", "SIGTRAP", "SIGSYS"}

FORWARDED = tuple(signum for signum in signal.Signals if signum.name not in _OURS | _FAULTS)
"""All other signals are routed to the bot's group; SIGTERM and SIGINT stop us, too, and SIGUSR1 asks for a flush."""

mailbox: SimpleQueue[object] = SimpleQueue()
"""What the main thread reads; a signal arrives as its number (``signal.Signals``)."""


def _post(signum: int, _frame: FrameType | None) -> None:
    mailbox.put(signal.Signals(signum))


def install() -> None:
    """Route all signals that we forward or act on into the mailbox."""
    for signum in FORWARDED:
        signal.signal(signum, _post)


def ignore() -> None:
    """Be deaf to what asks to stop: all is done, and Python's own exit would give a late signal its default action."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
