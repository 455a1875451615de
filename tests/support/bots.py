"""Bots that do one thing, and folders as Baileys leaves them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NUMBER = "5511987654321"
MASKED = "5511*****4321"

_ON_STOP = """
import os, signal, sys
awaited = {signal.SIGTERM, signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
print('{"event": "up"}', flush=True)
signal.sigwait(awaited)
os.execv("/bin/sh", ["sh", "-c", sys.argv[1]])
"""


def shell(script: str, *then: str) -> tuple[str, ...]:
    """A bot that is a shell script, and then becomes another one."""
    return ("sh", "-c", f'{script}; exec "$@"', "sh", *then) if then else ("sh", "-c", script)


def on_stop(script: str) -> tuple[str, ...]:
    """A bot that says ``up``, waits until it is told to stop, then runs a shell script and hears no more signals.

    A shell with a trap would not do: a signal that comes as it starts a program finds that program unborn.
    """
    return (sys.executable, "-S", "-E", "-c", _ON_STOP, script)


IDLE = on_stop("exit 0")
"""Does nothing, and ends with 0 when it is told to stop. The test itself writes into its folder."""


def creds(key: str = "a", *, paired: bool = True, counter: int = 0) -> bytes:
    """A ``creds.json`` of the identity ``key``."""
    content: dict[str, object] = {
        "signedIdentityKey": {"public": {"type": "Buffer", "data": key}},
        "registered": False,
        "accountSyncCounter": counter,
    }
    if paired:
        content |= {"account": {"details": "x"}, "me": {"id": f"{NUMBER}:7@s.whatsapp.net"}}
    return json.dumps(content).encode()


def session(count: int = 8, key: str = "a") -> dict[str, bytes]:
    """The files of a paired bot: ``creds.json`` and ``count`` pre-keys."""
    return {"creds.json": creds(key), **{f"pre-key-{n}.json": b'{"n": %d}' % n for n in range(1, count + 1)}}


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files, and the folders that they need."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder but authsync's own: path -> content."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name).relative_to(folder)
            if not path.parts[0].startswith(".authsync"):
                found[str(path)] = Path(where, name).read_bytes()
    return found
