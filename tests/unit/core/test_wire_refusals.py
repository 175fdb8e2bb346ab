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
from flasc_core.wire import DecodeLimits, Encoding, decode, encode
from flasc_core.wire.inflate import deflate
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


def compact(*, dim: int = 10, **changes: object) -> bytes:
    """The usual vector as int8 with positions and values uncompressed, and these changes."""
    fields: dict[str, object] = {
        "gaps": [],
        "values": [],
        "value_encoding": INT8_POW2,
        "index_compression": NONE,
        "gap_shift": 1,
        "gap_high": b"\0\1\0",
        "gap_low": b"\0",
        "value_compression": NONE,
        "value_data": b"\1\xfe\4",
        "block_size": 64,
        "block_exponents": b"\xff",
    }
    segment = a_segment(**{**fields, **changes})  # type: ignore[arg-type]
    return a_payload(segment, dim=dim)


def bad_compact(reason: Reason, **changes: object) -> Bad:
    return Bad(payload=compact(**changes), reason=reason)  # type: ignore[arg-type]


GOOD = a_payload(a_segment())
BFLOAT16 = sparse_update_pb2.VALUE_ENCODING_BFLOAT16
INT8_POW2 = sparse_update_pb2.VALUE_ENCODING_INT8_POW2
NONE = sparse_update_pb2.COMPRESSION_NONE
DEFLATE = sparse_update_pb2.COMPRESSION_DEFLATE
ZSTD = sparse_update_pb2.COMPRESSION_ZSTD

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
    # Fields that do not go together.
    "bfloat16 uncompressed and unsaid": bad_segment(
        Reason.VALUE_FORMAT, value_encoding=BFLOAT16, values=[], value_data=bytes(6)
    ),
    "bfloat16 in plain values": bad_segment(Reason.VALUE_FORMAT, value_encoding=BFLOAT16),
    "plain gaps said to be compressed": bad_segment(Reason.VALUE_FORMAT, index_compression=DEFLATE),
    "plain values said to be compressed": bad_segment(Reason.VALUE_FORMAT, value_compression=NONE),
    "gap shift": bad_segment(Reason.VALUE_FORMAT, gap_shift=1),
    "high gaps": bad_segment(Reason.VALUE_FORMAT, gap_high=b"\0"),
    "low gaps": bad_segment(Reason.VALUE_FORMAT, gap_low=b"\0"),
    "value data": bad_segment(Reason.VALUE_FORMAT, value_data=b"\0"),
    "block size": bad_segment(Reason.VALUE_FORMAT, block_size=64),
    "block exponents": bad_segment(Reason.VALUE_FORMAT, block_exponents=b"\0"),
    "both kinds of gaps": bad_compact(Reason.VALUE_FORMAT, gaps=[0, 2, 0]),
    "both kinds of values": bad_compact(Reason.VALUE_FORMAT, values=[1, 2, 3]),
    "blocks beside bfloat16": bad_compact(
        Reason.VALUE_FORMAT, value_encoding=BFLOAT16, value_data=bytes(6)
    ),
    "dense with compact gaps": bad_compact(
        Reason.VALUE_FORMAT, length=3, index_encoding=DENSE, index_compression=NONE
    ),
    "dense with low gaps": bad_compact(
        Reason.VALUE_FORMAT, length=3, index_encoding=DENSE, index_compression=0
    ),
    # Compression.
    "unknown compression of positions": bad_compact(Reason.UNKNOWN_ENUM, index_compression=99),
    "unknown compression of values": bad_compact(Reason.UNKNOWN_ENUM, value_compression=99),
    "positions as zstd": bad_compact(Reason.VALUE_FORMAT, index_compression=ZSTD),
    "values as zstd": bad_compact(Reason.VALUE_FORMAT, value_compression=ZSTD),
    "no DEFLATE stream": bad_compact(Reason.MALFORMED_MESSAGE, value_compression=DEFLATE),
    "positions that unpack to too much": bad_compact(
        Reason.DECOMPRESS_LIMIT,
        index_compression=DEFLATE,
        gap_high=deflate([bytes(16)]),
    ),
    "values that unpack to too much": bad_compact(
        Reason.DECOMPRESS_LIMIT, value_compression=DEFLATE, value_data=deflate([bytes(4)])
    ),
    "values that unpack to too little": bad_compact(
        Reason.LENGTH_MISMATCH, value_compression=DEFLATE, value_data=deflate([bytes(2)])
    ),
    # Compact sizes and ranges.
    "shift beyond 24": bad_compact(Reason.FIELD_RANGE, gap_shift=25, gap_low=bytes(10)),
    "a high gap short": bad_compact(Reason.LENGTH_MISMATCH, gap_high=b"\0\1"),
    "a high gap over": bad_compact(Reason.LENGTH_MISMATCH, gap_high=bytes(4)),
    "low gaps short": bad_compact(Reason.LENGTH_MISMATCH, gap_low=b""),
    "low gaps over": bad_compact(Reason.LENGTH_MISMATCH, gap_low=bytes(2)),
    "low gaps without a shift": bad_compact(Reason.LENGTH_MISMATCH, gap_shift=0),
    "a shifted gap of 33 bits": bad_compact(
        Reason.INDEX_RANGE, gap_high=b"\0\x80\x80\x80\x80\x08\0"
    ),
    "a compact gap beyond the segment": bad_compact(Reason.INDEX_RANGE, gap_high=b"\0\2\0"),
    "a value short in bytes": bad_compact(Reason.LENGTH_MISMATCH, value_data=bytes(2)),
    "a value over in bytes": bad_compact(Reason.LENGTH_MISMATCH, value_data=bytes(4)),
    "no block size": bad_compact(Reason.FIELD_RANGE, block_size=0),
    "a block size beyond a segment": bad_compact(Reason.FIELD_RANGE, block_size=65_537),
    "an exponent short": bad_compact(Reason.LENGTH_MISMATCH, block_size=2),
    "an exponent over": bad_compact(Reason.LENGTH_MISMATCH, block_exponents=bytes(2)),
    "an exponent too high": bad_compact(Reason.FIELD_RANGE, block_exponents=b"\x29"),
    "an exponent too low": bad_compact(Reason.FIELD_RANGE, block_exponents=b"\xd7"),
    "a step beyond the largest value": bad_compact(
        Reason.VALUE_RANGE, value_data=bytes(3), block_exponents=b"\7"
    ),
    "a product beyond the largest value": bad_compact(
        Reason.VALUE_RANGE, value_data=b"\x21\0\0", block_exponents=b"\1"
    ),
    "bfloat16 infinity": bad_compact(
        Reason.NON_FINITE,
        value_encoding=BFLOAT16,
        value_data=b"\x80\x7f" * 3,
        block_size=0,
        block_exponents=b"",
    ),
    "an encoding that is not accepted": Bad(
        payload=compact(),
        reason=Reason.VALUE_FORMAT,
        limits=DecodeLimits(
            dim=10,
            max_nnz=10,
            max_abs_value=64,
            encodings=frozenset({Encoding.parse("bfloat16"), Encoding.parse("int3")}),
        ),
    ),
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
    "compact": (compact(), limits_of()),
    "the largest shift": (compact(gap_shift=24, gap_high=bytes(3), gap_low=bytes(9)), limits_of()),
    "the highest exponent": (
        compact(value_data=b"\1\0\0", block_exponents=b"\x28"),
        limits_of(max_abs_value=2.0**40),
    ),
    "the lowest exponent": (compact(block_exponents=b"\xd8"), limits_of()),
    "the largest step": (compact(value_data=b"\1\xff\0", block_exponents=b"\6"), limits_of()),
    "the lowest number": (compact(value_data=b"\x80\0\0"), limits_of()),
    "one block for all": (compact(block_size=65_536), limits_of()),
    "a block for each": (compact(block_size=1, block_exponents=bytes(3)), limits_of()),
    "compact values beside plain gaps": (
        compact(gaps=[0, 2, 0], index_compression=0, gap_shift=0, gap_high=b"", gap_low=b""),
        limits_of(),
    ),
    "an accepted encoding": (
        compact(),
        DecodeLimits(
            dim=10,
            max_nnz=10,
            max_abs_value=64,
            encodings=frozenset({Encoding.parse("int4")}),
        ),
    ),
    "the plain profile where nothing else is accepted": (
        GOOD,
        DecodeLimits(dim=10, max_nnz=10, max_abs_value=64, encodings=frozenset()),
    ),
}


def test_the_compact_payload_that_the_table_damages_is_the_usual_vector() -> None:
    assert decode(compact(), limits_of()) == a_vector()


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_payload_is_refused_with_its_reason(bad: Bad) -> None:
    with pytest.raises(Refusal) as refusal:
        decode(bad.payload, bad.limits)
    assert refusal.value.reason is bad.reason
    assert refusal.value.message


@pytest.mark.parametrize(("payload", "limits"), NEAREST_GOOD.values(), ids=NEAREST_GOOD.keys())
def test_the_nearest_good_payload_passes(payload: bytes, limits: DecodeLimits) -> None:
    assert decode(payload, limits).nnz > 0


def test_gaps_whose_sum_would_wrap_around_are_refused() -> None:
    # Each gap and the step after it are 2**56, so that 256 of them are nothing to 64 bits.
    payload = compact(
        start=0,
        length=300,
        nnz=257,
        gap_shift=24,
        gap_high=b"\xff\xff\xff\xff\x0f" * 256 + b"\0",
        gap_low=b"\xff" * (3 * 256) + bytes(3),
        value_data=bytes(257),
        block_size=257,
        dim=300,
    )
    with pytest.raises(Refusal) as refusal:
        decode(payload, limits_of(300))
    assert refusal.value.reason is Reason.INDEX_RANGE


def test_every_reason_that_a_payload_can_have_is_in_the_table() -> None:
    unreachable = {
        # Weights belong to the update's envelope.
        Reason.WEIGHT_RANGE,
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
