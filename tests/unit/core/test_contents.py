"""What a segment is taken apart into is what protobuf's own class reads of it."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1.packed_update_pb2 import PackedSegment
from flasc_core.pb.v1.sparse_update_pb2 import SparseSegment
from flasc_core.wire.contents import MAX_FIELDS, take_apart

GAP, LONG_GAP, VALUE = b"\x30\x01", b"\x30\x83\x05", b"\x3d\x00\x00\x80\x3f"
PIECES = (
    GAP,
    LONG_GAP,
    # More than 32 bits, and ten bytes.
    b"\x30\xff\xff\xff\xff\x7f",
    b"\x30\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
    VALUE,
    # A value whose bytes look like tags.
    b"\x3d\x30\x01\x3d\x30",
    b"\x32\x02\x00\x02",
    b"\x32\x00",
    b"\x3a\x04\x00\x00\x80\x3f",
    b"\x3a\x00",
    b"\x08\x07",
    b"\x18\x03",
    b"\x52\x03abc",
    # Known numbers of another wire type, and unknown ones.
    b"\x0a\x02ab",
    b"\x50\x01",
    b"\x35\x00\x00\x00\x00",
    b"\xa2\x06\x02\x30\x01",
    b"\xa0\x06\x01",
)


def put_together(segment: bytes) -> bytes:
    """The segment again, as an encoder writes it."""
    message, blobs = take_apart(memoryview(segment))
    packed = PackedSegment(
        gaps=map(bytes, blobs.get("gaps", ())), values=map(bytes, blobs.get("values", ()))
    )
    for name in blobs.keys() - {"gaps", "values"}:
        setattr(packed, name, bytes(blobs[name][0]))
    return message + packed.SerializeToString()


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
@example(GAP * 300 + LONG_GAP * 300 + VALUE * 300)
@example(GAP + b"\x32\x02\x00\x02" + LONG_GAP)
def test_protobufs_own_class_reads_the_same_of_it(segment: bytes) -> None:
    expected = SparseSegment.FromString(segment)
    expected.DiscardUnknownFields()
    assert SparseSegment.FromString(put_together(segment)) == expected


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=6).map(b"".join))
def test_of_any_bytes_it_makes_what_protobuf_makes(segment: bytes) -> None:
    try:
        packed = put_together(segment)
    except Refusal:
        return
    try:
        expected = SparseSegment.FromString(segment)
    except DecodeError:
        # What is in packed arrays is not looked into here.
        with pytest.raises(DecodeError):
            SparseSegment.FromString(packed)
        return
    expected.DiscardUnknownFields()
    assert SparseSegment.FromString(packed) == expected


def test_byte_strings_stay_where_they_stand_in_the_payload() -> None:
    segment = SparseSegment(start=1, length=9, nnz=2, gaps=[1, 2], values=[1.0, 2.0], gap_low=b"a")
    written = segment.SerializeToString()
    _, blobs = take_apart(memoryview(written))
    views = [part for parts in blobs.values() for part in parts]
    assert len(views) == 3
    assert all(isinstance(part, memoryview) and part.obj is written for part in views)


@pytest.mark.parametrize(
    ("piece", "fields"), [(b"\x32\x01\x00", 1), (b"\xa0\x06\x01", 1), (GAP * 9 + VALUE * 9, 2)]
)
def test_more_fields_than_any_segment_has_are_refused(piece: bytes, fields: int) -> None:
    take_apart(memoryview(piece * (MAX_FIELDS // fields)))
    with pytest.raises(Refusal, match="fields") as refusal:
        take_apart(memoryview(piece * (MAX_FIELDS // fields + 1)))
    assert refusal.value.reason is Reason.FIELD_RANGE
