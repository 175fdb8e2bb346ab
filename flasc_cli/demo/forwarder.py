"""A TCP forwarder that counts bytes: one listening port per device, all to the same server.

What it counts is what the device's socket carries: gRPC messages, HTTP/2 framing, retries. The
headers of TCP and IP are below it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

__all__ = ["CountingForwarder", "SocketBytes"]

_CHUNK_BYTES: Final = 64 * 1024

_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketBytes:
    """As the device sees it."""

    sent: int = 0
    received: int = 0


class CountingForwarder:
    """Forwards on a thread of its own for as long as it is entered.

    A connection while the server is down ends at once, as the device's own would.
    """

    def __init__(self, target: tuple[str, int], names: Sequence[str]) -> None:
        self._target: Final = target
        self._counts: Final = dict.fromkeys(names, SocketBytes())
        self._connections: Final = dict.fromkeys(names, 0)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self.ports: Mapping[str, int] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def count(self, name: str) -> SocketBytes:
        return self._counts[name]

    def connections(self, name: str) -> int:
        """How many reached the server."""
        return self._connections[name]

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            # Leaving the runner cancels the connections that are still open.
            runner.run(self._serve())

    async def _serve(self) -> None:
        servers = {
            name: await asyncio.start_server(self._handler(name), "127.0.0.1", 0)
            for name in self._counts
        }
        self.ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
        self._ready.set()
        await self._closing.wait()
        for server in servers.values():
            server.close()

    def _handler(self, name: str) -> _Handler:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # Cancelled when the forwarder closes, which asyncio would report as a failure.
            with suppress(asyncio.CancelledError):
                await self._forward(name, reader, writer)
            writer.close()

        return handle

    async def _forward(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            return
        self._connections[name] += 1
        try:
            up = asyncio.create_task(_copy(reader, server_writer, self._counter(name, "sent")))
            down = asyncio.create_task(
                _copy(server_reader, writer, self._counter(name, "received"))
            )
            # gRPC never closes one way only: the end of either is the end of the connection.
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            up.cancel()
            down.cancel()
        finally:
            server_writer.close()

    def _counter(self, name: str, way: str) -> Callable[[int], None]:
        def add(size_bytes: int) -> None:
            count = self._counts[name]
            self._counts[name] = replace(count, **{way: getattr(count, way) + size_bytes})

        return add


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]
) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
            count(len(data))
