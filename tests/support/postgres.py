"""A throwaway PostgreSQL for a test run: real, in RAM where there is some, stopped and killed at will."""

from __future__ import annotations

import os
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from authsync.store.pgserver import Programs, end, find_programs, server_account, serving_port

if TYPE_CHECKING:
    from types import TracebackType

READY_TIMEOUT_S = 60.0
_PREFIX = "authsync-tests-"
_RAM = Path("/dev/shm")
_RAM_NEEDED_BYTES = 1 << 30  # containers often have 64 MB there
_UNSAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=200")
# The superuser needs no password; everybody else does, so that a wrong one can be tested.
_HBA = """\
host all postgres 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""


class TestServer:
    """One server; use it as a context manager. It keeps its port and its data over restarts.

    ``start`` has to be called in a thread that outlives the use of the server, as the main one does: it ends with it.
    """

    __test__: ClassVar[bool] = False

    def __init__(self, *options: str) -> None:
        self._options = (*_UNSAFE, *options)
        self._process: subprocess.Popen[bytes] | None = None
        self._alive_fd = -1  # end of file: the last process of the server is gone
        disk = Path(tempfile.gettempdir())
        roomy = os.access(_RAM, os.W_OK | os.X_OK) and shutil.disk_usage(_RAM).free > _RAM_NEEDED_BYTES
        self._base = _temporary_directory(disk)  # the log, and copied programs: in RAM they often must not be run
        self._ram = _temporary_directory(_RAM if roomy else disk)
        account = server_account(self._ram.stat())
        for directory in (self._base, self._ram):
            descriptor = os.open(directory, os.O_RDONLY)
            account.own(descriptor)
            os.close(descriptor)
        self.data = self._ram / "data"
        self.port = _port_outside_the_ephemeral_range()
        self.programs: Programs = find_programs(account, copies=self._base)

    def __enter__(self) -> Self:
        """Starts it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it and removes all that it wrote."""
        self.stop(immediate=True)
        shutil.rmtree(self._ram)
        shutil.rmtree(self._base)

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor killed since."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it and waits until it accepts connections; nothing to do if it runs."""
        if self.running:
            return
        if not self.data.exists():
            code, output = self.programs.run(
                "initdb",
                "-D",
                str(self.data),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "--no-sync",
            )
            assert code == 0, output
            (self.data / "pg_hba.conf").write_text(_HBA)
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed
        self._alive_fd, alive_fd = os.pipe()
        with (self._base / "log").open("ab") as log:
            self._process = self.programs.spawn(
                self.data, self.port, self._options, log_fd=log.fileno(), pass_fds=(alive_fd,)
            )
        os.close(alive_fd)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while serving_port(self.data) != self.port:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.005)  # a server announces itself in a file only

    def stop(self, *, immediate: bool = False) -> None:
        """Stops it as ``pg_ctl stop -m fast`` or ``-m immediate`` does; nothing to do if it does not run."""
        self._end(signal.SIGQUIT if immediate else signal.SIGINT)

    def kill(self) -> None:
        """Kills it as a crash would, and waits until the processes that served connections have noticed."""
        self._end(signal.SIGKILL)

    def log(self) -> str:
        """What the server logged, all starts included."""
        return (self._base / "log").read_text(errors="replace")

    def dsn(self, database: str = "postgres", *, user: str = "postgres", password: str = "") -> str:
        """A connection string for a database."""
        return make_conninfo(
            host="127.0.0.1", port=self.port, dbname=database, user=user, password=password or None, sslmode="disable"
        )

    def create_database(self, template: str | None = None) -> str:
        """Makes a database, empty or like a template to which nobody is connected, and returns its ``dsn``."""
        name = f"test_{secrets.token_hex(6)}"
        like = sql.Identifier(template or "template1")
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), like))
        return self.dsn(name)

    def drop_database(self, dsn: str) -> None:
        """Drops the database of a ``dsn``, whoever is connected to it."""
        name = str(conninfo_to_dict(dsn)["dbname"])
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def create_role(self, password: str) -> str:
        """Makes a role that may log in with this password and owns nothing, and returns its name."""
        name = f"role_{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        self.execute(statement.format(sql.Identifier(name), sql.Literal(password)))
        return name

    def execute(self, statement: sql.Composed | sql.SQL) -> None:
        """Runs a statement as the superuser, outside of a transaction."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(statement)

    def _end(self, order: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(order)
        try:
            self._process.wait(READY_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            end(self._process)
        gone, _, _ = select.select([self._alive_fd], [], [], READY_TIMEOUT_S)
        assert gone, "processes of the server are left over"
        os.close(self._alive_fd)
        self._process = None


def _temporary_directory(parent: Path) -> Path:
    """Makes a directory, and removes those that killed test runs left."""
    for old in parent.glob(f"{_PREFIX}*"):
        if not _exists(int(old.name.removeprefix(_PREFIX).split("-")[0])):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _port_outside_the_ephemeral_range() -> int:
    """A port that no outgoing connection takes while the server is down, free now."""
    while True:
        port = random.randrange(10_240, 32_768)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
