"""A hostile connection: uploads that begin as they should and then never go on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from tests.support.device import SERVICE
from tests.support.http2 import (
    ACK,
    END_HEADERS,
    PREFACE,
    Frame,
    FrameReader,
    FrameType,
    encode_headers,
)
from tests.support.patience import PATIENCE_SECONDS

__all__ = ["StalledConnection", "as_message", "half_of"]


def as_message(data: bytes) -> bytes:
    """`data` as gRPC sends it: not compressed, its length, itself."""
    return b"\x00" + len(data).to_bytes(4, "big") + data


def half_of(message: bytes) -> bytes:
    return message[: len(message) // 2]


class StalledConnection:
    """Raw HTTP/2 on loopback; knows of every stream of its own whether the service has ended it.

    Asked whether it is alive it says so, and thus hangs for as long as a test takes.
    """

    def __init__(self, port: int, credential: str) -> None:
        self._credential: Final = credential
        self._opened = 0
        self._asked = 0
        # What has been read; whoever waits for more of it is woken.
        self._ended: Final[set[int]] = set()
        self._answers = 0
        self._is_over = False
        self._changed: Final = threading.Condition()
        self._sending: Final = threading.Lock()
        self._socket: Final = socket.create_connection(("127.0.0.1", port))
        self._thread: Final = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._send(PREFACE, Frame(kind=FrameType.SETTINGS).to_bytes())
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Wakes the thread that reads from it.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_SECONDS)
        self._socket.close()

    def begin(self, method: str, data: Iterable[bytes]) -> None:
        """Begins a call, sends `data` and leaves it open."""
        stream = 2 * self._opened + 1
        self._opened += 1
        headers = encode_headers(
            {
                ":method": "POST",
                ":scheme": "http",
                ":path": SERVICE + method,
                ":authority": "service",
                "te": "trailers",
                "content-type": "application/grpc",
                "authorization": f"Bearer {self._credential}",
            }
        )
        frames = [Frame(kind=FrameType.HEADERS, flags=END_HEADERS, stream=stream, payload=headers)]
        frames += [Frame(kind=FrameType.DATA, stream=stream, payload=piece) for piece in data]
        self._send(*(frame.to_bytes() for frame in frames))

    def still_open(self) -> int:
        """How many calls the service has not ended, once it has read all that was sent."""
        self._asked += 1
        self._send(Frame(kind=FrameType.PING, payload=bytes(8)).to_bytes())
        with self._changed:
            assert self._changed.wait_for(
                lambda: self._is_over or self._answers == self._asked, PATIENCE_SECONDS
            ), "the service does not answer"
            assert not self._is_over, "the service has closed the connection"
            return self._opened - len(self._ended)

    def _send(self, *data: bytes) -> None:
        with self._sending:
            self._socket.sendall(b"".join(data))

    def _read(self) -> None:
        reader = FrameReader()
        with suppress(OSError):
            while data := self._socket.recv(64 << 10):
                for frame in reader.feed(data):
                    self._take(frame)
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _take(self, frame: Frame) -> None:
        if frame.kind in {FrameType.SETTINGS, FrameType.PING} and not frame.flags & ACK:
            payload = frame.payload if frame.kind == FrameType.PING else b""
            self._send(Frame(kind=frame.kind, flags=ACK, payload=payload).to_bytes())
        with self._changed:
            if frame.ends_stream:
                self._ended.add(frame.stream)
            self._answers += frame.kind == FrameType.PING and bool(frame.flags & ACK)
            self._changed.notify_all()
