"""A real PostgreSQL for ``DATABASE_URL=embedded:``, for trying out and for tests, shared by all who name its directory.

One directory holds the data, the password, the server's log and a lock file. The lock is the truth about who runs a
server there: the server inherits its descriptor, so that it is held exactly as long as any process of that server
lives, even after a SIGKILL of ours. Who gets the lock starts a server; who does not attaches to the one that runs.

On Linux a server ends with the *thread* that started it (``PR_SET_PDEATHSIG``), so that ``ensure`` has to be called by
one that lives for as long as the database is needed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import unquote

from authsync.errors import ConfigError, UnreachableError
from authsync.store.pgserver import Account, Programs, end, find_programs, free_port, server_account, serving_port

START_BUDGET_S = 60.0  # a crash recovery, or another process's initdb, included
_POLL_S = 0.01
_START_ATTEMPTS = 3  # a port that was free may be taken by the time that the server binds it
_LOCK, _PASSWORD, _LOG, _LOG_MAX_BYTES = "authsync.lock", "password", "log", 1 << 20
_OPTIONS = ("shared_buffers=16MB", "max_connections=50", "max_wal_size=128MB")  # a guest beside a bot
_ELSEWHERE = "choose another directory: DATABASE_URL=embedded:///absolute/path"
_REACHABLE = "chmod a+x the directories above it, or choose another: DATABASE_URL=embedded:///absolute/path"

_guard = threading.Lock()
_started: dict[Path, subprocess.Popen[bytes]] = {}  # by directory: the servers that this process started
_stop_asked = threading.Event()


def is_embedded(url: str) -> bool:
    """Whether a database URL asks for a server of our own."""
    return url.startswith("embedded:")


def ensure(url: str) -> str:
    """Returns a libpq URL, password included, of a server that accepts connections; starts one if none runs there.

    Call it again at each reconnect: a server ends with the process that started it, which need not be this one.

    Raises:
        ConfigError: no programs, programs of another major version, or a directory that cannot be used.
        UnreachableError: none was ready within ``START_BUDGET_S``, or ``stop`` was called meanwhile.
    """
    base = _location(url)
    with _guard:
        try:
            port = _attach_or_start(base, deadline=time.monotonic() + START_BUDGET_S)
            password = (base / _PASSWORD).read_text()
        except OSError as error:
            what = f"{error.strerror or error}: {error.filename or base}"
            raise ConfigError(f"The embedded PostgreSQL cannot use {base} ({what})", hint=_ELSEWHERE) from error
        except subprocess.TimeoutExpired as error:
            raise UnreachableError(f"The embedded PostgreSQL did not start: {error}") from error
    return f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres?sslmode=disable"


def stop() -> None:
    """Ends the servers that this process started, each within 20 s; an ``ensure`` in another thread gives up."""
    _stop_asked.set()
    with _guard:
        for process in _started.values():
            end(process)
        _started.clear()
        _stop_asked.clear()


def _location(url: str) -> Path:
    rest = unquote(url.removeprefix("embedded:"))
    if rest.startswith("///"):
        return Path(os.path.realpath(rest[2:]))
    if rest:
        raise ConfigError(f"{url} names no directory", hint="write embedded: or embedded:///absolute/path")
    if os.geteuid() == 0:
        return Path("/var/lib/authsync/postgres")
    given = os.environ.get("XDG_DATA_HOME", "")
    try:
        home = Path(given if given.startswith("/") else "~/.local/share").expanduser()
    except RuntimeError as error:
        raise ConfigError("This user has no home directory for the embedded database", hint=_ELSEWHERE) from error
    return Path(os.path.realpath(home / "authsync/postgres"))


def _attach_or_start(base: Path, *, deadline: float) -> int:
    """The port of the lock's holder, or else of our own server; a holder that starts or ends is waited for."""
    account = _claim(base)
    lock_fd = _open_private(base / _LOCK, os.O_RDWR, account)
    try:
        while not _locked(lock_fd):
            if (port := serving_port(base / "data")) is not None:
                return port
            _pause(deadline, f"Another process holds {base / _LOCK}, but its PostgreSQL does not answer")
        return _start(base, account, lock_fd, deadline)
    finally:
        os.close(lock_fd)  # the server has its own descriptor of the same lock


def _claim(base: Path) -> Account:
    """Makes the directory, private to the server's user; one that holds anything else is refused."""
    for missing in reversed([parent for parent in base.parents if not parent.exists()]):
        missing.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            missing.chmod(0o755)  # whatever the umask: the server's user has to pass
    base.mkdir(mode=0o700, exist_ok=True)
    names = {entry.name for entry in base.iterdir()}
    if names - {"lost+found"} and _LOCK not in names:
        raise ConfigError(f"{base} holds something else than an embedded database", hint="choose an empty directory")
    account = server_account(base.stat())
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        account.own(descriptor)
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
    return account


def _start(base: Path, account: Account, lock_fd: int, deadline: float) -> int:
    if not account.can_enter(base):
        raise ConfigError(f"The user {account.name}, who runs PostgreSQL, cannot enter {base}", hint=_REACHABLE)
    data = base / "data"
    version = data / "PG_VERSION"
    made = version.exists()
    programs = find_programs(account, copies=base, major=version.read_text().strip() if made else "")
    if not made:
        _make(programs, base, lock_fd)
    # The lock says that no server runs here. What a crashed one left would stop ours from starting as soon as another
    # process has its number, which in a container is the rule.
    (data / "postmaster.pid").unlink(missing_ok=True)
    log_fd = _open_private(base / _LOG, os.O_RDWR | os.O_APPEND, account)
    try:
        if os.fstat(log_fd).st_size > _LOG_MAX_BYTES:
            os.ftruncate(log_fd, 0)
        log_start = os.fstat(log_fd).st_size
        for _ in range(_START_ATTEMPTS):
            if base in _started:
                end(_started[base])
            port = free_port()
            process = _started[base] = programs.spawn(data, port, _OPTIONS, log_fd=log_fd, pass_fds=(lock_fd,))
            while process.poll() is None:
                if serving_port(data) == port:
                    return port
                _pause(deadline, f"The embedded PostgreSQL in {base} is not ready", log_fd, log_start)
        raise _failure(f"The embedded PostgreSQL in {base} ended", log_fd, log_start)
    finally:
        os.close(log_fd)


def _make(programs: Programs, base: Path, lock_fd: int) -> None:
    """Runs initdb beside the place of the data, which only a rename fills: killed at any moment, it starts anew."""
    fresh = base / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    password_fd = _open_private(base / _PASSWORD, os.O_WRONLY | os.O_TRUNC, programs.account)
    try:
        os.write(password_fd, secrets.token_hex(24).encode())
        os.fsync(password_fd)  # data without it would be closed to us for ever
    finally:
        os.close(password_fd)
    code, output = programs.run(
        "initdb", "-D", str(fresh), "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={base / _PASSWORD}",
        "-E", "UTF8", "--no-locale", pass_fds=(lock_fd,),
    )  # fmt: skip
    if code != 0:
        reason = " ".join(output.split("initdb: error: ")[-1].split())
        hint = "its user needs an entry in /etc/passwd, and its directory 60 MB"
        raise ConfigError(f"PostgreSQL's initdb failed in {base}: {reason}", hint=hint)
    fresh.rename(base / "data")
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def _open_private(path: Path, flags: int, account: Account) -> int:
    # The server's user could plant a link for root to follow.
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    account.own(descriptor)
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pause(deadline: float, waiting_for: str, log_fd: int | None = None, log_start: int = 0) -> None:
    if _stop_asked.wait(_POLL_S):
        raise UnreachableError("The embedded PostgreSQL was stopped while it started")
    if time.monotonic() > deadline:
        raise _failure(f"{waiting_for} after {START_BUDGET_S:.0f} s", log_fd, log_start)


def _failure(message: str, log_fd: int | None, log_start: int) -> UnreachableError:
    """The error with the last lines that the server logged since it was started."""
    if log_fd is None:
        return UnreachableError(message, hint=f"end that process, or {_ELSEWHERE}")
    lines = os.pread(log_fd, _LOG_MAX_BYTES, log_start).decode(errors="replace").splitlines()
    return UnreachableError("; ".join([message, *lines[-4:]]), hint="the whole log is the file log in that directory")
