"""Taking segments out of an update comes to the same as letting protobuf parse all of it."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flasc_core.pb.internal.v1.packed_update_pb2 import PackedUpdate
from flasc_core.wire.tags import take_out

FIELDS = (
    b"\x08\x0a",
    b"\x12\x00",
    b"\x12\x03abc",
    b"\x1d\x01\x02\x03\x04",
    # Unknown ones: a number, eight bytes, a string; and one that no number 2 is.
    b"\xa0\x06\x07",
    b"\xa1\x06" + bytes(8),
    b"\xa2\x06\x04\x12\x01z\x00",
    b"\x10\x05",
    # Segments that are written in no usual way: longer tags, longer sizes, inside a group.
    b"\x92\x00\x02de",
    b"\x92\x80\x80\x80\x00\x02fg",
    b"\x92\x80\x80\x80\x80\x00\x02fg",
    b"\x12\x82\x00hi",
    b"\x12\x82\x80\x80\x80\x00jk",
    b"\x12\x82\x80\x80\x80\x80\x00lm",
    b"\x12\x82\x80\x80\x80\x80\x80\x80\x80\x80\x00no",
    b"\xa3\x06\x12\x01p\xa4\x06",
    b"\x0b\x00\x00\x0c",
    # Mistakes: the end of no group, no number, no wire type, cut off, too long.
    b"\x14",
    b"\xa4\x06",
    b"\x00",
    b"\x02\x00",
    b"\x16",
    b"\x17",
    b"\x12",
    b"\x12\x80",
    b"\x12\x05q",
    b"\x12\xff\xff\xff\xff\x0f",
    b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x92\x80\x80\x80\x10\x01r",
    b"\x08" + b"\x80" * 10 + b"\x00",
)


@settings(max_examples=500)
@given(st.lists(st.sampled_from(FIELDS) | st.binary(max_size=4), max_size=6).map(b"".join))
@example(b"\x92\x00\x01a\x12\x01b")
@example(b"\x12\x01a\xa3\x06\x12\x01b\xa4\x06\x12\x01c")
def test_what_is_taken_out_and_the_rest_are_the_message(message: bytes) -> None:
    taken, rest = take_out(memoryview(message), 2)
    try:
        whole = PackedUpdate.FromString(message)
    except DecodeError:
        with pytest.raises(DecodeError):
            PackedUpdate.FromString(rest)
        return
    left = PackedUpdate.FromString(rest)
    assert [*map(bytes, taken), *left.segments] == list(whole.segments)
    assert (left.dim, left.crc32) == (whole.dim, whole.crc32)


def test_segments_are_views_of_the_payload() -> None:
    payload = PackedUpdate(dim=9, segments=[b"one", b"two"], crc32=7).SerializeToString()
    taken, rest = take_out(memoryview(payload), 2)
    assert [part.obj for part in taken] == [payload, payload]
    assert rest == PackedUpdate(dim=9, crc32=7).SerializeToString()
