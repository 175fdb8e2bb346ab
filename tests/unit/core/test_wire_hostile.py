"""Whatever the bytes: a vector within limits that protobuf agrees with, or a refusal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.pb.v1 import sparse_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import decode, encode
from tests.unit.core.builders import (
    a_payload,
    a_segment,
    a_vector,
    limits_of,
    read_by_definition,
    sparse_vectors,
)

DIM = 300
LIMITS = limits_of(DIM, max_nnz=50)


def examine(payload: bytes) -> bool:
    """Decode; True if a vector came out, which then keeps every promise."""
    try:
        vector = decode(payload, LIMITS)
    except Refusal:
        return False
    assert vector == read_by_definition(payload)
    assert vector.dim == DIM
    assert 1 <= vector.nnz <= LIMITS.max_nnz
    assert np.abs(vector.values).max() <= LIMITS.max_abs_value
    return True


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(payload: bytes) -> None:
    examine(payload)


@settings(max_examples=500)
@given(st.lists(st.binary(max_size=60), max_size=3))
def test_random_segments_under_a_right_checksum_are_refused(segments: list[bytes]) -> None:
    examine(a_payload(*segments, dim=DIM))


@settings(max_examples=500)
@given(
    start=st.one_of(st.integers(0, DIM), st.integers(0, 2**64 - 1)),
    length=st.one_of(st.integers(0, DIM), st.integers(0, 2**64 - 1)),
    nnz=st.one_of(st.integers(0, 5), st.integers(0, 2**32 - 1)),
    index_encoding=st.integers(0, 3),
    value_encoding=st.integers(0, 2),
    gaps=st.lists(st.binary(max_size=12), max_size=2),
    values=st.lists(st.binary(max_size=16), max_size=2),
    gap_shift=st.sampled_from([0, 0, 0, 1]),
)
def test_segments_with_random_fields_are_refused_or_right(**fields: object) -> None:
    segment = packed_update_pb2.PackedSegment(**fields)  # type: ignore[arg-type]
    examine(a_payload(segment.SerializeToString(), dim=DIM))


@settings(max_examples=200)
@given(sparse_vectors(dim=DIM, min_nnz=1))
def test_a_payload_that_is_cut_off_is_refused(vector: SparseVector) -> None:
    payload = encode(vector)
    assert examine(payload)
    for end in range(len(payload)):
        with pytest.raises(Refusal):
            decode(payload[:end], LIMITS)


@settings(max_examples=500)
@given(
    sparse_vectors(dim=DIM, min_nnz=1),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_a_payload_with_changed_bytes_is_refused_or_right(
    vector: SparseVector, changes: list[tuple[int, int]]
) -> None:
    examine(mutated(encode(vector), changes))


@settings(max_examples=500)
@given(
    sparse_vectors(dim=DIM, min_nnz=1),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_a_segment_with_changed_bytes_under_a_right_checksum_is_refused_or_right(
    vector: SparseVector, changes: list[tuple[int, int]]
) -> None:
    (segment,) = packed_update_pb2.PackedUpdate.FromString(encode(vector)).segments
    examine(a_payload(mutated(segment, changes), dim=DIM))


def test_every_single_changed_bit_is_refused_or_right() -> None:
    payload = encode(a_vector([3, 4, 140, 299], [0.5, -1, 2, 3], dim=DIM))
    accepted = sum(
        examine(mutated(payload, [(position, 1 << bit)]))
        for position in range(len(payload))
        for bit in range(8)
    )
    # The checksum covers the segments, the limits the dimension: nothing of use is left to change.
    assert accepted == 0


def test_twenty_thousand_mutations_of_real_payloads_raise_nothing_but_refusals() -> None:
    rng = np.random.default_rng(17)
    accepted = 0
    for _ in range(20_000):
        count = int(rng.integers(1, 20))
        indices = np.sort(rng.choice(DIM, count, replace=False))
        segment = packed_update_pb2.PackedUpdate.FromString(
            encode(a_vector(indices.tolist(), rng.standard_normal(count), dim=DIM))
        ).segments[0]
        changes = [
            (int(rng.integers(0, 10_000)), int(rng.integers(1, 256)))
            for _ in range(rng.integers(1, 4))
        ]
        segment = mutated(segment, changes)[: int(rng.integers(len(segment) // 2, 200))]
        accepted += examine(a_payload(segment, dim=DIM))
    # Changed values stay legal, so that both outcomes are seen.
    assert 0 < accepted < 20_000


def test_a_stack_of_tiny_segments_is_refused_before_it_is_read() -> None:
    with pytest.raises(Refusal, match="segments"):
        decode(a_payload(*[a_segment()] * 100_000, dim=DIM), LIMITS)


@pytest.mark.parametrize("parts", [(b"\x00\x02", b"\x00"), (b"", b"\x00", b"\x02\x00")])
def test_arrays_may_come_in_several_packed_parts(parts: tuple[bytes, ...]) -> None:
    values = np.array([0.5, -1.0, 2.0], "<f4").tobytes()
    segment = a_packed_segment(gaps=parts, values=[values[:4], values[4:]])
    assert decode(a_payload(segment), limits_of(10)) == a_vector()


@pytest.mark.parametrize(
    ("gaps", "reason"),
    [
        # 2**32 + 3, which 32 bits would make 3 of.
        ((b"\x00", b"\x83\x80\x80\x80\x10\x00"), Reason.INDEX_RANGE),
        # A number that begins in one part and ends in the next.
        ((b"\x00\x82", b"\x00\x00"), Reason.MALFORMED_MESSAGE),
    ],
)
def test_parts_are_held_to_what_one_array_is_held_to(
    gaps: tuple[bytes, ...], reason: Reason
) -> None:
    segment = a_packed_segment(gaps=gaps, values=[bytes(12)])
    with pytest.raises(Refusal) as refused:
        decode(a_payload(segment), limits_of(10))
    assert refused.value.reason is reason


def a_packed_segment(*, gaps: Sequence[bytes], values: Sequence[bytes]) -> bytes:
    segment = packed_update_pb2.PackedSegment(
        start=1,
        length=5,
        nnz=3,
        index_encoding=sparse_update_pb2.INDEX_ENCODING_GAPS,
        value_encoding=sparse_update_pb2.VALUE_ENCODING_FLOAT32,
        gaps=gaps,
        values=values,
    )
    return segment.SerializeToString()


def mutated(payload: bytes, changes: list[tuple[int, int]]) -> bytes:
    out = bytearray(payload)
    for position, flip in changes:
        out[position % len(out)] ^= flip
    return bytes(out)
