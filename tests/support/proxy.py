"""A TCP proxy that misbehaves on request, between a client and its database."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

WAIT_TIMEOUT_S = 30.0
_CHUNK_BYTES = 65_536


class Mode(enum.Enum):
    """What happens to connections and their bytes from now on; "up" is from the client to the database."""

    PASS = enum.auto()
    REFUSE = enum.auto()  # new connections are reset, those that stand go on
    BLACKHOLE = enum.auto()  # nothing passes in either direction, the end of a connection included; nothing is closed
    HOLD_UP = enum.auto()  # requests wait until the mode changes, answers pass
    HOLD_DOWN = enum.auto()  # answers wait until the mode changes, requests pass
    CUT_UP = enum.auto()  # the next request is lost and all connections are reset; then PASS
    CUT_DOWN = enum.auto()  # the next answer is lost, what it answers was done; all are reset; then PASS


class _Way(enum.Enum):
    UP = (Mode.BLACKHOLE, Mode.HOLD_UP), Mode.CUT_UP
    DOWN = (Mode.BLACKHOLE, Mode.HOLD_DOWN), Mode.CUT_DOWN

    def __init__(self, holding: tuple[Mode, ...], cutting: Mode) -> None:
        self.holding = holding
        self.cutting = cutting


class FaultyProxy:
    """Forwards ``127.0.0.1:port`` to ``upstream``; a context manager.

    Its own thread runs an event loop, in which all of its state lives. Methods may be called from any thread.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.port = 0
        self._upstream = upstream
        self._mode = Mode.PASS
        self._delay_s = 0.0
        self._held = 0  # chunks that wait for another mode
        self._relays: set[asyncio.Task[None]] = set()
        self._ready: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="faulty-proxy")

    def __enter__(self) -> Self:
        """Listens."""
        self._thread.start()
        self.port = self._ready.result(WAIT_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Resets what is connected, and listens no more."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(WAIT_TIMEOUT_S)

    def through(self, dsn: str) -> str:
        """The same connection string, by way of this proxy."""
        return make_conninfo(dsn, host="127.0.0.1", port=self.port)

    def set(self, mode: Mode, *, delay_s: float = 0.0) -> None:
        """Changes the mode, and how long each chunk is kept back; returns when that is in force."""

        async def change() -> None:
            async with self._changed:
                self._mode, self._delay_s = mode, delay_s
                self._changed.notify_all()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result(WAIT_TIMEOUT_S)

    def reset(self) -> None:
        """Resets all connections, once; returns when both peers have been told."""

        async def drop() -> None:
            self._cancel_all()
            while self._relays:
                await asyncio.wait(self._relays)

        asyncio.run_coroutine_threadsafe(drop(), self._loop).result(WAIT_TIMEOUT_S)

    def wait_held(self) -> None:
        """Waits until a request or an answer is being held; raises ``TimeoutError`` after ``WAIT_TIMEOUT_S``."""
        self._wait_for(lambda: self._held > 0)

    def wait_cut(self) -> None:
        """Waits until a cut that was asked for has happened; raises ``TimeoutError`` after ``WAIT_TIMEOUT_S``."""
        self._wait_for(lambda: self._mode not in (Mode.CUT_UP, Mode.CUT_DOWN))

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(condition)

        asyncio.run_coroutine_threadsafe(wait(), self._loop).result(WAIT_TIMEOUT_S)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Condition()
        self._closing = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._ready.set_result(server.sockets[0].getsockname()[1])
        await self._closing.wait()
        server.close()
        self._cancel_all()
        while self._relays:
            await asyncio.wait(self._relays)

    def _cancel_all(self) -> None:
        for relay in self._relays:
            relay.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.create_task(self._relay(reader, writer))  # the task that runs us is not ours to cancel
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection; one that is refused, cancelled or failed ends in a reset of both sides."""
        writers = [writer]
        try:
            orderly = self._mode is not Mode.REFUSE and await self._forward(reader, writers)
        except (asyncio.CancelledError, OSError):
            orderly = False
        for each in writers:
            if orderly:
                each.close()
            else:
                linger_0_s = struct.pack("ii", 1, 0)
                with contextlib.suppress(OSError):  # its peer may have ended it already
                    each.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_0_s)
                each.transport.abort()
        for each in writers:  # after all were closed: who is cancelled while it waits must leave none open
            with contextlib.suppress(OSError):
                await each.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]) -> bool:
        async with self._changed:
            await self._changed.wait_for(lambda: self._mode is not Mode.BLACKHOLE)
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        pumps = (
            asyncio.create_task(self._pump(reader, up_writer, _Way.UP)),
            asyncio.create_task(self._pump(up_reader, writers[0], _Way.DOWN)),
        )
        writers.append(up_writer)
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        return True

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way) -> None:
        chunk = b"-"
        while chunk:
            chunk = await reader.read(_CHUNK_BYTES)
            await asyncio.sleep(self._delay_s)
            async with self._changed:
                if self._mode in way.holding:
                    self._held += 1
                    self._changed.notify_all()
                    try:
                        await self._changed.wait_for(lambda: self._mode not in way.holding)
                    finally:
                        self._held -= 1
                if chunk and self._mode is way.cutting:
                    self._mode = Mode.PASS
                    self._changed.notify_all()
                    self._cancel_all()
                    return
            writer.write(chunk)
            await writer.drain()
