"""What the compact profile does to values, and that it does nothing to positions."""

from __future__ import annotations

import math
import tracemalloc
import weakref
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import MAX_DIM
from flasc_core.pb.v1 import sparse_update_pb2 as pb
from flasc_core.sparse import SparseVector, count_kept, top_k
from flasc_core.wire import (
    DecodeLimits,
    Encoding,
    decode,
    decode_segments,
    encode,
    largest_written,
    quantize,
)
from flasc_core.wire.bits import pack_bits, packed_size, unpack_bits
from flasc_core.wire.values import BLOCK_SIZE, from_pow2, to_bfloat16, to_pow2
from tests.unit.core.builders import a_vector, limits_of, sparse_vectors

COMPACT = tuple(Encoding.parse(name) for name in Encoding.names() if name != "plain")
INTEGERS = tuple(Encoding.parse(f"int{bits}") for bits in range(3, 9))
encodings = st.sampled_from(COMPACT)


def a_long_vector(nnz: int, *, stride: int, scale: float = 1.0) -> SparseVector:
    rng = np.random.default_rng(nnz)
    indices = np.cumsum(rng.integers(1, 2 * stride, nnz))
    return SparseVector(
        dim=int(indices[-1]) + 1,
        indices=indices,
        values=(scale * rng.standard_normal(nnz)).astype(np.float32),
    )


def read(vector: SparseVector, encoding: Encoding) -> SparseVector:
    limits = DecodeLimits(dim=vector.dim, max_nnz=vector.dim, max_abs_value=2.0**100, min_nnz=0)
    return decode(encode(vector, encoding), limits)


def segments_of(vector: SparseVector, encoding: Encoding) -> list[pb.SparseSegment]:
    return list(pb.SparseUpdate.FromString(encode(vector, encoding)).segments)


# --- laws ---------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(sparse_vectors(max_nnz=200), encodings)
def test_decoding_the_encoded_vector_is_quantizing_it(
    vector: SparseVector, encoding: Encoding
) -> None:
    assert read(vector, encoding) == quantize(vector, encoding)


@settings(max_examples=300)
@given(sparse_vectors(max_nnz=200), encodings)
def test_the_largest_written_value_is_that_of_the_quantized_vector(
    vector: SparseVector, encoding: Encoding
) -> None:
    written = np.abs(quantize(vector, encoding).values).max(initial=0.0)
    assert largest_written(vector, encoding) == written


@settings(max_examples=300)
@given(sparse_vectors(max_nnz=200), encodings)
def test_quantizing_twice_changes_nothing_more(vector: SparseVector, encoding: Encoding) -> None:
    once = quantize(vector, encoding)
    assert quantize(once, encoding) == once


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(-50, 30), st.floats(-1, 1, width=32), st.integers(1, BLOCK_SIZE + 1)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(INTEGERS),
)
def test_quantizing_twice_changes_nothing_more_however_loudness_varies(
    runs: list[tuple[int, float, int]], encoding: Encoding
) -> None:
    # Runs of one value at many scales put blocks on every side of the common step.
    values = np.concatenate([np.full(count, v * 2.0**e, dtype=np.float32) for e, v, count in runs])
    vector = a_vector(range(values.size), values, dim=values.size)
    once = quantize(vector, encoding)
    assert quantize(once, encoding) == once
    assert read(vector, encoding) == once


@given(sparse_vectors(max_nnz=200), encodings)
def test_an_exact_zero_stays_an_exact_zero(vector: SparseVector, encoding: Encoding) -> None:
    quantized = quantize(vector, encoding)
    assert not quantized.values[vector.values == 0].any()
    assert np.array_equal(quantized.indices, vector.indices)


@given(sparse_vectors(min_nnz=1, max_nnz=200), encodings)
def test_no_value_is_rounded_past_a_power_of_two(vector: SparseVector, encoding: Encoding) -> None:
    assert np.abs(quantize(vector, encoding).values).max() <= 64


@given(sparse_vectors(max_nnz=200))
def test_float32_loses_nothing(vector: SparseVector) -> None:
    assert read(vector, Encoding.parse("float32")) == vector


@pytest.mark.parametrize("encoding", COMPACT, ids=lambda encoding: encoding.name)
@pytest.mark.parametrize(
    ("nnz", "stride"), [(65_536, 2), (65_537, 5), (140_000, 1), (40_000, 40), (70_000, 900)]
)
def test_long_vectors_survive_in_segments(nnz: int, stride: int, encoding: Encoding) -> None:
    vector = a_long_vector(nnz, stride=stride)
    assert read(vector, encoding) == quantize(vector, encoding)


@pytest.mark.parametrize("name", ["int8", "float32"])
def test_the_largest_gap_survives_the_wire(name: str) -> None:
    vector = a_vector([0, MAX_DIM - 1], [1, 2], dim=MAX_DIM)
    assert read(vector, Encoding.parse(name)) == vector


# --- rounding -----------------------------------------------------------------------------------


@given(st.floats(-(2.0**100), 2.0**100, width=32))
def test_bfloat16_is_the_nearest_and_the_even_one_of_two(value: float) -> None:
    (half,) = to_bfloat16(np.array([value], dtype=np.float32)).tolist()
    near = np.array([half - 1, half, half + 1])
    # Beside plus or minus zero there is only one neighbour of the same sign.
    near = near[near >> 15 == half >> 15]
    found = (near << 16).astype(np.uint32).view(np.float32).astype(np.float64)
    distances = np.abs(found - np.float64(np.float32(value)))
    best = near[distances == distances.min()]
    assert half in best
    assert best.size == 1 or half % 2 == 0


def test_bfloat16_keeps_the_sign_of_zero_and_rounds_halves_to_even() -> None:
    values = np.array([0.0, -0.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8], dtype=np.float32)
    assert to_bfloat16(values).tolist() == [0, 0x8000, 0x3F80, 0x3F82]


@pytest.mark.parametrize("bits", range(3, 9))
def test_a_lone_block_uses_all_its_bits_and_no_more(bits: int) -> None:
    largest = 2 ** (bits - 1) - 1
    values = np.linspace(-largest, largest, BLOCK_SIZE, dtype=np.float32)
    blocks = to_pow2(values, bits)
    assert blocks.exponents.tolist() == [0]
    assert np.abs(blocks.numbers).max() == largest
    # Half a step more no longer fits, and the least bit below that does.
    values[-1] = largest + 0.5
    assert to_pow2(values, bits).exponents.tolist() == [1]
    values[-1] = np.nextafter(np.float32(largest + 0.5), np.float32(0))
    assert to_pow2(values, bits).exponents.tolist() == [0]


@given(st.integers(0, 10_000), st.integers(3, 8))
def test_no_value_moves_by_more_than_half_its_step(seed: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(300) * 2.0 ** rng.integers(-20, 5, 300)
    blocks = to_pow2(values.astype(np.float32), bits)
    steps = np.repeat(2.0 ** blocks.exponents.astype(float), blocks.block_size)[:300]
    assert (np.abs(from_pow2(blocks) - values.astype(np.float32)) <= steps / 2).all()


def test_a_loud_block_gets_a_coarser_step_and_a_faint_one_keeps_three_bits() -> None:
    values = np.ones(5 * BLOCK_SIZE, dtype=np.float32)
    values[:BLOCK_SIZE] *= 2.0**10
    values[-BLOCK_SIZE:] *= 2.0**-10
    blocks = to_pow2(values, 6)
    assert blocks.exponents.tolist() == [4, -4, -4, -4, -11]
    assert np.array_equal(from_pow2(blocks), values)


def test_blocks_of_one_step_share_one_exponent() -> None:
    blocks = to_pow2(np.linspace(1, 2, 1000, dtype=np.float32), 6)
    assert (blocks.block_size, blocks.exponents.size) == (1000, 1)


def test_values_below_the_grid_become_zero() -> None:
    tiny = np.array([2.0**-41, -(2.0**-41), 2.0**-149, 1.5 * 2.0**-41], dtype=np.float32)
    for bits in range(3, 9):
        assert from_pow2(to_pow2(tiny, bits)).tolist() == [0, 0, 0, 2.0**-40]


@pytest.mark.parametrize("encoding", COMPACT[1:], ids=lambda encoding: encoding.name)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, Reason.NON_FINITE),
        (-math.inf, Reason.NON_FINITE),
        (float(np.finfo(np.float32).max), Reason.VALUE_RANGE),
    ],
)
def test_what_an_encoding_cannot_hold_is_refused_by_the_writer(
    value: float, reason: Reason, encoding: Encoding
) -> None:
    vector = a_vector([1, 4], [1.0, value])
    for write in (encode, quantize):
        with pytest.raises(Refusal) as refusal:
            write(vector, encoding)
        assert refusal.value.reason is reason


# --- layout -------------------------------------------------------------------------------------


@given(st.integers(1, 24), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_low_bits_are_one_long_number_in_little_endian(width: int, numbers: list[int]) -> None:
    packed = pack_bits(np.array(numbers, dtype=np.int64), width)
    low = [number % 2**width for number in numbers]
    assert len(packed) == packed_size(len(numbers), width)
    assert int.from_bytes(packed, "little") == sum(n << (at * width) for at, n in enumerate(low))
    assert unpack_bits(packed, len(numbers), width).tolist() == low


def test_a_compact_segment_has_no_plain_fields() -> None:
    for encoding in COMPACT:
        (segment,) = segments_of(a_vector(), encoding)
        fields = {field.name for field, _ in segment.ListFields()}
        assert not fields & {"gaps", "values"}
        assert ("block_size" in fields) == encoding.name.startswith("int")


def test_a_run_without_holes_has_no_index_fields() -> None:
    (segment,) = segments_of(a_vector([3, 4, 5], [1, 2, 3]), Encoding.parse("int8"))
    assert segment.index_encoding == pb.INDEX_ENCODING_DENSE
    fields = {field.name for field, _ in segment.ListFields()}
    assert not fields & {"index_compression", "gap_shift", "gap_high", "gap_low"}


def test_what_does_not_shrink_is_not_compressed() -> None:
    (segment,) = segments_of(a_vector(), Encoding.parse("int8"))
    assert (segment.index_compression, segment.gap_high) == (pb.COMPRESSION_NONE, b"\0\2\0")
    assert segment.value_compression == pb.COMPRESSION_NONE


def test_bytes_of_one_significance_stand_together_when_compressed() -> None:
    vector = a_long_vector(30_000, stride=9)
    (segment,) = segments_of(vector, Encoding.parse("float32"))
    planes = zlib.decompress(segment.value_data, -15)
    octets = vector.values.view(np.uint8).reshape(-1, 4)
    assert planes == octets.T.tobytes()


# --- streaming ----------------------------------------------------------------------------------


def test_segments_come_one_by_one_and_join_to_the_vector() -> None:
    vector = quantize(a_long_vector(150_000, stride=3), Encoding.parse("int5"))
    limits = limits_of(vector.dim)
    parts = list(decode_segments(encode(vector, Encoding.parse("int5")), limits))
    assert [indices.size for indices, _ in parts] == [65_536, 65_536, 18_928]
    joined = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    assert SparseVector(dim=vector.dim, indices=next(joined), values=next(joined)) == vector


def test_whoever_lets_a_segment_go_is_the_last_to_hold_it() -> None:
    vector = a_long_vector(150_000, stride=3)
    parts = decode_segments(encode(vector, Encoding.parse("int5")), limits_of(vector.dim))
    first = weakref.ref(next(parts)[0])
    assert first() is None
    assert next(parts)[0].size == 65_536


@pytest.mark.parametrize("name", ["plain", "float32", "bfloat16", "int8"])
def test_reading_segments_takes_little_memory_beside_the_payload(name: str) -> None:
    vector = a_long_vector(400_000, stride=14)
    payload, limits = encode(vector, Encoding.parse(name)), limits_of(vector.dim)
    tracemalloc.start()
    try:
        for _ in decode_segments(payload, limits):
            pass
        # The payload itself is held by the caller.
        assert tracemalloc.get_traced_memory()[1] < 2 * len(payload) + (2 << 20)
    finally:
        tracemalloc.stop()


# --- size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bytes_per_value"),
    [("float32", 3.8), ("bfloat16", 1.8), ("int8", 1.55), ("int6", 1.25), ("int4", 1.02)],
)
def test_an_update_is_as_small_as_promised(name: str, bytes_per_value: float) -> None:
    dim = 597_514
    update = np.random.default_rng(5).standard_normal(dim).astype(np.float32)
    indices = top_k(update, count_kept(dim, 1 / 16))
    vector = SparseVector(dim=dim, indices=indices, values=update[indices])
    assert len(encode(vector, Encoding.parse(name))) <= bytes_per_value * vector.nnz


def test_positions_take_two_percent_more_than_their_entropy_at_most() -> None:
    dim = 1_000_000
    for density in (1 / 2, 1 / 8, 1 / 16, 1 / 64):
        chosen = np.random.default_rng(6).random(dim) < density
        indices = np.flatnonzero(chosen)
        ones = SparseVector(
            dim=dim, indices=indices, values=np.ones(indices.size, dtype=np.float32)
        )
        choices = math.lgamma(dim + 1) - math.lgamma(indices.size + 1)
        choices -= math.lgamma(dim - indices.size + 1)
        held = sum(
            len(segment.gap_high) + len(segment.gap_low)
            for segment in segments_of(ones, Encoding.parse("int3"))
        )
        assert held <= 1.02 * choices / math.log(2) / 8


def test_clustered_positions_take_less_than_scattered_ones() -> None:
    # Half of all coordinates, in long runs: a code of one bit a symbol would not do.
    runs = np.repeat(np.random.default_rng(8).random(2_000) < 0.5, 200)
    indices = np.flatnonzero(runs)
    vector = SparseVector(
        dim=runs.size, indices=indices, values=np.ones(indices.size, dtype=np.float32)
    )
    high = sum(len(s.gap_high) for s in segments_of(vector, Encoding.parse("int3")))
    assert high < 0.02 * indices.size


def test_a_mask_that_repeats_itself_is_told_once() -> None:
    # Rows that keep the same stretches of columns: runs alone have to tell every row.
    columns = np.repeat(np.random.default_rng(9).random(50) < 0.9, 20)
    indices = np.flatnonzero(np.tile(columns, 100))
    vector = SparseVector(dim=100_000, indices=indices, values=np.ones(indices.size, np.float32))
    high = sum(len(s.gap_high) for s in segments_of(vector, Encoding.parse("int3")))
    assert 8 * high < 0.08 * indices.size


def test_scattered_positions_are_not_searched_for_runs_that_cost_more() -> None:
    # Three in four: most gaps are zero, and few of them stand together.
    indices = np.flatnonzero(np.random.default_rng(10).random(100_000) < 0.75)
    vector = SparseVector(dim=100_000, indices=indices, values=np.ones(indices.size, np.float32))
    high = sum(len(s.gap_high) for s in segments_of(vector, Encoding.parse("int3")))
    assert 8 * high < 1.4 * indices.size


@pytest.mark.parametrize("encoding", INTEGERS, ids=lambda one: one.name)
def test_a_segment_that_rounds_to_nothing_is_within_any_limit(encoding: Encoding) -> None:
    vector = SparseVector(
        dim=9, indices=np.array([2, 4]), values=np.array([0, 2.0**-42], np.float32)
    )
    limits = DecodeLimits(dim=9, max_nnz=9, max_abs_value=0.01)
    assert decode(encode(vector, encoding), limits).values.tolist() == [0.0, 0.0]
