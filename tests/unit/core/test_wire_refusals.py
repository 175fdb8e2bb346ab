"""Every bad payload has its reason, and the nearest good one passes."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import dataclass, field

import numpy as np
import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import sparse_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, decode, encode
from tests.unit.core.builders import DENSE, a_payload, a_segment, a_vector, limits_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    payload: bytes
    reason: Reason
    limits: DecodeLimits = field(default_factory=limits_of)


def bad_segment(reason: Reason, **changes: object) -> Bad:
    return Bad(payload=a_payload(a_segment(**changes)), reason=reason)  # type: ignore[arg-type]


def one_value(value: float) -> bytes:
    return a_payload(
        a_segment(start=9, length=1, nnz=1, index_encoding=DENSE, gaps=[], values=[value])
    )


def two_segments(second_start: int) -> bytes:
    return a_payload(a_segment(start=0, length=5, gaps=[0, 0, 0]), a_segment(start=second_start))


def ones(count: int) -> bytes:
    return a_payload(
        *(
            a_segment(start=at, length=1, nnz=1, index_encoding=DENSE, gaps=[], values=[1.0])
            for at in range(count)
        ),
        dim=10_000,
    )


GOOD = a_payload(a_segment())
BFLOAT16 = sparse_update_pb2.VALUE_ENCODING_BFLOAT16
INT8_POW2 = sparse_update_pb2.VALUE_ENCODING_INT8_POW2
DEFLATE = sparse_update_pb2.COMPRESSION_DEFLATE

BAD = {
    # Malformed messages.
    "no protobuf": Bad(payload=b"\xff\xff", reason=Reason.MALFORMED_MESSAGE),
    "cut off": Bad(payload=GOOD[:-1], reason=Reason.MALFORMED_MESSAGE),
    "segment no protobuf": Bad(payload=a_payload(b"\x08"), reason=Reason.MALFORMED_MESSAGE),
    "gaps cut off": Bad(
        payload=a_payload(a_segment(gaps=[]) + b"\x32\x04\x00\x02\x00\x80"),
        reason=Reason.MALFORMED_MESSAGE,
    ),
    "gap too long": Bad(
        payload=a_payload(a_segment(gaps=[]) + b"\x32\x08\x00\x02\x80\x80\x80\x80\x80\x00"),
        reason=Reason.MALFORMED_MESSAGE,
    ),
    "values cut off": Bad(
        payload=a_payload(a_segment(values=[]) + b"\x3a\x0b" + bytes(11)),
        reason=Reason.MALFORMED_MESSAGE,
    ),
    "values cut off in parts": Bad(
        payload=a_payload(a_segment(values=[]) + b"\x3a\x06" + bytes(6) + b"\x3a\x06" + bytes(6)),
        reason=Reason.MALFORMED_MESSAGE,
    ),
    # Missing fields and unknown numbers.
    "empty": Bad(payload=b"", reason=Reason.FIELD_REQUIRED),
    "no dim": Bad(payload=a_payload(a_segment(), dim=0), reason=Reason.FIELD_REQUIRED),
    "no index encoding": bad_segment(Reason.FIELD_REQUIRED, index_encoding=0),
    "no value encoding": bad_segment(Reason.FIELD_REQUIRED, value_encoding=0),
    "no length": bad_segment(Reason.FIELD_REQUIRED, length=0),
    "segment without nonzeros": bad_segment(Reason.FIELD_REQUIRED, nnz=0, gaps=[], values=[]),
    "unknown index encoding": bad_segment(Reason.UNKNOWN_ENUM, index_encoding=3),
    "unknown value encoding": bad_segment(Reason.UNKNOWN_ENUM, value_encoding=99),
    "negative value encoding": bad_segment(Reason.UNKNOWN_ENUM, value_encoding=-1),
    # Encodings that are not read.
    "bfloat16": bad_segment(Reason.VALUE_FORMAT, value_encoding=BFLOAT16, value_data=bytes(6)),
    "int8": bad_segment(Reason.VALUE_FORMAT, value_encoding=INT8_POW2, value_data=bytes(3)),
    "compressed gaps": bad_segment(Reason.VALUE_FORMAT, index_compression=DEFLATE),
    "unknown compression": bad_segment(Reason.VALUE_FORMAT, value_compression=99),
    "gap shift": bad_segment(Reason.VALUE_FORMAT, gap_shift=1),
    "high gaps": bad_segment(Reason.VALUE_FORMAT, gap_high=b"\0"),
    "low gaps": bad_segment(Reason.VALUE_FORMAT, gap_low=b"\0"),
    "value data": bad_segment(Reason.VALUE_FORMAT, value_data=b"\0"),
    "block size": bad_segment(Reason.VALUE_FORMAT, block_size=64),
    "block exponents": bad_segment(Reason.VALUE_FORMAT, block_exponents=b"\0"),
    # The vector's shape.
    "another dim": Bad(payload=a_payload(a_segment(), dim=11), reason=Reason.DIMENSION_MISMATCH),
    "overlapping segments": Bad(payload=two_segments(4), reason=Reason.SEGMENT_ORDER),
    "descending segments": Bad(
        payload=a_payload(a_segment(start=5), a_segment(start=0)), reason=Reason.SEGMENT_ORDER
    ),
    "the same segment twice": Bad(
        payload=a_payload(a_segment(), a_segment()), reason=Reason.SEGMENT_ORDER
    ),
    # Indices.
    "beyond the vector": bad_segment(Reason.INDEX_RANGE, start=6),
    "far beyond the vector": bad_segment(Reason.INDEX_RANGE, start=2**64 - 1, length=2**64 - 1),
    "beyond the segment": bad_segment(Reason.INDEX_RANGE, gaps=[0, 2, 1]),
    "a gap that would go back": bad_segment(Reason.INDEX_RANGE, gaps=[0, 2**32 - 1, 0]),
    "a gap of 33 bits": Bad(
        payload=a_payload(a_segment(gaps=[]) + b"\x32\x07\x00\x80\x80\x80\x80\x10\x00"),
        reason=Reason.INDEX_RANGE,
    ),
    # Counts.
    "no segments": Bad(payload=a_payload(), reason=Reason.K_BUDGET),
    "fewer than asked": Bad(payload=GOOD, reason=Reason.K_BUDGET, limits=limits_of(min_nnz=4)),
    "more than allowed": Bad(payload=GOOD, reason=Reason.K_BUDGET, limits=limits_of(max_nnz=2)),
    "a value short": bad_segment(Reason.LENGTH_MISMATCH, values=[1, 2]),
    "a value over": bad_segment(Reason.LENGTH_MISMATCH, values=[1, 2, 3, 4]),
    "no values": bad_segment(Reason.LENGTH_MISMATCH, values=[]),
    "a gap short": bad_segment(Reason.LENGTH_MISMATCH, gaps=[0, 2]),
    "a gap over": bad_segment(Reason.LENGTH_MISMATCH, gaps=[0, 2, 0, 0]),
    "no gaps": bad_segment(Reason.LENGTH_MISMATCH, gaps=[]),
    "an unpacked gap over": Bad(
        payload=a_payload(a_segment() + b"\x30\x00"), reason=Reason.LENGTH_MISMATCH
    ),
    "an unpacked value over": Bad(
        payload=a_payload(a_segment() + b"\x3d" + bytes(4)), reason=Reason.LENGTH_MISMATCH
    ),
    "more nonzeros than coordinates": bad_segment(Reason.LENGTH_MISMATCH, length=2),
    "dense with holes": bad_segment(Reason.LENGTH_MISMATCH, index_encoding=DENSE, gaps=[]),
    "dense with gaps": bad_segment(
        Reason.LENGTH_MISMATCH, index_encoding=DENSE, length=3, gaps=[0, 0, 0]
    ),
    "dense with unpacked gaps": Bad(
        payload=a_payload(a_segment(index_encoding=DENSE, length=3, gaps=[]) + b"\x30\x00"),
        reason=Reason.LENGTH_MISMATCH,
    ),
    "too many nonzeros in a segment": Bad(
        payload=a_payload(a_segment(length=65_537, nnz=65_537), dim=100_000),
        reason=Reason.FIELD_RANGE,
        limits=limits_of(100_000),
    ),
    "too many segments": Bad(
        payload=ones(4097), reason=Reason.FIELD_RANGE, limits=limits_of(10_000)
    ),
    # Values.
    "not a number": Bad(payload=one_value(math.nan), reason=Reason.NON_FINITE),
    "infinity": Bad(payload=one_value(math.inf), reason=Reason.NON_FINITE),
    "minus infinity": Bad(payload=one_value(-math.inf), reason=Reason.NON_FINITE),
    "not a number beside others": bad_segment(Reason.NON_FINITE, values=[1, math.nan, 1]),
    "too large": Bad(payload=one_value(64.1), reason=Reason.VALUE_RANGE),
    "too far below zero": Bad(payload=one_value(-64.1), reason=Reason.VALUE_RANGE),
    # Damage.
    "another checksum": Bad(
        payload=a_payload(a_segment(), crc32=1), reason=Reason.CHECKSUM_MISMATCH
    ),
    "no checksum": Bad(payload=a_payload(a_segment(), crc32=0), reason=Reason.CHECKSUM_MISMATCH),
    "a checksum of nothing": Bad(payload=a_payload(crc32=1), reason=Reason.CHECKSUM_MISMATCH),
}

NEAREST_GOOD = {
    "a segment up to the last coordinate": (a_payload(a_segment(start=5)), limits_of()),
    "an index at its segment's end": (a_payload(a_segment(gaps=[0, 1, 1])), limits_of()),
    "segments that touch": (two_segments(5), limits_of()),
    "as many as allowed": (GOOD, limits_of(max_nnz=3)),
    "as few as asked": (GOOD, limits_of(min_nnz=3)),
    "the largest value": (one_value(64.0), limits_of()),
    "the smallest value": (one_value(-64.0), limits_of()),
    "as many segments as allowed": (ones(4096), limits_of(10_000)),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_payload_is_refused_with_its_reason(bad: Bad) -> None:
    with pytest.raises(Refusal) as refusal:
        decode(bad.payload, bad.limits)
    assert refusal.value.reason is bad.reason
    assert refusal.value.message


@pytest.mark.parametrize(("payload", "limits"), NEAREST_GOOD.values(), ids=NEAREST_GOOD.keys())
def test_the_nearest_good_payload_passes(payload: bytes, limits: DecodeLimits) -> None:
    assert decode(payload, limits).nnz > 0


def test_every_reason_that_a_payload_can_have_is_in_the_table() -> None:
    unreachable = {
        # Weights belong to the update's envelope, inflation to the compact profile.
        Reason.WEIGHT_RANGE,
        Reason.DECOMPRESS_LIMIT,
    }
    payload_reasons = list(Reason)[
        list(Reason).index(Reason.VALUE_FORMAT) : list(Reason).index(Reason.DECOMPRESS_LIMIT) + 1
    ]
    assert set(payload_reasons) - unreachable <= {bad.reason for bad in BAD.values()}


def test_a_segment_of_65536_nonzeros_passes() -> None:
    vector = SparseVector(
        dim=65_536,
        indices=np.arange(65_536, dtype=np.int64),
        values=np.ones(65_536, dtype=np.float32),
    )
    assert decode(encode(vector), limits_of(65_536)).nnz == 65_536


@pytest.mark.parametrize("index_encoding", [DENSE, sparse_update_pb2.INDEX_ENCODING_GAPS])
def test_a_claimed_length_allocates_nothing(index_encoding: int) -> None:
    claim = a_segment(
        start=0, length=65_536, nnz=65_536, index_encoding=index_encoding, gaps=[], values=[1.0]
    )
    payload, limits = a_payload(claim, dim=2**31 - 1), limits_of(2**31 - 1)
    tracemalloc.start()
    try:
        with pytest.raises(Refusal):
            decode(payload, limits)
        assert tracemalloc.get_traced_memory()[1] < 65_536
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_limits_that_would_let_anything_pass_are_an_error(bound: float) -> None:
    with pytest.raises(ValueError, match="max_abs_value"):
        limits_of(max_abs_value=bound)


def test_the_smallest_step_beyond_the_largest_value_is_refused() -> None:
    beyond = float(np.nextafter(np.float32(64), np.float32(65)))
    with pytest.raises(Refusal) as refusal:
        decode(encode(a_vector([1], [beyond])), limits_of())
    assert refusal.value.reason is Reason.VALUE_RANGE
