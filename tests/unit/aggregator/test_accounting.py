"""Epsilon, held to published figures and to closed forms that the library has no part in."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from aggregator_service.domain.accounting import (
    fixed_size_epsilon,
    gaussian_epsilon,
    least_noise,
    poisson_epsilon,
    tight_poisson_epsilon,
)


def normal_cdf(x: float) -> float:
    # Unlike NormalDist's, right in the tail too.
    return math.erfc(-x / math.sqrt(2)) / 2


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Dong, Roth and Su 2019 (arXiv 1905.02383), corollary 1."""
    second = normal_cdf(-epsilon / mu - mu / 2)
    return normal_cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * second


def sampled_renyi(order: int, noise: float, rate: float) -> float:
    """Mironov, Talwar and Zhang 2019 (arXiv 1908.10530), section 3.3, for whole orders."""
    terms = [
        math.log(math.comb(order, k))
        + (order - k) * math.log1p(-rate)
        + k * math.log(rate)
        + (k * k - k) / (2 * noise**2)
        for k in range(order + 1)
    ]
    largest = max(terms)
    total = sum(math.exp(term - largest) for term in terms)
    return (largest + math.log(total)) / (order - 1)


def drawn_renyi(order: int, noise: float, rate: float) -> float:
    """Wang, Balle and Kasiviswanathan 2019 (arXiv 1808.00087), theorem 9, of the Gaussian's own.

    Of updates that differ by a norm of 2. Its epsilon(infinity) has no bound, so that each of the
    theorem's minima is 2 or the first.
    """

    def gaussian(order: int) -> float:
        return order * 2**2 / (2 * noise**2)

    second = min(
        math.log(4) + math.log(math.expm1(gaussian(2))),
        math.log(2) + gaussian(2),
    )
    terms = [0.0, 2 * math.log(rate) + math.log(math.comb(order, 2)) + second]
    terms += [
        j * math.log(rate) + math.log(math.comb(order, j)) + (j - 1) * gaussian(j) + math.log(2)
        for j in range(3, order + 1)
    ]
    largest = max(terms)
    return (largest + math.log(sum(math.exp(term - largest) for term in terms))) / (order - 1)


def sampled_delta(epsilon: float, noise: float, rate: float) -> float:
    """One round's delta, from the point on where its likelihood ratio is above exp(epsilon)."""
    sampled, plain = NormalDist(1, noise), NormalDist(0, noise)
    point = noise**2 * math.log((math.exp(epsilon) - 1 + rate) / rate) + 0.5
    without = 1 - plain.cdf(point)
    return (1 - rate) * without + rate * (1 - sampled.cdf(point)) - math.exp(epsilon) * without


def opposed_epsilon(noise: float, rate: float, rounds: int, delta: float) -> float:
    """A lower bound on what fixed cohorts cost, by two data sets that they tell apart.

    All others send -1, and the device 1 or 0: it is drawn in their place, so that the sum is by 2
    or by 1 above the one without it. The losses of `rounds` are added up by their distribution,
    each rounded down.
    """
    step, size = 2e-4, 2**20
    x = np.linspace(-14 * noise, 14 * noise + 3, 400_001)

    def density(mean: float) -> NDArray[np.float64]:
        scale = noise * math.sqrt(2 * math.pi)
        return np.asarray(np.exp(-((x - mean) ** 2) / (2 * noise**2)) / scale)

    sends, sends_not = ((1 - rate) * density(0) + rate * density(mean) for mean in (2.0, 1.0))
    places = np.floor(np.log(sends / sends_not) / step).astype(np.int64)
    chances = np.zeros(size)
    np.add.at(chances, places % size, sends * (x[1] - x[0]))
    total = np.fft.irfft(np.fft.rfft(chances) ** rounds, size)
    losses = (np.arange(size) - size * (np.arange(size) > size // 2)) * step

    def costs_more(epsilon: float) -> bool:
        above = losses > epsilon
        return float(np.sum(total[above] * -np.expm1(epsilon - losses[above]))) > delta

    low, high = 0.0, size // 2 * step
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if costs_more(middle) else (low, middle)
    return low


@pytest.mark.parametrize(
    ("times", "noise", "epsilon"),
    [
        (1, 1, 4.89),
        (1, 2, 2.25),
        (1, 4, 1.06),
        (5, 1, 12.6),
        (5, 2, 5.55),
        (5, 4, 2.55),
        (10, 1, 19.4),
        (10, 2, 8.31),
        (10, 4, 3.75),
    ],
)
def test_a_participation_cap_costs_what_tables_say(
    times: int, noise: float, epsilon: float
) -> None:
    got = gaussian_epsilon(noise=noise, times=times, delta=1e-6)
    assert got == pytest.approx(epsilon, rel=4e-3)


@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-10])
@pytest.mark.parametrize(("times", "noise"), [(1, 0.5), (1, 8.0), (10, 1.0), (200, 40.0)])
def test_the_analytic_gaussian_is_exact(times: int, noise: float, delta: float) -> None:
    epsilon = gaussian_epsilon(noise=noise, times=times, delta=delta)
    assert gaussian_delta(epsilon, math.sqrt(times) / noise) == pytest.approx(delta, rel=1e-9)


def test_a_mechanism_within_delta_alone_costs_no_epsilon() -> None:
    assert gaussian_epsilon(noise=100, times=1, delta=0.1) == 0
    assert gaussian_epsilon(noise=1, times=0, delta=1e-6) == 0


def test_epsilons_beyond_the_exponent_of_a_float_are_computed() -> None:
    # Theorem 8 has no closed form, but for a large mu epsilon nears mu**2 / 2 + mu * quantile.
    mu = 50.0
    expected = mu**2 / 2 + mu * NormalDist().inv_cdf(1 - 1e-5)
    assert gaussian_epsilon(noise=1 / mu, times=1, delta=1e-5) == pytest.approx(expected, rel=1e-3)


# Made apart from this code with dp-accounting, and the bounds of the first three with Opacus too.
SAMPLED = [
    (100, 10_000, 200, 1e-5, 0.7, 3.54, 2.77),
    (100, 10_000, 200, 1e-5, 1.0, 1.34, 0.91),
    (100, 10_000, 200, 1e-5, 1.5, 0.53, 0.41),
    (10, 500, 200, 500**-1.1, 1.0, 1.38, 1.09),
    (10, 350, 200, 350**-1.1, 2.0, 0.58, 0.48),
    (200, 41_131, 500, 41_131**-1.1, 1.0, 1.07, 0.63),
]


@pytest.mark.parametrize(
    ("cohort", "population", "rounds", "delta", "noise", "bound", "tight"), SAMPLED
)
def test_poisson_sampling_costs_what_tables_say(
    cohort: int,
    population: int,
    rounds: int,
    delta: float,
    noise: float,
    bound: float,
    tight: float,
) -> None:
    rate = cohort / population
    got = poisson_epsilon(noise=noise, rate=rate, rounds=rounds, delta=delta)
    assert got == pytest.approx(bound, abs=0.006)
    informed = tight_poisson_epsilon(noise=noise, rate=rate, rounds=rounds, delta=delta)
    assert informed == pytest.approx(tight, abs=0.006)
    assert informed < got


# Made apart from this code with dp-accounting, at half the noise for updates that differ by 2.
@pytest.mark.parametrize(("noise", "epsilon"), [(1.0, 12.30), (1.5, 3.73), (3.0, 0.92)])
def test_a_fixed_cohort_costs_what_tables_say(noise: float, epsilon: float) -> None:
    got = fixed_size_epsilon(noise=noise, population=10_000, cohort=100, rounds=200, delta=1e-5)
    assert got == pytest.approx(epsilon, abs=0.006)


@pytest.mark.parametrize(
    ("noise", "population", "cohort", "rounds"),
    [(1.443, 5755, 400, 30), (2.932, 5755, 400, 30), (6.642, 5755, 400, 30), (2.0, 350, 10, 100)],
)
def test_a_fixed_cohort_costs_what_the_theorem_says(
    noise: float, population: int, cohort: int, rounds: int
) -> None:
    delta = 1e-5
    by_hand = min(
        rounds * drawn_renyi(order, noise, cohort / population)
        + math.log1p(-1 / order)
        - (math.log(delta) + math.log(order)) / (order - 1)
        for order in range(2, 200)
    )
    got = fixed_size_epsilon(
        noise=noise, population=population, cohort=cohort, rounds=rounds, delta=delta
    )
    # The library's is the sharper theorem 27, and has orders between the whole ones.
    assert 0.5 * by_hand < got <= by_hand * (1 + 1e-9)


@pytest.mark.parametrize("rounds", [1, 30, 200])
@pytest.mark.parametrize(
    ("noise", "cohort", "population"), [(1.0, 100, 10_000), (0.721, 400, 5755), (2.0, 300, 1000)]
)
def test_a_fixed_cohort_costs_no_less_than_others_that_send_the_opposite(
    noise: float, cohort: int, population: int, rounds: int
) -> None:
    delta = 1e-5
    got = fixed_size_epsilon(
        noise=noise, population=population, cohort=cohort, rounds=rounds, delta=delta
    )
    assert opposed_epsilon(noise, cohort / population, rounds, delta) < got


@pytest.mark.parametrize(
    ("rate", "noise", "rounds", "published"),
    [
        # Abadi et al. 2016 (arXiv 1607.00133), section 3.2.
        (0.01, 4.0, 10_000, 1.26),
        # The MNIST tutorial of TensorFlow Privacy: batches of 256 of 60,000, epochs of 234 steps.
        (256 / 60_000, 1.3, 15 * 234, 1.18),
        (256 / 60_000, 0.7, 45 * 234, 7.10),
    ],
)
def test_published_epsilons_are_met_and_a_sharper_conversion_betters_them(
    rate: float, noise: float, rounds: int, published: float
) -> None:
    delta = 1e-5
    costs = {order: rounds * sampled_renyi(order, noise, rate) for order in range(2, 65)}
    # They convert as Mironov 2017 (arXiv 1702.07476) does, we as Canonne, Kamath and Steinke 2020
    # (arXiv 2004.00010), proposition 12.
    then = min(cost - math.log(delta) / (order - 1) for order, cost in costs.items())
    assert then == pytest.approx(published, rel=0.02)
    now = min(
        cost + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        for order, cost in costs.items()
    )
    got = poisson_epsilon(noise=noise, rate=rate, rounds=rounds, delta=delta)
    # Ours has orders between the whole ones too.
    assert now * 0.98 < got < now * (1 + 1e-9) < then


@pytest.mark.parametrize(("noise", "rate"), [(0.7, 0.01), (1.0, 0.05), (2.0, 0.3)])
def test_one_sampled_round_agrees_with_its_closed_form(noise: float, rate: float) -> None:
    delta = 1e-6
    tight = tight_poisson_epsilon(noise=noise, rate=rate, rounds=1, delta=delta)
    assert sampled_delta(tight, noise, rate) <= delta
    assert sampled_delta(tight * 0.99, noise, rate) > delta
    bound = poisson_epsilon(noise=noise, rate=rate, rounds=1, delta=delta)
    assert sampled_delta(bound, noise, rate) < delta


@pytest.mark.parametrize("rounds", [1, 20])
def test_sampling_everybody_costs_no_less_than_no_sampling(rounds: int) -> None:
    plain = gaussian_epsilon(noise=3.0, times=rounds, delta=1e-6)
    assert plain < poisson_epsilon(noise=3.0, rate=1.0, rounds=rounds, delta=1e-6) < 1.15 * plain


def test_a_fixed_cohort_costs_no_more_than_being_in_every_round() -> None:
    def costs(noise: float, cohort: int) -> float:
        return fixed_size_epsilon(
            noise=noise, population=9000, cohort=cohort, rounds=20, delta=1e-6
        )

    plain = gaussian_epsilon(noise=3.0, times=20, delta=1e-6)
    assert costs(3.0, 9000) == costs(3.0, 6000) == plain
    assert costs(3.0, 90) < plain / 4


def test_no_round_costs_nothing() -> None:
    assert poisson_epsilon(noise=1, rate=0.1, rounds=0, delta=1e-6) == 0
    assert tight_poisson_epsilon(noise=1, rate=0.1, rounds=0, delta=1e-6) == 0
    assert fixed_size_epsilon(noise=1, population=9, cohort=3, rounds=0, delta=1e-6) == 0


@pytest.mark.parametrize("target", [0.5, 5.0, 50.0])
def test_the_least_noise_meets_its_target_and_hardly_less_does_not(target: float) -> None:
    def epsilon_of(noise: float) -> float:
        return gaussian_epsilon(noise=noise, times=5, delta=1e-6)

    noise = least_noise(epsilon_of, target)
    assert epsilon_of(noise) <= target < epsilon_of(noise / 1.0011)


def test_no_noise_is_planned_below_a_tenth_and_none_above_ten_thousand() -> None:
    assert least_noise(lambda noise: 1 / noise, 50.0) == 0.1
    with pytest.raises(ValueError, match="no noise"):
        least_noise(lambda noise: 1.0, 0.5)
