"""Encoding and decoding are inverse, and protobuf's own classes agree with every byte."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from flasc_core.layout import MAX_DIM
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.pb.v1 import sparse_update_pb2
from flasc_core.sparse import SparseVector, count_kept, top_k
from flasc_core.wire import PLAIN, decode, encode
from tests.unit.core.builders import (
    DENSE,
    GAPS,
    a_payload,
    a_segment,
    a_vector,
    limits_of,
    read_by_definition,
    sparse_vectors,
)


def a_long_vector(nnz: int, *, stride: int = 1) -> SparseVector:
    indices = np.arange(nnz, dtype=np.int64) * stride
    return SparseVector(
        dim=int(indices[-1]) + 1, indices=indices, values=np.ones(nnz, dtype=np.float32)
    )


@given(sparse_vectors())
def test_a_vector_survives_the_wire(vector: SparseVector) -> None:
    assert decode(encode(vector), limits_of(vector.dim, min_nnz=0)) == vector


@given(sparse_vectors(dim=MAX_DIM))
def test_a_vector_of_the_largest_dimension_survives_the_wire(vector: SparseVector) -> None:
    assert decode(encode(vector), limits_of(MAX_DIM, min_nnz=0)) == vector


@given(sparse_vectors())
def test_protobuf_reads_and_rewrites_the_same_bytes(vector: SparseVector) -> None:
    payload = encode(vector)
    update = sparse_update_pb2.SparseUpdate.FromString(payload)
    assert update.SerializeToString() == payload
    assert not UnknownFieldSet(update)
    assert read_by_definition(payload) == vector


@pytest.mark.parametrize("nnz", [1, 65_535, 65_536, 65_537, 131_072, 131_073])
@pytest.mark.parametrize("stride", [1, 2, 200])
def test_segments_hold_up_to_65536_nonzeros(nnz: int, stride: int) -> None:
    vector = a_long_vector(nnz, stride=stride)
    payload = encode(vector)
    segments = sparse_update_pb2.SparseUpdate.FromString(payload).segments
    assert [segment.nnz for segment in segments] == [
        min(65_536, nnz - first) for first in range(0, nnz, 65_536)
    ]
    assert decode(payload, limits_of(vector.dim)) == vector


@pytest.mark.parametrize(
    ("indices", "encoding"),
    [([3], DENSE), ([3, 4, 5], DENSE), ([0, 1, 2, 3], DENSE), ([3, 5], GAPS), ([0, 9], GAPS)],
)
def test_a_run_without_holes_is_dense_and_has_no_gaps(indices: list[int], encoding: int) -> None:
    payload = encode(a_vector(indices, np.ones(len(indices))))
    (segment,) = sparse_update_pb2.SparseUpdate.FromString(payload).segments
    assert (segment.index_encoding, segment.start) == (encoding, indices[0])
    assert segment.length == indices[-1] - indices[0] + 1
    assert len(segment.gaps) == (len(indices) if encoding == GAPS else 0)


def test_the_plain_profile_leaves_every_compact_field_unset() -> None:
    payload = encode(a_vector(), PLAIN)
    (segment,) = sparse_update_pb2.SparseUpdate.FromString(payload).segments
    assert {field.number for field, _ in segment.ListFields()} == {1, 2, 3, 4, 5, 6, 7}


def test_a_vector_without_nonzeros_is_only_its_dimension() -> None:
    empty = a_vector([], [])
    payload = encode(empty)
    assert payload == sparse_update_pb2.SparseUpdate(dim=10).SerializeToString()
    assert decode(payload, limits_of(min_nnz=0)) == empty


def test_a_download_keeps_its_explicit_zeros() -> None:
    vector = a_vector([1, 2, 5], [0.0, -0.0, 1.0])
    assert decode(encode(vector), limits_of()) == vector


def test_a_memoryview_is_read_like_bytes() -> None:
    assert decode(memoryview(encode(a_vector())), limits_of()) == a_vector()


# --- what other writers may send --------------------------------------------------------------


def pieces(*fields: bytes) -> bytes:
    """A segment with the usual head, and these fields for its arrays."""
    head = sparse_update_pb2.SparseSegment.FromString(a_segment(gaps=[], values=[]))
    return head.SerializeToString() + b"".join(fields)


PACKED_GAPS = bytes([6 << 3 | 2, 3, 0, 2, 0])
PACKED_VALUES = bytes([7 << 3 | 2, 12]) + np.array([0.5, -1, 2], dtype="<f4").tobytes()
UNPACKED_GAPS = bytes([6 << 3, 0, 6 << 3, 2, 6 << 3, 0])
UNPACKED_VALUES = b"".join(
    bytes([7 << 3 | 5]) + np.array([value], dtype="<f4").tobytes() for value in (0.5, -1, 2)
)
FOREIGN = {
    "as protobuf writes it": a_segment(),
    "values before gaps": pieces(PACKED_VALUES, PACKED_GAPS),
    "unpacked gaps": pieces(UNPACKED_GAPS, PACKED_VALUES),
    "unpacked values": pieces(PACKED_GAPS, UNPACKED_VALUES),
    "gaps in two parts": pieces(b"\x32\x01\x00\x32\x02\x02\x00", PACKED_VALUES),
    "values in two parts": pieces(
        PACKED_GAPS, b"\x3a\x04" + PACKED_VALUES[2:6], b"\x3a\x08" + PACKED_VALUES[6:]
    ),
    "gaps packed and unpacked": pieces(b"\x32\x02\x00\x02\x30\x00", PACKED_VALUES),
    "an overlong varint": pieces(b"\x32\x04\x00\x82\x00\x00", PACKED_VALUES),
    "an unknown field": pieces(PACKED_GAPS, PACKED_VALUES, b"\xa0\x06\x07"),
    "a wider segment": a_segment(start=0, length=10, gaps=[1, 2, 0]),
    "a dense segment": a_segment(
        start=0, length=6, nnz=6, index_encoding=DENSE, gaps=[], values=[0, 0.5, 0, 0, -1, 2]
    ),
}


@pytest.mark.parametrize("segment", FOREIGN.values(), ids=FOREIGN.keys())
def test_other_writers_are_read_as_protobuf_reads_them(segment: bytes) -> None:
    payload = a_payload(segment)
    vector = decode(payload, limits_of())
    assert vector == read_by_definition(payload)
    assert vector.to_dense().tolist() == a_vector().to_dense().tolist()


def test_segments_of_any_size_make_one_vector() -> None:
    segments = [
        a_segment(start=1, length=1, nnz=1, index_encoding=DENSE, gaps=[], values=[0.5]),
        a_segment(start=2, length=8, nnz=2, gaps=[2, 0], values=[-1, 2]),
    ]
    assert decode(a_payload(*segments), limits_of()) == a_vector()


def test_unknown_fields_of_an_update_are_ignored() -> None:
    assert decode(encode(a_vector()) + b"\xa0\x06\x07", limits_of()) == a_vector()


def test_the_largest_gap_survives_the_wire() -> None:
    vector = a_vector([0, MAX_DIM - 1], [1, 2], dim=MAX_DIM)
    assert decode(encode(vector), limits_of(MAX_DIM)) == vector


# --- size -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("density", "ratio"), [(1 / 4, 3.19), (1 / 16, 12.7)])
def test_sparse_payloads_are_as_small_as_the_method_promises(density: float, ratio: float) -> None:
    dim = 597_514
    update = np.random.default_rng(5).standard_normal(dim).astype(np.float32)
    indices = top_k(update, count_kept(dim, density))
    payload = encode(SparseVector(dim=dim, indices=indices, values=update[indices]))
    assert 4 * dim / len(payload) >= ratio


@given(st.integers(1, 200))
def test_a_segment_s_envelope_is_small(nnz: int) -> None:
    payload = encode(a_long_vector(nnz, stride=2))
    assert len(payload) <= 5 * nnz + 40


def test_the_twin_messages_have_the_public_messages_field_numbers() -> None:
    for twin, public in (
        (packed_update_pb2.PackedSegment, sparse_update_pb2.SparseSegment),
        (packed_update_pb2.PackedUpdate, sparse_update_pb2.SparseUpdate),
    ):
        numbers = [
            {field.name: field.number for field in message.DESCRIPTOR.fields}
            for message in (twin, public)
        ]
        assert numbers[0] == numbers[1]
