"""Epsilon of a Gaussian mechanism over many rounds, without and with secret sampling.

All of it is for one device's updates against zeros in their place, each of norm 1 at most, with
noise of standard deviation `noise` on their sum.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dp_accounting import DpEvent

__all__ = [
    "fixed_size_epsilon",
    "gaussian_epsilon",
    "least_noise",
    "poisson_epsilon",
    "tight_poisson_epsilon",
]

_HALVINGS: Final = 100


def gaussian_epsilon(*, noise: float, times: int, delta: float) -> float:
    """Return epsilon after a device took part `times` times, however its rounds were chosen.

    Exact: Balle and Wang 2018 (arXiv 1805.06530), theorem 8, for a sensitivity of sqrt(times).
    """
    if times == 0:
        return 0.0
    mu = math.sqrt(times) / noise

    def is_within(epsilon: float) -> bool:
        shift = epsilon / mu
        # In logarithms, for exp(epsilon) alone can be larger than any float.
        log_second = epsilon + _log_normal_cdf(-mu / 2 - shift)
        return math.exp(_log_normal_cdf(mu / 2 - shift)) - math.exp(log_second) <= delta

    return 0.0 if is_within(0.0) else _least(is_within, 1e-6)


def poisson_epsilon(*, noise: float, rate: float, rounds: int, delta: float) -> float:
    """Return an upper bound on epsilon where every round takes each device with probability `rate`.

    By Renyi differential privacy (Mironov, Talwar, Zhang 2019), as dp-accounting computes it.
    """
    return _renyi_epsilon(noise, rate, None, rounds, delta)


def fixed_size_epsilon(
    *, noise: float, population: int, cohort: int, rounds: int, delta: float
) -> float:
    """Return an upper bound on epsilon where every round draws `cohort` devices of `population`.

    Without replacement, by Renyi differential privacy (Wang, Balle, Kasiviswanathan 2019) of an
    update that any other one may replace; and never more than a device costs that is in every
    round, which needs no secret draw.
    """
    drawn = _renyi_epsilon(noise, cohort / population, (population, cohort), rounds, delta)
    return min(drawn, gaussian_epsilon(noise=noise, times=rounds, delta=delta))


@lru_cache(maxsize=64)
def tight_poisson_epsilon(*, noise: float, rate: float, rounds: int, delta: float) -> float:
    """Return `poisson_epsilon` by privacy loss distributions: a tenth to a third less, in seconds.

    It takes memory and time that grow as `noise` falls, so it only ever informs people.
    """
    if rounds == 0:
        return 0.0
    from dp_accounting.pld import PLDAccountant  # noqa: PLC0415

    accountant = PLDAccountant().compose(_poisson(noise, rate), rounds)
    return float(accountant.get_epsilon(delta))


def least_noise(epsilon_of: Callable[[float], float], target: float) -> float:
    """Return the least noise, to a part in a thousand above, whose epsilon is `target` or less.

    `epsilon_of` falls as the noise grows. ValueError where noise of 10,000 is not enough.
    """
    high = 1.0
    while epsilon_of(high) > target:
        high *= 2
        if high > 10_000:
            raise ValueError(f"no noise gives an epsilon of {target}")
    # Below this the accountants work for long, and every epsilon is in the hundreds.
    low = max(high / 2, 0.1) if high > 1 else 0.1
    if low == 0.1 and epsilon_of(low) <= target:
        return low
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if epsilon_of(middle) <= target else (middle, high)
    return high


@lru_cache(maxsize=1024)
def _renyi_epsilon(
    noise: float, rate: float, sizes: tuple[int, int] | None, rounds: int, delta: float
) -> float:
    if rounds == 0:
        return 0.0
    from dp_accounting import (  # noqa: PLC0415 - seconds to import, and only private tasks need it
        GaussianDpEvent,
        NeighboringRelation,
        SampledWithoutReplacementDpEvent,
    )
    from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415

    # It warns of orders that it leaves out, without which the bound still holds.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if sizes is None:
        accountant = RdpAccountant().compose(_poisson(noise, rate), rounds)
    else:
        # Where a device is not drawn another is, whose update may be the opposite of its own: in a
        # cohort of a fixed size two updates that stand in for each other differ by a norm of 2.
        accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE).compose(
            SampledWithoutReplacementDpEvent(*sizes, GaussianDpEvent(noise / 2)), rounds
        )
    return float(accountant.get_epsilon(delta))


def _poisson(noise: float, rate: float) -> DpEvent:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent  # noqa: PLC0415

    return PoissonSampledDpEvent(rate, GaussianDpEvent(noise))


def _least(holds: Callable[[float], bool], start: float) -> float:
    """Return the least number above 0, rounded up, from which `holds` is true."""
    low, high = 0.0, start
    while not holds(high):
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _log_normal_cdf(x: float) -> float:
    if x > -30.0:
        return math.log(math.erfc(-x / math.sqrt(2)) / 2)
    # Erfc ends at 38: the tail's asymptotic series, to within 1e-11 from 30 on.
    inverse = 1 / (x * x)
    series = -inverse + 3 * inverse**2 - 15 * inverse**3 + 105 * inverse**4
    return -x * x / 2 - math.log(-x * math.sqrt(2 * math.pi)) + math.log1p(series)
