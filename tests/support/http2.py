"""Just enough of HTTP/2 (RFC 9113) to look into gRPC connections and to write broken ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final

__all__ = [
    "ACK",
    "END_HEADERS",
    "END_STREAM",
    "PREFACE",
    "Frame",
    "FrameReader",
    "FrameType",
    "encode_headers",
]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
_HEAD: Final = 9


@unique
class FrameType(IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    # A FrameType, or one that nobody here asks for.
    kind: int
    stream: int = 0
    flags: int = 0
    payload: bytes = b""

    def is_data_of(self, stream: int) -> bool:
        return self.kind == FrameType.DATA and self.stream == stream

    @property
    def ends_stream(self) -> bool:
        ends = self.kind in {FrameType.DATA, FrameType.HEADERS} and self.flags & END_STREAM
        return bool(ends) or self.kind == FrameType.RST_STREAM

    def to_bytes(self) -> bytes:
        head = len(self.payload).to_bytes(3, "big") + bytes((self.kind, self.flags))
        return head + self.stream.to_bytes(4, "big") + self.payload


class FrameReader:
    """Cuts what arrives into whole frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._held += data
        while len(self._held) >= _HEAD:
            size = int.from_bytes(self._held[:3], "big")
            if len(self._held) < _HEAD + size:
                return
            yield Frame(
                kind=self._held[3],
                flags=self._held[4],
                stream=int.from_bytes(self._held[5:_HEAD], "big") & 0x7FFF_FFFF,
                payload=bytes(self._held[_HEAD : _HEAD + size]),
            )
            del self._held[: _HEAD + size]


def encode_headers(fields: Mapping[str, str]) -> bytes:
    """HPACK without its tables: every field a literal, never indexed, no Huffman code."""
    return b"".join(
        b"\x10" + _text(name.encode()) + _text(value.encode()) for name, value in fields.items()
    )


def _text(data: bytes) -> bytes:
    """A length with a prefix of 7 bits, then the bytes."""
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, encoded = len(data) - 127, bytearray((127,))
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes(encoded) + bytes((rest,)) + data
