"""Clipping of integers: never above the bound, hardly below it, and taken back to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flasc_core.clip import Norm, Shrink
from flasc_core.fold import GRID_BITS, Accumulator, Parts
from flasc_core.sparse import SparseVector
from tests.unit.core.builders import a_vector

LARGEST = 2**63 - 1
magnitudes = st.one_of(
    st.integers(-LARGEST, LARGEST), st.integers(-(2**46), 2**46), st.integers(-3, 3)
)
vectors = st.lists(magnitudes, min_size=1, max_size=12)


def measured(values: list[int]) -> Norm:
    norm = Norm()
    for value in values:
        norm.add(np.array([value], dtype=np.int64))
    return norm


def shrunk(values: list[int], bound: int) -> list[int]:
    result = measured(values).shrink_to(bound).apply(np.array(values, dtype=np.int64))
    return [int(value) for value in result]


def square(values: list[int]) -> int:
    return sum(value**2 for value in values)


@given(vectors)
def test_a_norm_is_exact(values: list[int]) -> None:
    whole = Norm()
    whole.add(np.array(values, dtype=np.int64))
    assert whole.square == square(values) == measured(values).square


@settings(max_examples=500)
@given(vectors, st.integers(1, LARGEST))
def test_a_shrunk_vector_is_within_the_bound_and_points_the_same_way(
    values: list[int], bound: int
) -> None:
    result = shrunk(values, bound)
    assert square(result) <= bound**2
    for before, after in zip(values, result, strict=True):
        assert abs(after) <= abs(before)
        assert before * after >= 0


@given(vectors)
def test_a_vector_on_its_bound_keeps_every_bit(values: list[int]) -> None:
    norm = square(values)
    bound = isqrt(norm) + (isqrt(norm) ** 2 < norm)
    assert shrunk(values, max(bound, 1)) == values


@given(st.lists(st.integers(-(2**46), 2**46), min_size=1, max_size=9), st.floats(1.001, 1e6))
def test_shrinking_costs_little_more_than_the_excess(values: list[int], excess: float) -> None:
    norm = isqrt(square(values))
    bound = int(norm / excess)
    if bound < 2**30:
        return
    # A factor of at least 16 bits, and one step for each coordinate that is rounded.
    assert isqrt(square(shrunk(values, bound))) >= bound * (1 - 2**-15) - len(values) - 1


def test_nothing_is_lost_where_only_one_step_is_left() -> None:
    assert shrunk([LARGEST], 1) in ([0], [1])
    assert Shrink(factor=1, bits=0).apply(np.array([5])).tolist() == [5]
    assert Shrink(factor=0, bits=0).apply(np.array([5])).tolist() == [0]


def parts_of(vector: SparseVector, pieces: int = 2) -> Parts:
    def parts() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        indices = np.array_split(vector.indices, pieces)
        yield from zip(indices, np.array_split(vector.values, pieces), strict=True)

    return parts


def a_long_vector(norm: float, dim: int = 400) -> SparseVector:
    values = np.random.default_rng(5).normal(size=dim)
    values *= norm / np.linalg.norm(values)
    indices = np.arange(dim, dtype=np.int64)
    return SparseVector(dim=dim, indices=indices, values=values.astype(np.float32))


def norm_of(sums: NDArray[np.int64]) -> int:
    return sum(int(value) ** 2 for value in sums)


@pytest.mark.parametrize("norm", [0.999, 1.001, 30.0])
def test_sums_take_of_an_update_no_more_than_its_clip_norm(norm: float) -> None:
    vector = a_long_vector(norm)
    total = Accumulator.zeros(vector.dim)
    total.add_parts(parts_of(vector), 1, b"a", clip_norm=1.0)
    assert norm_of(total.sums) <= 2 ** (2 * GRID_BITS)
    assert norm_of(total.sums) >= 2 ** (2 * GRID_BITS) * 0.99


def test_an_update_within_its_clip_norm_is_added_as_it_is() -> None:
    vector = a_long_vector(0.999)
    clipped, plain = Accumulator.zeros(vector.dim), Accumulator.zeros(vector.dim)
    clipped.add_parts(parts_of(vector), 1, b"a", clip_norm=1.0)
    plain.add_parts(parts_of(vector), 1, b"a")
    assert clipped == plain


def test_pieces_do_not_matter_to_what_is_clipped() -> None:
    vector = a_long_vector(3.0)
    totals = [Accumulator.zeros(vector.dim) for _ in range(2)]
    for total, pieces in zip(totals, (1, 7), strict=True):
        total.add_parts(parts_of(vector, pieces), 1, b"a", clip_norm=1.0)
    assert totals[0] == totals[1]


def test_taking_a_clipped_update_back_restores_every_bit() -> None:
    vector, other = a_long_vector(30.0), a_long_vector(2.0)
    total = Accumulator.zeros(vector.dim)
    total.add_parts(parts_of(other), 1, b"b", clip_norm=1.0)
    before = total.to_bytes()
    total.add_parts(parts_of(vector), 1, b"a", clip_norm=1.0)
    assert total.to_bytes() != before
    total.subtract_parts(parts_of(vector), 1, b"a", clip_norm=1.0)
    assert total.to_bytes() == before


def test_a_value_beyond_the_grid_changes_nothing_where_updates_are_clipped() -> None:
    total = Accumulator.zeros(12)
    with pytest.raises(ValueError, match="leaves the grid"):
        total.add_parts(parts_of(a_vector([0, 7], [1.0, 1e20], dim=12)), 1, b"a", clip_norm=1.0)
    assert total == Accumulator.zeros(12)
