"""The bot's process: started in a session of its own, signalled as a group, reaped by one thread."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from authsync.errors import AuthsyncError, CommandNotExecutableError, CommandNotFoundError

HIDDEN = ("AUTHSYNC_KEY", "AUTHSYNC_DATABASE_URL")
"""Variables with these prefixes are ours alone."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_GROUP_POLL_S = 0.02
"""There is nothing to wait on for "the last process of a group is gone"."""


def find_command(command: Sequence[str]) -> str:
    """The program that ``command`` starts, as a shell would find it.

    Raises:
        CommandNotFoundError: 127.
        CommandNotExecutableError: 126.
    """
    name = command[0]
    found = shutil.which(name)
    if found is not None:
        return found
    hint = "check the words after `authsync run --`, and PATH"
    if "/" in name and os.path.exists(name):
        raise CommandNotExecutableError(f"the command is not executable: {name}", hint=f"chmod +x {name}")
    for folder in os.get_exec_path() if "/" not in name else ():
        if os.path.isfile(os.path.join(folder, name)):
            raise CommandNotExecutableError(f"the command is not executable: {name}", hint="chmod +x it")
    raise CommandNotFoundError(f"the command does not exist: {name}", hint=hint)


def start_error(error: OSError, name: str) -> AuthsyncError:
    """Why the command ``name``, which exists, could not be started."""
    if isinstance(error, FileNotFoundError):
        return CommandNotFoundError(f"the command cannot be started: {name}", hint="its interpreter is missing")
    return CommandNotExecutableError(
        f"the command cannot be started: {name}: {error.strerror}", hint="check its first line and its mode"
    )


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """What the bot gets of ``env``: all but our keys and our database URL."""
    return {name: value for name, value in env.items() if not name.startswith(HIDDEN)}


class Child:
    """One running command."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        on_leader_ended: Callable[[int], None],
        on_ended: Callable[[int], None],
    ) -> None:
        """Start ``command``; must be called by the main thread, since PDEATHSIG fires when the forking thread ends.

        Args:
            command: the program and its arguments.
            on_leader_ended: called by the reaper when the process ended but others of its group live on.
            on_ended: called by the reaper when the whole group is gone.

        Raises:
            CommandNotFoundError, CommandNotExecutableError: it cannot be started.
        """
        libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
        if libc is not None:
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            self._process = subprocess.Popen(  # the reaper waits for it
                list(command),
                executable=find_command(command),
                env=environment(os.environ),
                start_new_session=True,
                # Safe: it makes one system call through a library that is already loaded.
                preexec_fn=None if libc is None else lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),  # noqa: PLW1509
            )
        except OSError as error:
            raise start_error(error, command[0]) from error
        self._on_leader_ended, self._on_ended = on_leader_ended, on_ended
        threading.Thread(target=self._reap, name="reaper", daemon=True).start()

    @property
    def pid(self) -> int:
        """Also the number of its group and session."""
        return self._process.pid

    def signal(self, signum: int) -> None:
        """Send ``signum`` to the whole group: `npm start` swallows SIGTERM and orphans node."""
        try:
            os.killpg(self.pid, signum)
        except ProcessLookupError:
            return

    def _reap(self) -> None:
        code = self._process.wait()
        if self._group_lives():
            self._on_leader_ended(code)
            while self._group_lives():
                time.sleep(_GROUP_POLL_S)
        self._on_ended(code)

    def _group_lives(self) -> bool:
        try:
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass  # an orphan of the group that was given to us
        except ChildProcessError:
            pass
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
