"""Sparse vectors and the exact choice of the largest coordinates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flasc_core.errors import Reason, Refusal
from flasc_core.sparse import SparseVector, count_kept, top_k
from tests.unit.core.builders import a_vector, finite_floats, sparse_vectors

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "vectors" / "flasc_golden.json").read_text(encoding="utf-8")
)

# Few distinct magnitudes, so that ties are the rule.
tied_arrays = hnp.arrays(
    np.float32, st.integers(1, 60), elements=st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 2.0**-140])
)
arrays = hnp.arrays(np.float32, st.integers(1, 60), elements=finite_floats())


def ranked(x: np.ndarray) -> list[int]:
    """Coordinates from the largest magnitude to the smallest, by the definition."""
    return sorted(range(x.size), key=lambda index: (-abs(float(x[index])), index))


@pytest.mark.parametrize(("product", "count"), GOLDEN["topk_count"].items())
def test_the_count_is_the_floor_of_the_float_product(product: str, count: int) -> None:
    size, density = product.split("*")
    assert count_kept(int(size), float(density)) == count


@given(st.one_of(tied_arrays, arrays), st.data())
def test_top_k_keeps_larger_magnitudes_then_lower_indices(
    x: np.ndarray, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, x.size))
    assert top_k(x, k).tolist() == sorted(ranked(x)[:k])


@given(st.one_of(tied_arrays, arrays))
def test_a_larger_k_keeps_what_a_smaller_k_kept(x: np.ndarray) -> None:
    kept: set[int] = set()
    for k in range(x.size + 1):
        larger = set(top_k(x, k).tolist())
        assert kept < larger or k == 0
        kept = larger


def test_top_k_is_the_same_on_long_vectors_where_numpy_partitions_otherwise() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(-50, 50, 70_000).astype(np.float32)
    order = np.lexsort((np.arange(x.size), -np.abs(x)))
    for k in (1, 17_500, 69_999):
        assert np.array_equal(top_k(x, k), np.sort(order[:k]))


@pytest.mark.parametrize("misleading", [0.0, 9.0])
@pytest.mark.parametrize("k", [1, 100, 25_000, 60_000, 99_999])
def test_top_k_is_exact_where_evenly_spaced_values_mislead(misleading: float, k: int) -> None:
    x = np.random.default_rng(4).standard_normal(100_000).astype(np.float32)
    for spacing in (2, 4, 6, 8):
        x[::spacing] = misleading
        assert np.array_equal(top_k(x, k), np.sort(np.lexsort((np.arange(x.size), -np.abs(x)))[:k]))


@pytest.mark.parametrize("k", [5_999, 6_000, 6_001])
def test_top_k_is_exact_where_as_many_as_are_kept_stand_out(k: int) -> None:
    x = np.zeros(100_000, dtype=np.float32)
    # Every sixth is what a sample sees, and more of the sample than of the rest.
    x[: 6 * 6_000 : 6] = 1.0
    assert np.array_equal(top_k(x, k), np.sort(np.lexsort((np.arange(x.size), -np.abs(x)))[:k]))


@pytest.mark.parametrize("size", [20, 5000])
def test_ties_go_to_the_lower_index_at_any_length(size: int) -> None:
    x = np.zeros(size, dtype=np.float32)
    x[3] = 1
    assert top_k(x, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("k", [0, 1, 3, 5])
@pytest.mark.parametrize("size", [5, 5000, 100_000])
def test_a_value_that_is_not_finite_is_refused_whatever_k(bad: float, k: int, size: int) -> None:
    x = np.ones(size, dtype=np.float32)
    x[2] = bad
    with pytest.raises(Refusal) as refusal:
        top_k(x, k)
    assert refusal.value.reason is Reason.NON_FINITE


@pytest.mark.parametrize("k", [-1, 11])
def test_keeping_more_than_there_is_or_less_than_none_is_an_error(k: int) -> None:
    with pytest.raises(ValueError, match="cannot keep"):
        top_k(np.ones(10, dtype=np.float32), k)


def test_top_k_leaves_its_argument_alone() -> None:
    x = np.array([1, -3, 2], dtype=np.float32)
    top_k(x, 2)
    assert x.tolist() == [1, -3, 2]


@given(sparse_vectors(dim=50))
def test_a_sparse_vector_is_zero_where_it_names_nothing(vector: SparseVector) -> None:
    dense = vector.to_dense()
    assert np.array_equal(dense[vector.indices], vector.values)
    assert not np.delete(dense, vector.indices).any()


def test_vectors_are_equal_bit_for_bit() -> None:
    assert a_vector() == a_vector()
    assert a_vector([1], [0.0]) != a_vector([1], [-0.0])
    assert a_vector([1], [1.0]) != a_vector([2], [1.0])
    assert a_vector([1], [1.0], dim=10) != a_vector([1], [1.0], dim=11)
    assert a_vector() != "a vector"


@pytest.mark.parametrize("indices", [[1, 1], [2, 1], [-1, 3], [3, 10]])
def test_indices_outside_the_vector_or_out_of_order_are_an_error(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="ind"):
        a_vector(indices, [1.0, 2.0])


def test_arrays_of_the_wrong_kind_are_an_error() -> None:
    indices, values = np.array([1, 2]), np.array([1, 2], dtype=np.float32)
    with pytest.raises(ValueError, match="need int64"):
        SparseVector(dim=10, indices=indices.astype(np.int32), values=values)
    with pytest.raises(ValueError, match="float32"):
        SparseVector(dim=10, indices=indices, values=values.astype(np.float64))
    with pytest.raises(ValueError, match="shapes"):
        SparseVector(dim=10, indices=indices, values=values[:1])


def test_both_ends_of_a_vector_can_be_named() -> None:
    assert a_vector([0, 9], [1.0, 2.0]).to_dense().tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
