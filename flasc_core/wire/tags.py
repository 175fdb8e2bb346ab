"""Counts a protobuf message's fields before anything parses it.

A parser holds many times the bytes of a message that is nothing but short fields, so what has more
of them than an honest writer needs is told apart first.
"""

from __future__ import annotations

from typing import Final

__all__ = ["has_more_fields"]

_CONTINUED: Final = 0x80
_WIRE_TYPE: Final = 0x07
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def has_more_fields(message: bytes | memoryview, count: int) -> bool:
    """Whether there are more than `count` fields, in time that `count` bounds.

    Of what is no message, some fields before the mistake may be counted: its parser refuses it.
    """
    at = fields = 0
    while at < len(message):
        if fields == count:
            return True
        tag, at = _varint(message, at)
        if tag <= _WIRE_TYPE:
            # No field has the number 0.
            return False
        kind = tag & _WIRE_TYPE
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _BYTES:
            size, at = _varint(message, at)
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        # Others are the ends of groups, whose fields are counted as if they were the message's.
        fields += 1
    return False


def _varint(message: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return the number, and where it ends; beyond the message for one that is none."""
    value = 0
    for place in range(10):
        if at + place >= len(message):
            break
        byte = message[at + place]
        value |= (byte & ~_CONTINUED) << 7 * place
        if byte < _CONTINUED:
            return value, at + place + 1
    return 0, len(message)
