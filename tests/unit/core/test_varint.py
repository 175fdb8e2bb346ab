"""Varints by the array, against varints one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flasc_core.errors import Reason, Refusal
from flasc_core.wire.varint import read_varints, write_varints

BOUNDARIES = [0, 1, *(2**bits + step for bits in (7, 14, 21, 28) for step in (-1, 0, 1)), 2**32 - 1]
numbers_lists = st.lists(st.one_of(st.sampled_from(BOUNDARIES), st.integers(0, 300)), max_size=50)


def written(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def refused(payload: bytes, count: int) -> Reason:
    with pytest.raises(Refusal) as refusal:
        read_varints(payload, count)
    return refusal.value.reason


@given(numbers_lists)
def test_arrays_are_written_as_their_numbers_are_one_by_one(numbers: list[int]) -> None:
    payload = write_varints(np.array(numbers, dtype=np.int64))
    assert payload == b"".join(map(written, numbers))
    assert read_varints(payload, len(numbers)).tolist() == numbers


@pytest.mark.parametrize("number", BOUNDARIES)
@pytest.mark.parametrize("around", [[], [3], [2**20, 5]])
def test_each_length_s_boundary_survives(number: int, around: list[int]) -> None:
    numbers = [*around, number, *around]
    assert read_varints(write_varints(np.array(numbers)), len(numbers)).tolist() == numbers


def test_many_long_numbers_survive() -> None:
    numbers = np.random.default_rng(1).integers(0, 2**32, 5000)
    assert np.array_equal(read_varints(write_varints(numbers), 5000), numbers)


@pytest.mark.parametrize("held", [0, 1, 2, 4])
def test_another_count_than_announced_is_refused(held: int) -> None:
    for number in (5, 500):
        assert refused(written(number) * held, 3) is Reason.LENGTH_MISMATCH


@pytest.mark.parametrize("payload", [b"\x80", b"\x05\x80", b"\x05\xff\xff"])
def test_a_number_that_is_cut_off_is_refused(payload: bytes) -> None:
    assert refused(payload, payload.count(5)) is Reason.MALFORMED_MESSAGE


def test_a_number_may_take_five_bytes_and_not_six() -> None:
    assert read_varints(b"\x81\x80\x80\x80\x00", 1).tolist() == [1]
    assert refused(b"\x81\x80\x80\x80\x80\x00", 1) is Reason.MALFORMED_MESSAGE
    assert refused(b"\xff" * 100 + b"\x00", 1) is Reason.MALFORMED_MESSAGE


def test_a_number_may_have_32_bits_and_not_33() -> None:
    assert read_varints(b"\xff\xff\xff\xff\x0f", 1).tolist() == [2**32 - 1]
    assert refused(b"\x80\x80\x80\x80\x10", 1) is Reason.INDEX_RANGE
