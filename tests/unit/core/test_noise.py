"""Noise: Gaussian to the last digit of a float, and the same from the same seed for good."""

from __future__ import annotations

import math
from hashlib import sha256
from statistics import NormalDist

import numpy as np
import pytest

from flasc_core import noise
from flasc_core.fold import GRID_BITS
from flasc_core.noise import LARGEST_DEVIATE, draw_noise

SEED = bytes(range(32))
GRID = 2.0**GRID_BITS


def words_at(*tails: float) -> np.ndarray:
    return np.array([int(tail * 2**64) for tail in tails], dtype=np.uint64)


def test_a_seed_gives_these_bytes_for_good() -> None:
    drawn = draw_noise(SEED, 40_000, 1.5).astype("<i8")
    assert sha256(drawn.tobytes()).hexdigest() == (
        "a670323ee5c846fb8a253b146a63b894f9f52695b26702ded367c2934d3a9c71"
    )


def test_a_shorter_vector_begins_alike_and_another_seed_does_not() -> None:
    long, short = draw_noise(SEED, 50_000, 1.0), draw_noise(SEED, 20_000, 1.0)
    np.testing.assert_array_equal(long[:20_000], short)
    assert (draw_noise(bytes(32), 20_000, 1.0) != short).mean() > 0.999


def test_blocks_of_one_seed_differ() -> None:
    drawn = draw_noise(SEED, 4 * 16_384, 1.0).reshape(4, -1)
    assert len({block.tobytes() for block in drawn}) == 4


@pytest.mark.parametrize("tail", [0.4, 0.076, 0.074, 1e-3, 1e-9, 1.4e-11, 1.3e-11, 1e-15])
def test_a_word_becomes_its_quantile(tail: float) -> None:
    word = words_at(tail)
    exact = -NormalDist().inv_cdf((int(word[0]) + 0.5) * 2.0**-64)
    assert noise._normal(word)[0] == pytest.approx(exact, rel=2e-15)
    assert noise._normal(word + np.uint64(1 << 63))[0] == pytest.approx(-exact, rel=2e-15)


def test_the_outermost_words_stay_within_the_largest_deviate() -> None:
    outermost = noise._normal(np.array([0, 1 << 63], dtype=np.uint64))
    assert 9.1 < outermost[0] == -outermost[1] < LARGEST_DEVIATE
    innermost = noise._normal(np.array([2**63 - 1, 2**64 - 1], dtype=np.uint64))
    assert np.abs(innermost).max() < 1e-15


def test_the_logarithm_is_right_to_the_last_digit() -> None:
    numbers = np.exp(-np.random.default_rng(1).uniform(2.0, 45.0, 10_000))
    np.testing.assert_allclose(noise._log(numbers), np.log(numbers), rtol=3e-16)


def test_moments_and_distribution_are_those_of_a_gaussian() -> None:
    count, deviation = 400_000, 3.0
    drawn = np.sort(draw_noise(SEED, count, deviation) / (GRID * deviation))
    # Each within 5 standard errors.
    assert abs(drawn.mean()) < 5 / math.sqrt(count)
    assert abs(drawn.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((drawn**4).mean() - 3) < 5 * math.sqrt(96 / count)
    ideal = np.array([NormalDist().cdf(value) for value in drawn[::100]])
    # Kolmogorov and Smirnov: exceeded once in a million draws.
    assert np.abs(ideal - np.arange(count)[::100] / count).max() < 2.7 / math.sqrt(count)


def test_neighbouring_coordinates_and_signs_are_independent() -> None:
    drawn = draw_noise(SEED, 400_000, 1.0) / GRID
    assert abs((drawn[1:] * drawn[:-1]).mean()) < 5 / math.sqrt(drawn.size)
    assert abs((drawn > 0).mean() - 0.5) < 2.5 / math.sqrt(drawn.size)


@pytest.mark.parametrize("deviation", [0.0, -1.0, math.nan, math.inf, 2.0**23 / 9.2])
def test_a_deviation_that_could_leave_the_grid_is_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="outside the grid"):
        draw_noise(SEED, 1, deviation)


def test_the_largest_deviation_of_the_grid_is_drawn() -> None:
    assert draw_noise(SEED, 100, 2.0**23 / 9.4).size == 100


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        draw_noise(bytes(length), 1, 1.0)
