"""A hostile connection: uploads that begin as they should and then never go on."""

from __future__ import annotations

import socket
from collections.abc import Iterable
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
    """Raw HTTP/2 on loopback; knows of every stream of its own whether the service has ended it."""

    def __init__(self, port: int, credential: str) -> None:
        self._credential: Final = credential
        self._reader: Final = FrameReader()
        self._ended: Final[set[int]] = set()
        self._opened = 0
        self._socket: Final = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        self._send(PREFACE, Frame(kind=FrameType.SETTINGS).to_bytes())
        self._read_until(FrameType.SETTINGS, flags=0)
        self._send(Frame(kind=FrameType.SETTINGS, flags=ACK).to_bytes())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
        self._send(Frame(kind=FrameType.PING, payload=bytes(8)).to_bytes())
        self._read_until(FrameType.PING, flags=ACK)
        return self._opened - len(self._ended)

    def _send(self, *data: bytes) -> None:
        self._socket.sendall(b"".join(data))

    def _read_until(self, kind: FrameType, *, flags: int) -> None:
        while True:
            data = self._socket.recv(64 << 10)
            if not data:
                raise AssertionError("the service has closed the connection")
            found = False
            for frame in self._reader.feed(data):
                if frame.ends_stream:
                    self._ended.add(frame.stream)
                found = found or (frame.kind == kind and frame.flags == flags)
            if found:
                return
