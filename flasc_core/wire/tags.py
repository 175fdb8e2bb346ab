"""Reads a protobuf message a field at a time, in the little memory that no parser keeps to.

A parser copies every byte string, which a payload's segments need not be, keeps what it does not
know, and holds many times the bytes of a message that is nothing but short fields.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from flasc_core.errors import Reason, Refusal
from flasc_core.wire.varint import CONTINUED

__all__ = ["BYTES", "FIXED32", "VARINT", "Field", "parse", "read_field", "tag_of"]

_Message = TypeVar("_Message", bound=Message)

VARINT: Final = 0
BYTES: Final = 2
FIXED32: Final = 5
_FIXED64: Final = 1
_WIDTHS: Final = {_FIXED64: 8, FIXED32: 4}
_GROUPS: Final = frozenset({3, 4})
_WIRE_TYPE: Final = 0x07
_LARGEST_TAG: Final = 2**32 - 1
# In bytes.
_LONGEST_VARINT: Final = 10
_LONGEST_SIZE: Final = 5


class Field(NamedTuple):
    """Where a field stands in its message: its tag, what the tag announces, and its end."""

    tag: int
    start: int
    content: int
    end: int

    @property
    def wire_type(self) -> int:
        return self.tag & _WIRE_TYPE


def tag_of(number: int, wire_type: int) -> int:
    return number << 3 | wire_type


def read_field(message: bytes | memoryview, at: int) -> Field:
    """Return the field that begins at this byte.

    Refuses MALFORMED_MESSAGE for what is none, and for what protobuf's parsers take but no encoder
    of a proto3 message writes: groups, and tags of more bytes than they need.
    """
    tag, content = _varint(message, at, _LONGEST_SIZE)
    # No field has the number 0.
    if not _WIRE_TYPE < tag <= _LARGEST_TAG or (content > at + 1 and not message[content - 1]):
        raise _malformed("a field has no tag")
    kind = tag & _WIRE_TYPE
    if kind in _GROUPS:
        raise _malformed("groups are not read")
    if kind == VARINT:
        _, end = _varint(message, content, _LONGEST_VARINT)
    elif kind == BYTES:
        size, content = _varint(message, content, _LONGEST_SIZE)
        end = content + size
    elif kind in _WIDTHS:
        end = content + _WIDTHS[kind]
    else:
        raise _malformed(f"there is no wire type {kind}")
    if end > len(message):
        raise _malformed("a field is cut off")
    return Field(tag, at, content, end)


def parse(kind: type[_Message], fields: bytes) -> _Message:
    """Return the message of fields that were read. Refuses MALFORMED_MESSAGE."""
    try:
        return kind.FromString(fields)
    except DecodeError as error:
        # No runtime is known to find a mistake that `read_field` lets pass.
        raise _malformed(str(error)) from error


def _varint(message: bytes | memoryview, at: int, longest: int) -> tuple[int, int]:
    """Return the number, and where it ends."""
    if at < len(message) and message[at] < CONTINUED:
        # Most are one byte.
        return message[at], at + 1
    value = 0
    for place in range(longest):
        if at + place == len(message):
            raise _malformed("a field is cut off")
        byte = message[at + place]
        value |= (byte & ~CONTINUED) << 7 * place
        if byte < CONTINUED:
            return value, at + place + 1
    raise _malformed(f"a varint has more than {longest} bytes")


def _malformed(what: str) -> Refusal:
    return Refusal(Reason.MALFORMED_MESSAGE, f"no protobuf message as encoders write it: {what}")
