"""Exact sums of encoded updates: whatever the encoding, order-free and undone bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flasc_core.errors import Refusal
from flasc_core.fold import GRID_BITS, Accumulator, to_grid
from flasc_core.sparse import SparseVector
from flasc_core.wire import Encoding, Part, decode_segments, encode, quantize
from tests.builders import in_one_part
from tests.unit.core.builders import a_vector, limits_of, sparse_vectors

DIM = 300
LIMITS = limits_of(DIM, min_nnz=0)
Update = tuple[SparseVector, Encoding, int]
encodings = st.sampled_from([Encoding.parse(name) for name in Encoding.names()])
updates = st.lists(st.tuples(sparse_vectors(dim=DIM), encodings, st.integers(1, 1000)), max_size=6)


def parts_of(vector: SparseVector, encoding: Encoding) -> Callable[[], Iterator[Part]]:
    return partial(decode_segments, encode(vector, encoding), limits_of(vector.dim, min_nnz=0))


def folded(numbered: list[tuple[int, Update]]) -> Accumulator:
    accumulator = Accumulator.zeros(DIM)
    for number, (vector, encoding, weight) in numbered:
        accumulator.add_parts(parts_of(vector, encoding), weight, number.to_bytes(16, "big"))
    return accumulator


@given(updates, st.randoms(use_true_random=False))
def test_any_order_of_any_encodings_gives_the_same_bytes(
    pairs: list[Update], shuffler: random.Random
) -> None:
    numbered = list(enumerate(pairs))
    shuffled = numbered.copy()
    shuffler.shuffle(shuffled)
    assert folded(shuffled).to_bytes() == folded(numbered).to_bytes()


@given(updates, sparse_vectors(dim=DIM), encodings, st.integers(1, 1000))
def test_taking_an_encoded_update_back_restores_every_bit(
    pairs: list[Update], vector: SparseVector, encoding: Encoding, weight: int
) -> None:
    accumulator = folded(list(enumerate(pairs)))
    before = accumulator.to_bytes()
    accumulator.add_parts(parts_of(vector, encoding), weight, b"late")
    accumulator.subtract_parts(parts_of(vector, encoding), weight, b"late")
    assert accumulator.to_bytes() == before


@given(sparse_vectors(dim=DIM), encodings, st.integers(1, 1000))
def test_adding_in_parts_is_adding_the_quantized_vector(
    vector: SparseVector, encoding: Encoding, weight: int
) -> None:
    whole, in_parts = Accumulator.zeros(DIM), Accumulator.zeros(DIM)
    whole.add_parts(in_one_part(quantize(vector, encoding)), weight, b"id")
    in_parts.add_parts(parts_of(vector, encoding), weight, b"id")
    assert in_parts == whole
    whole.subtract_parts(parts_of(vector, encoding), weight, b"id")
    assert whole == Accumulator.zeros(DIM)


@given(sparse_vectors(dim=DIM), st.integers(3, 8))
def test_every_integer_encoding_is_summed_without_rounding(vector: SparseVector, bits: int) -> None:
    quantized = quantize(vector, Encoding.parse(f"int{bits}"))
    steps = to_grid(quantized.values).tolist()
    values = [Fraction(value) for value in quantized.values.tolist()]
    assert [Fraction(step, 2**GRID_BITS) for step in steps] == values


@given(st.floats(-64, 64, width=32).filter(lambda value: abs(value) >= 2.0**-33))
def test_bfloat16_is_summed_without_rounding_down_to_two_to_the_minus_33(value: float) -> None:
    (quantized,) = quantize(a_vector([0], [value]), Encoding.parse("bfloat16")).values.tolist()
    (step,) = to_grid(np.array([quantized], dtype=np.float32)).tolist()
    assert Fraction(step, 2**GRID_BITS) == Fraction(quantized)


def test_a_smaller_bfloat16_is_rounded_to_the_grid_once() -> None:
    finest = 2.0**-34 * (1 + 2.0**-7)
    (quantized,) = quantize(a_vector([0], [finest]), Encoding.parse("bfloat16")).values.tolist()
    assert quantized == finest
    assert to_grid(np.array([quantized], dtype=np.float32)).tolist() == [64]


@given(updates)
def test_a_coordinate_that_nobody_sent_is_exactly_zero(pairs: list[Update]) -> None:
    touched = {index for vector, _, _ in pairs for index in vector.indices.tolist()}
    untouched = [index for index in range(DIM) if index not in touched]
    assert not folded(list(enumerate(pairs))).sums[untouched].any()


# --- failing midway -----------------------------------------------------------------------------


def a_long_vector(nnz: int) -> SparseVector:
    return a_vector(range(0, 2 * nnz, 2), np.linspace(-3, 3, nnz), dim=2 * nnz)


def damaged_at_the_end(payload: bytes, dim: int) -> Callable[[], Iterator[Part]]:
    """Segments that are read up to the last one, which is then refused for its nonzeros."""
    return partial(decode_segments, payload, limits_of(dim, max_nnz=dim // 2 - 1))


@pytest.mark.parametrize("name", ["plain", "int6"])
def test_an_update_that_is_refused_midway_changes_nothing(name: str) -> None:
    vector = a_long_vector(150_000)
    accumulator = Accumulator.zeros(vector.dim)
    accumulator.add_parts(in_one_part(vector), 7, b"there")
    before = accumulator.to_bytes()
    parts = damaged_at_the_end(encode(vector, Encoding.parse(name)), vector.dim)
    for change in (accumulator.add_parts, accumulator.subtract_parts):
        with pytest.raises(Refusal):
            change(parts, 3, b"late")
        assert accumulator.to_bytes() == before


@pytest.mark.parametrize(
    ("indices", "values", "weight", "message"),
    [
        ([DIM], [1.0], 1, "outside"),
        ([-1], [1.0], 1, "outside"),
        ([3], [2.0**23], 1, "grid"),
        ([3], [2.0**22], 2, "grid"),
        ([3], [np.nan], 1, "grid"),
        ([3], [1.0], 0, "weight"),
        ([3], [1.0], -1, "weight"),
    ],
)
def test_a_part_that_cannot_be_held_changes_nothing(
    indices: list[int], values: list[float], weight: int, message: str
) -> None:
    def parts() -> Iterator[Part]:
        yield np.array([5, 9]), np.array([1.5, -2], dtype=np.float32)
        yield np.array(indices), np.array(values, dtype=np.float32)

    accumulator = Accumulator.zeros(DIM)
    with pytest.raises(ValueError, match=message):
        accumulator.add_parts(parts, weight, b"id")
    assert accumulator == Accumulator.zeros(DIM)


def test_more_than_was_added_is_not_taken_back_in_parts() -> None:
    accumulator = Accumulator.zeros(DIM)
    parts = parts_of(a_vector(dim=DIM), Encoding.parse("int8"))
    with pytest.raises(ValueError, match="take back"):
        accumulator.subtract_parts(parts, 1, b"id")
    assert accumulator == Accumulator.zeros(DIM)
