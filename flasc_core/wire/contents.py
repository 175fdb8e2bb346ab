"""Takes a segment apart: its numbers, its byte strings where they stand, and its arrays packed.

Protobuf also allows arrays whose numbers have a tag each, which the twin message does not know, and
its own class takes twenty times a segment's bytes while it reads some of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.wire.limits import SEGMENT_NNZ
from flasc_core.wire.tags import BYTES, FIXED32, VARINT, Field, read_field, tag_of
from flasc_core.wire.varint import CONTINUED, MAX_VARINT

__all__ = ["MAX_FIELDS", "Blob", "take_apart"]

# Some times those that a segment has. Numbers one by one under equal tags count once.
MAX_FIELDS: Final = 64

Blob: TypeAlias = bytes | memoryview

_FIELDS: Final = packed_update_pb2.PackedSegment.DESCRIPTOR.fields
_NUMBERS: Final = frozenset(
    tag_of(field.number, VARINT) for field in _FIELDS if field.type != field.TYPE_BYTES
)
_BLOBS: Final = MappingProxyType(
    {tag_of(field.number, BYTES): field.name for field in _FIELDS if field.type == field.TYPE_BYTES}
)
_UNPACKED_GAP: Final = tag_of(packed_update_pb2.PackedSegment.GAPS_FIELD_NUMBER, VARINT)
_UNPACKED_VALUE: Final = tag_of(packed_update_pb2.PackedSegment.VALUES_FIELD_NUMBER, FIXED32)
_UNPACKED: Final = MappingProxyType({_UNPACKED_GAP: "gaps", _UNPACKED_VALUE: "values"})
_ARRAYS: Final = frozenset(_UNPACKED.values())
# Runs of an array's numbers under a tag each. They are possessive: in memory that does not grow.
_RUNS: Final = MappingProxyType(
    {
        _UNPACKED_GAP: re.compile(rb"(?:%c[\x80-\xff]{0,9}[\x00-\x7f])++" % _UNPACKED_GAP),
        _UNPACKED_VALUE: re.compile(rb"(?:%c.{4})++" % _UNPACKED_VALUE, re.DOTALL),
    }
)
# What a whole segment's numbers take with a tag each, a gap being one of 32 bits.
_LONGEST_RUNS: Final = MappingProxyType(
    {_UNPACKED_GAP: SEGMENT_NNZ * (1 + MAX_VARINT), _UNPACKED_VALUE: SEGMENT_NNZ * 5}
)


def take_apart(segment: memoryview) -> tuple[bytes, Mapping[str, Sequence[Blob]]]:
    """Return the fields that are numbers, as a message, and what others hold, by name.

    Which is the last byte string of a name, and all packed parts of an array but empty ones, that
    are to protobuf as if they were not there. Refuses FIELD_RANGE for more than MAX_FIELDS fields,
    and MALFORMED_MESSAGE.
    """
    numbers: dict[int, memoryview] = {}
    blobs: dict[str, list[Blob]] = {}
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
        if field.tag in _NUMBERS:
            numbers[field.tag] = segment[field.start : field.end]
        elif field.tag in _RUNS:
            run = _packed(segment[field.start : at], field.tag)
            blobs.setdefault(_UNPACKED[field.tag], []).append(run)
        elif field.tag in _BLOBS:
            _keep(blobs, _BLOBS[field.tag], segment[field.content : field.end])
    return b"".join(numbers.values()), blobs


def _keep(blobs: dict[str, list[Blob]], name: str, blob: Blob) -> None:
    if name not in _ARRAYS:
        blobs[name] = [blob]
    elif blob:
        blobs.setdefault(name, []).append(blob)


def _end_of_run(segment: memoryview, field: Field) -> int:
    run = _RUNS.get(field.tag)
    found = run.match(segment, field.start) if run else None
    return found.end() if found else field.end


def _packed(run: memoryview, tag: int) -> memoryview:
    """Return the numbers of the run as they stand in a packed array.

    Refuses FIELD_RANGE for what can not be those of one segment, before anything is made of it.
    """
    if len(run) > _LONGEST_RUNS[tag]:
        raise Refusal(
            Reason.FIELD_RANGE,
            f"{_UNPACKED[tag]} of {len(run)} bytes are more than any segment has",
            field=_UNPACKED[tag],
        )
    octets = np.frombuffer(run, dtype=np.uint8)
    if tag == _UNPACKED_VALUE:
        return memoryview(octets.reshape(-1, 5)[:, 1:].tobytes())
    # Of the bytes that end a number every other one is a tag, from the first on.
    ends = octets < CONTINUED
    is_tag = np.cumsum(ends, dtype=np.uint8)
    is_tag &= 1
    is_tag &= ends.view(np.uint8)
    return octets[np.equal(is_tag, 0, out=ends)].data
