"""Fields are found where protobuf finds them, in every message that an encoder writes."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1.packed_update_pb2 import PackedUpdate
from flasc_core.wire.tags import BYTES, Field, read_field, tag_of

SEGMENT = tag_of(PackedUpdate.SEGMENTS_FIELD_NUMBER, BYTES)
READ = (
    b"\x08\x0a",
    b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x12\x00",
    b"\x12\x03abc",
    b"\x1d\x01\x02\x03\x04",
    # Unknown ones: a number, eight bytes, a string; and one that no number 2 is.
    b"\xa0\x06\x07",
    b"\xa1\x06" + bytes(8),
    b"\xa2\x06\x04\x12\x01z\x00",
    b"\x10\x05",
    # The largest number that a field has.
    b"\xf8\xff\xff\xff\x0f\x01",
    # As encoders write a size that they do not know yet.
    b"\x12\x82\x00hi",
    b"\x12\x82\x80\x80\x80\x00jk",
)
# What protobuf takes, and no encoder of a proto3 message writes.
UNUSUAL = {
    "a group": b"\xa3\x06\x12\x01p\xa4\x06",
    "a group with a field 0": b"\x0b\x00\x00\x0c",
    "a longer tag": b"\x92\x00\x02de",
    "the longest tag": b"\x92\x80\x80\x80\x00\x02fg",
}
MISTAKES = {
    "the end of no group": b"\xa4\x06",
    "the number 0": b"\x00",
    "the number 0 with bytes": b"\x02\x00",
    "wire type 6": b"\x16",
    "wire type 7": b"\x17",
    "no size": b"\x12",
    "half a size": b"\x12\x80",
    "half a tag": b"\x92",
    "too few bytes": b"\x12\x05q",
    "a size of 32 bits": b"\x12\xff\xff\xff\xff\x0f",
    "a size of 64 bits": b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "a tag beyond 32 bits": b"\x92\x80\x80\x80\x10\x01r",
    "a varint of eleven bytes": b"\x08" + b"\x80" * 10 + b"\x00",
    "half a fixed number": b"\x1d\x01\x02\x03",
}

REFUSED = {**UNUSUAL, **MISTAKES}


def fields_of(message: bytes) -> list[Field]:
    fields = []
    at = 0
    while at < len(message):
        fields.append(read_field(message, at))
        at = fields[-1].end
    return fields


@settings(max_examples=500)
@given(
    st.lists(
        st.sampled_from([*READ, *REFUSED.values()]) | st.binary(max_size=4),
        max_size=6,
    ).map(b"".join)
)
@example(b"\x12\x01a\x12\x01b\x08\x05\x08\x06")
def test_what_is_read_is_what_protobuf_finds(message: bytes) -> None:
    try:
        fields = fields_of(message)
    except Refusal:
        return
    segments = [message[field.content : field.end] for field in fields if field.tag == SEGMENT]
    others = [message[field.start : field.end] for field in fields if field.tag != SEGMENT]
    try:
        whole = PackedUpdate.FromString(message)
    except DecodeError:
        # A number of 64 bits that overflows is left to protobuf, which says the same of the rest.
        with pytest.raises(DecodeError):
            PackedUpdate.FromString(b"".join(others))
        return
    left = PackedUpdate.FromString(b"".join(others))
    assert segments == list(whole.segments)
    assert (left.dim, left.crc32, list(left.segments)) == (whole.dim, whole.crc32, [])


@pytest.mark.parametrize("field", READ)
def test_every_field_that_encoders_write_is_read(field: bytes) -> None:
    found = read_field(b"\x08\x01" + field, 2)
    assert (found.start, found.end) == (2, 2 + len(field))
    PackedUpdate.FromString(field)


@pytest.mark.parametrize(
    "field", [*UNUSUAL.values(), *MISTAKES.values()], ids=[*UNUSUAL, *MISTAKES]
)
def test_what_no_encoder_writes_is_refused(field: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        fields_of(b"\x08\x01" + field)
    assert refusal.value.reason is Reason.MALFORMED_MESSAGE
