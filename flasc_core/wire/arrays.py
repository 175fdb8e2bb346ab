"""Brings a segment into the form that encoders write: known fields alone, each array packed.

Protobuf also allows arrays whose numbers have a tag each, which the twin message does not know, and
its own class takes twenty times a segment's bytes while it reads some of them.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

import numpy as np

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.wire.tags import BYTES, FIXED32, VARINT, Field, read_field, tag_of

__all__ = ["MAX_FIELDS", "with_packed_arrays"]

# Some times those that a segment has. Numbers one by one under equal tags count once.
MAX_FIELDS: Final = 64

_SEGMENT: Final = packed_update_pb2.PackedSegment.DESCRIPTOR
_GAPS, _VALUES = (_SEGMENT.fields_by_name[name].number for name in ("gaps", "values"))
_ARRAYS: Final = frozenset({tag_of(_GAPS, BYTES), tag_of(_VALUES, BYTES)})
_KNOWN: Final = frozenset(
    tag_of(field.number, BYTES if field.type == field.TYPE_BYTES else VARINT)
    for field in _SEGMENT.fields
)
_UNPACKED_GAP, _UNPACKED_VALUE = tag_of(_GAPS, VARINT), tag_of(_VALUES, FIXED32)
# Runs of an array's numbers under a tag each. They are possessive: in memory that does not grow.
_RUNS: Final = MappingProxyType(
    {
        _UNPACKED_GAP: re.compile(rb"(?:%c[\x80-\xff]{0,9}[\x00-\x7f])++" % _UNPACKED_GAP),
        _UNPACKED_VALUE: re.compile(rb"(?:%c.{4})++" % _UNPACKED_VALUE, re.DOTALL),
    }
)
# Of a varint's byte: another one follows.
_CONTINUED: Final = 0x80


def with_packed_arrays(segment: bytes) -> bytes:
    """Return the segment itself if it has that form already.

    Refuses FIELD_RANGE for more than MAX_FIELDS fields, and MALFORMED_MESSAGE.
    """
    parts: list[bytes | memoryview] = []
    is_as_written = True
    at = count = 0
    while at < len(segment):
        count += 1
        if count > MAX_FIELDS:
            raise Refusal(
                Reason.FIELD_RANGE,
                f"a segment has no more than {MAX_FIELDS} fields",
                max_fields=MAX_FIELDS,
            )
        field = read_field(segment, at)
        at = _end_of_run(segment, field)
        # To protobuf an array of no bytes is as if it were not there.
        if field.tag in _KNOWN and not (field.tag in _ARRAYS and field.content == field.end):
            parts.append(memoryview(segment)[field.start : field.end])
            continue
        is_as_written = False
        if field.tag in _RUNS:
            parts.append(_packed(segment[field.start : at], field))
    return segment if is_as_written else b"".join(parts)


def _end_of_run(segment: bytes, field: Field) -> int:
    run = _RUNS.get(field.tag)
    found = run.match(segment, field.start) if run else None
    return found.end() if found else field.end


def _packed(run: bytes, field: Field) -> bytes:
    """Return the field that has these numbers as an array."""
    octets = np.frombuffer(run, dtype=np.uint8)
    if field.wire_type == FIXED32:
        values = octets.reshape(-1, 5)[:, 1:].tobytes()
        return packed_update_pb2.PackedSegment(values=[values]).SerializeToString()
    # Of the bytes that end a number every other one is a tag, from the first on.
    ends = octets < _CONTINUED
    is_tag = ends & (np.cumsum(ends, dtype=np.uint8) % 2 == 1)
    gaps = octets[~is_tag].tobytes()
    return packed_update_pb2.PackedSegment(gaps=[gaps]).SerializeToString()
