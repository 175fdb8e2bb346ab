"""Counts a protobuf message's fields, and takes the large ones out, before anything parses it.

A parser holds many times the bytes of a message that is nothing but short fields, so what has more
of them than an honest writer needs is told apart first. It also copies every byte string, which a
payload's segments need not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["has_more_fields", "take_out"]

_CONTINUED: Final = 0x80
_WIRE_TYPE: Final = 0x07
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST_TAG: Final = 2**32 - 1
# A tag of one byte, and a size of 32 bits.
_LONGEST_HEAD: Final = 6
_KINDS: Final = frozenset({_VARINT, _FIXED64, _BYTES, _FIXED32})


class _Field(NamedTuple):
    """Where a field stands in its message: its tag, what the tag announces, and its end."""

    tag: int
    start: int
    content: int
    end: int


def has_more_fields(message: bytes | memoryview, count: int) -> bool:
    """Whether there are more than `count` fields, in time that `count` bounds.

    Of what is no message, some fields before the mistake may be counted: its parser refuses it.
    """
    return any(number == count for number, _ in enumerate(_fields(message)))


def take_out(message: memoryview, number: int) -> tuple[list[memoryview], bytes]:
    """Return the contents of all fields of this number, up to 15, and what is left of the message.

    Parsing the rest, where further ones may stand, gives what parsing all of it would: from the
    first thing on that only a parser should judge, such as a group or a mistake, nothing is taken.
    """
    wanted = number << 3 | _BYTES
    taken, rest, done = [], bytearray(), 0
    for field in _fields(message):
        # No field has the number 0, though parsers let it pass inside a group.
        if not _WIRE_TYPE < field.tag <= _LARGEST_TAG or field.tag & _WIRE_TYPE not in _KINDS:
            break
        if field.end > len(message):
            break
        if field.tag == wanted:
            if message[field.start] != wanted or field.content - field.start > _LONGEST_HEAD:
                # As no encoder writes it.
                break
            taken.append(message[field.content : field.end])
        else:
            rest += message[field.start : field.end]
        done = field.end
    return taken, bytes(rest + message[done:])


def _fields(message: bytes | memoryview) -> Iterator[_Field]:
    """Yield what looks like fields; one that ends beyond the message is a mistake, and the last."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        content = at
        kind = tag & _WIRE_TYPE
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _BYTES:
            size, content = _varint(message, at)
            at = content + size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        # Others are the ends of groups, whose fields are counted as if they were the message's.
        yield _Field(tag, start, content, at)


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
    return 0, len(message) + 1
