"""A TCP forwarder that stops in the middle of a gRPC call, so that a test can end its device there.

device ──▶ request ──▶ held after so many bytes of the call's messages
device ◀── response ◀── held before its message or its end, whichever is first
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, unique
from types import TracebackType
from typing import Final, Self

from tests.support.http2 import PREFACE, FrameReader, FrameType
from tests.support.patience import PATIENCE_SECONDS

__all__ = ["Hold", "HoldingForwarder", "Way"]


@unique
class Way(Enum):
    REQUEST = "request"
    RESPONSE = "response"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Calls are numbered from 1 in the order in which a connection makes them."""

    way: Way
    call: int
    # Of a request: how many bytes of its messages still pass.
    after_bytes: int = 0

    @property
    def stream(self) -> int:
        return 2 * self.call - 1


class HoldingForwarder:
    """Every connection is held at the same call; leaving breaks them all.

    An end that goes away takes its connection with it. While the service is said to be away new
    connections wait for it.
    """

    def __init__(self, port: int, hold: Hold) -> None:
        self._target: Final = port
        self._hold: Final = hold
        self._held: Final = threading.Event()
        self._is_there: Final = threading.Event()
        self._is_there.set()
        self._listener: Final = socket.create_server(("127.0.0.1", 0))
        self._sockets: Final = [self._listener]
        self._threads: Final[list[threading.Thread]] = []
        # What calls have carried to the service, framing included.
        self.request_bytes = 0
        self.port: Final[int] = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_there.set()
        for one in self._sockets:
            # Wakes the thread that reads from it.
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
        for one in self._sockets:
            one.close()

    def wait_until_held(self) -> None:
        assert self._held.wait(PATIENCE_SECONDS), "the call never came so far"

    @contextmanager
    def without_service(self) -> Iterator[None]:
        """The service goes away in here, and is back at the end."""
        self._is_there.clear()
        try:
            yield
        finally:
            self._is_there.set()

    def _begin(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                device, _ = self._listener.accept()
                self._sockets.append(device)
                assert self._is_there.wait(PATIENCE_SECONDS), "the service never came back"
                service = socket.create_connection(("127.0.0.1", self._target))
                self._sockets.append(service)
                self._begin(self._copy, device, service, Way.REQUEST)
                self._begin(self._copy, service, device, Way.RESPONSE)

    def _copy(self, source: socket.socket, target: socket.socket, way: Way) -> None:
        passing = self._of_request if way is Way.REQUEST else self._of_response
        with suppress(OSError):
            for data in passing(_received(source)):
                target.sendall(data)
            if not (self._held.is_set() and way is self._hold.way):
                target.shutdown(socket.SHUT_WR)

    def _of_request(self, received: Iterator[bytes]) -> Iterator[bytes]:
        """The bytes that pass; ends where the call is held."""
        reader = FrameReader()
        start = b""
        left = self._hold.after_bytes
        for data in received:
            rest = data
            if len(start) < len(PREFACE):
                missing = len(PREFACE) - len(start)
                start, rest = start + data[:missing], data[missing:]
                yield data[:missing]
            for frame in reader.feed(rest):
                raw = frame.to_bytes()
                self.request_bytes += len(frame.payload) if frame.kind == FrameType.DATA else 0
                if self._hold.way is not Way.REQUEST or not frame.is_data_of(self._hold.stream):
                    yield raw
                elif len(frame.payload) <= left:
                    left -= len(frame.payload)
                    yield raw
                else:
                    yield raw[: len(raw) - len(frame.payload) + left]
                    self._held.set()
                    return

    def _of_response(self, received: Iterator[bytes]) -> Iterator[bytes]:
        reader = FrameReader()
        for data in received:
            for frame in reader.feed(data):
                called = frame.stream == self._hold.stream
                answers = called and (frame.kind == FrameType.DATA or frame.ends_stream)
                if self._hold.way is Way.RESPONSE and answers:
                    self._held.set()
                    return
                yield frame.to_bytes()


def _received(source: socket.socket) -> Iterator[bytes]:
    while data := source.recv(64 << 10):
        yield data
