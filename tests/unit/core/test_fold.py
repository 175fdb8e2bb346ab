"""Exact sums: the same bits in any order, in any partition, and after taking something back."""

from __future__ import annotations

import hashlib
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flasc_core.errors import Reason, Refusal
from flasc_core.fold import GRID_BITS, Accumulator, check_headroom, to_grid
from flasc_core.sparse import SparseVector
from tests.builders import in_one_part
from tests.unit.core.builders import a_vector, finite_floats, sparse_vectors

DIM = 12
Update = tuple[SparseVector, int]
updates = st.lists(st.tuples(sparse_vectors(dim=DIM), st.integers(1, 1000)), max_size=8)


def folded(pairs: list[Update], *, numbers: list[int] | None = None) -> Accumulator:
    """The sum of numbered updates; a number makes an update's id."""
    accumulator = Accumulator.zeros(DIM)
    for number, (vector, weight) in zip(numbers or range(len(pairs)), pairs, strict=False):
        accumulator.add_parts(in_one_part(vector), weight, number.to_bytes(16, "big"))
    return accumulator


@given(updates, st.randoms(use_true_random=False))
def test_any_order_gives_the_same_bytes(pairs: list[Update], shuffler: random.Random) -> None:
    order = list(range(len(pairs)))
    shuffler.shuffle(order)
    shuffled = folded([pairs[number] for number in order], numbers=order)
    assert shuffled == folded(pairs)
    assert shuffled.to_bytes() == folded(pairs).to_bytes()


@given(updates, st.data())
def test_any_partition_merges_into_the_same_bytes(pairs: list[Update], data: st.DataObject) -> None:
    shards = [Accumulator.zeros(DIM) for _ in range(3)]
    for number, (vector, weight) in enumerate(pairs):
        shard = shards[data.draw(st.integers(0, 2))]
        shard.add_parts(in_one_part(vector), weight, number.to_bytes(16, "big"))
    merged = Accumulator.zeros(DIM)
    for shard in shards:
        merged.merge(shard)
    assert merged.to_bytes() == folded(pairs).to_bytes()


@given(updates, sparse_vectors(dim=DIM), st.integers(1, 1000))
def test_taking_an_update_back_restores_every_bit(
    pairs: list[Update], vector: SparseVector, weight: int
) -> None:
    accumulator = folded(pairs)
    before = accumulator.to_bytes()
    accumulator.add_parts(in_one_part(vector), weight, b"late")
    accumulator.subtract_parts(in_one_part(vector), weight, b"late")
    assert accumulator.to_bytes() == before


@given(updates, st.integers(1, 50))
def test_the_mean_is_the_exact_grid_sum_over_the_divisor(pairs: list[Update], divisor: int) -> None:
    mean = folded(pairs).mean(divisor)
    for coordinate in range(DIM):
        steps = sum(
            weight * round(Fraction(float(vector.to_dense()[coordinate])) * 2**GRID_BITS)
            for vector, weight in pairs
        )
        assert mean[coordinate] == pytest.approx(
            float(Fraction(steps, 2**GRID_BITS * divisor)), rel=1e-15, abs=0
        )


@pytest.mark.parametrize("density", [1.0, 1 / 4, 1 / 16, 1 / 64])
def test_many_values_are_added_one_by_one_however_far_apart(density: float) -> None:
    dim, rng = 600_000, np.random.default_rng(3)
    indices = np.flatnonzero(rng.random(dim) < density)
    values = rng.standard_normal(indices.size).astype(np.float32)
    expected = np.zeros(dim, dtype=np.int64)
    expected[indices] = 3 * to_grid(values)
    accumulator = Accumulator.zeros(dim)
    vector = SparseVector(dim=dim, indices=indices, values=values)
    accumulator.add_parts(in_one_part(vector), 3, b"id")
    assert np.array_equal(accumulator.sums, expected)
    accumulator.subtract_parts(in_one_part(vector), 3, b"id")
    assert accumulator == Accumulator.zeros(dim)


def test_every_coordinate_has_the_whole_cohort_as_its_divisor() -> None:
    pairs = [(a_vector([0, 1], [4, 8], dim=DIM), 1), (a_vector([1], [8], dim=DIM), 1)]
    mean = folded(pairs).mean(4)
    assert mean[:3].tolist() == [1, 4, 0]


@given(updates)
def test_a_coordinate_that_nobody_sent_is_exactly_zero(pairs: list[Update]) -> None:
    touched = {index for vector, _ in pairs for index in vector.indices.tolist()}
    untouched = [index for index in range(DIM) if index not in touched]
    assert folded(pairs).mean(3)[untouched].tobytes() == bytes(8 * len(untouched))


def test_an_explicit_zero_adds_nothing_but_is_counted() -> None:
    accumulator = folded([(a_vector([2, 3], [0.0, -0.0], dim=DIM), 5)])
    assert not accumulator.sums.any()
    assert (accumulator.count, accumulator.weight_sum) == (1, 5)


@given(finite_floats())
def test_a_value_is_rounded_once_half_to_even(value: float) -> None:
    exact = Fraction(value) * 2**GRID_BITS
    assert to_grid(np.array([value], dtype=np.float32)).tolist() == [round(exact)]


def test_halves_go_to_the_even_step() -> None:
    half = 2.0 ** -(GRID_BITS + 1)
    values = np.array([half, 3 * half, -half, -3 * half, 5 * half], dtype=np.float32)
    assert to_grid(values).tolist() == [0, 2, 0, -2, 2]


def test_an_accumulator_knows_what_it_holds() -> None:
    accumulator = folded([(a_vector(dim=DIM), 3), (a_vector(dim=DIM), 4)])
    one, two = (hashlib.sha256(number.to_bytes(16, "big")).digest() for number in (0, 1))
    assert accumulator.dim == DIM
    assert (accumulator.count, accumulator.weight_sum) == (2, 7)
    assert accumulator.id_xor == bytes(a ^ b for a, b in zip(one, two, strict=True))


def test_accumulators_differ_if_they_hold_other_updates() -> None:
    vector = a_vector(dim=DIM)
    assert folded([(vector, 1)]) == folded([(vector, 1)])
    assert folded([(vector, 1)]) != folded([(vector, 1)], numbers=[7])
    assert folded([(vector, 1)]) != folded([(vector, 2)])
    assert folded([(vector, 1)]) != vector


def test_weights_below_one_are_an_error_and_change_nothing() -> None:
    accumulator = folded([])
    for weight in (0, -1):
        with pytest.raises(ValueError, match="weight"):
            accumulator.add_parts(in_one_part(a_vector(dim=DIM)), weight, b"id")
    assert accumulator == Accumulator.zeros(DIM)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**23, -(2.0**23)])
def test_a_value_off_the_grid_is_an_error_and_changes_nothing(value: float) -> None:
    accumulator = folded([])
    with pytest.raises(ValueError, match="grid"):
        accumulator.add_parts(in_one_part(a_vector([1], [value], dim=DIM)), 1, b"id")
    assert accumulator == Accumulator.zeros(DIM)


def test_the_largest_value_below_the_headroom_is_summed_exactly() -> None:
    largest = float(np.nextafter(np.float32(2.0**23), np.float32(0)))
    accumulator = folded([(a_vector([1], [largest], dim=DIM), 1)])
    assert accumulator.mean(1)[1] == largest


def test_another_dimension_is_an_error() -> None:
    accumulator = folded([])
    with pytest.raises(ValueError, match="outside"):
        accumulator.add_parts(in_one_part(a_vector([DIM], [1.0], dim=DIM + 1)), 1, b"id")
    with pytest.raises(ValueError, match="cannot merge"):
        accumulator.merge(Accumulator.zeros(DIM + 1))


def test_taking_back_more_than_was_added_is_an_error() -> None:
    vector = a_vector(dim=DIM)
    for accumulator in (folded([]), folded([(vector, 1)])):
        before = accumulator.to_bytes()
        with pytest.raises(ValueError, match="take back"):
            accumulator.subtract_parts(in_one_part(vector), 2, b"id")
        assert accumulator.to_bytes() == before


@pytest.mark.parametrize("divisor", [0, -1])
def test_a_mean_over_nobody_is_an_error(divisor: int) -> None:
    with pytest.raises(ValueError, match="divisor"):
        folded([]).mean(divisor)


@given(updates)
def test_an_accumulator_survives_as_bytes(pairs: list[Update]) -> None:
    accumulator = folded(pairs)
    restored = Accumulator.from_bytes(accumulator.to_bytes())
    assert restored == accumulator
    restored.add_parts(in_one_part(a_vector(dim=DIM)), 1, b"more")
    assert restored != accumulator


def test_bytes_with_any_bit_changed_or_any_end_cut_are_an_error() -> None:
    data = folded([(a_vector(dim=DIM), 3)]).to_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(ValueError, match=r"accumulator|checksum"):
            Accumulator.from_bytes(bytes(damaged))
        with pytest.raises(ValueError, match="accumulator"):
            Accumulator.from_bytes(data[:position])
    with pytest.raises(ValueError, match="length"):
        Accumulator.from_bytes(data + b"\0")


@pytest.mark.parametrize(
    ("weight", "value", "cohort"),
    [
        (1, 64.0, 2**17 - 1),
        (127, 1.0, 65_536),
        (1, math.nextafter(2.0**23, 0), 1),
        (2**32 - 1, 2.0**-20, 2),
        (2, 2.0**-20, 2**32 - 1),
    ],
)
def test_a_task_within_the_headroom_passes(weight: int, value: float, cohort: int) -> None:
    check_headroom(weight, value, cohort)


@pytest.mark.parametrize(
    ("weight", "value", "cohort"),
    [
        (1, 64.0, 2**17),
        (128, 1.0, 65_536),
        (1, 2.0**23, 1),
    ],
)
def test_a_task_beyond_the_headroom_is_refused(weight: int, value: float, cohort: int) -> None:
    with pytest.raises(Refusal, match="below 2") as refusal:
        check_headroom(weight, value, cohort)
    assert refusal.value.reason is Reason.CONFIGURATION


@pytest.mark.parametrize(
    ("weight", "value", "cohort", "wrong"),
    [
        (0, 64.0, 1, "max_weight"),
        # Two factors below 0 have a product above it.
        (-1, -64.0, 65_536, "max_weight"),
        (-1, 64.0, -5, "max_weight"),
        # More than a uint32 holds.
        (2**32, 2.0**-20, 1, "max_weight"),
        pytest.param(10**400, 64.0, 1, "max_weight", id="a weight of 401 digits"),
        (1, 64.0, 0, "largest_cohort"),
        (1, -64.0, -5, "largest_cohort"),
        (1, 2.0**-20, 2**32, "largest_cohort"),
        pytest.param(1, 64.0, 10**400, "largest_cohort", id="a cohort of 401 digits"),
        (1, 0.0, 1, "max_abs_value"),
        (1, -64.0, 1, "max_abs_value"),
        (1, math.nan, 1, "max_abs_value"),
        (1, math.inf, 1, "max_abs_value"),
    ],
)
def test_a_factor_of_the_headroom_that_is_out_of_range_is_refused_by_name(
    weight: int, value: float, cohort: int, wrong: str
) -> None:
    with pytest.raises(Refusal, match=f"^{wrong} must") as refusal:
        check_headroom(weight, value, cohort)
    assert refusal.value.reason is Reason.CONFIGURATION
    assert refusal.value.facts["field"] == wrong
