"""Central differential privacy of a task: its settings, its budget, and who may be in a round.

What is protected is a device: all that it sends in the whole task, against zeros in its place. See
docs/privacy.md for what that does not cover.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum, unique
from typing import Final
from uuid import UUID

from aggregator_service.domain.accounting import (
    fixed_size_epsilon,
    gaussian_epsilon,
    poisson_epsilon,
)
from aggregator_service.domain.rounds import RoundPolicy
from flasc_core.errors import Reason, Refusal
from flasc_core.fold import HEADROOM
from flasc_core.json_value import (
    JsonValue,
    read_integer,
    read_number,
    read_text,
    refuse_unknown_keys,
)
from flasc_core.noise import LARGEST_DEVIATE

__all__ = ["Budget", "Draw", "Privacy", "PrivacyMode", "Reservation", "draw_cohort"]

# A draw's numbers fit every database's signed integers.
_DRAW_BITS: Final = 62
# Above, noise in multiples of 2**-40 has more bits than the float64 deviates that it is made of.
_LARGEST_DEVIATION: Final = 256.0


@unique
class PrivacyMode(StrEnum):
    """What is assumed of how devices come into rounds, on which epsilon depends."""

    # Nothing, but that the ledger lets none of them in more than max_participations times.
    PARTICIPATION_CAP = "PARTICIPATION_CAP"
    # The server takes every enrolled device with the same small probability, secretly.
    POISSON = "POISSON"
    # The server draws as many enrolled devices as the goal says, secretly.
    FIXED_SIZE = "FIXED_SIZE"

    @property
    def draws(self) -> bool:
        return self is not PrivacyMode.PARTICIPATION_CAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """(epsilon, delta) is the budget of the whole task; no round opens that would exceed it."""

    clip_norm: float
    # The noise on the sum of a round's updates has this many clip norms as standard deviation.
    noise_multiplier: float
    epsilon: float
    delta: float
    mode: PrivacyMode = PrivacyMode.PARTICIPATION_CAP
    # Of PARTICIPATION_CAP alone.
    max_participations: int | None = None
    # Of the modes that draw: the fewest devices that rounds are drawn from.
    population: int | None = None

    @property
    def deviation(self) -> float:
        """Of the noise on a round's sum, in each coordinate."""
        return self.noise_multiplier * self.clip_norm

    def noise_to_signal(self, dim: int, goal: int) -> float:
        """The expected norm of the noise over the largest norm that the mean can have."""
        return self.noise_multiplier * math.sqrt(dim) / goal

    def epsilon_after(self, rounds: int, goal: int) -> float:
        """What this many rounds cost at delta: an upper bound where the server draws."""
        noise, delta = self.noise_multiplier, self.delta
        if self.mode is PrivacyMode.PARTICIPATION_CAP:
            times = min(rounds, self.max_participations or 0)
            return gaussian_epsilon(noise=noise, times=times, delta=delta)
        population = self.population or 0
        if self.mode is PrivacyMode.POISSON:
            rate = goal / population
            return poisson_epsilon(noise=noise, rate=rate, rounds=rounds, delta=delta)
        return fixed_size_epsilon(
            noise=noise, population=population, cohort=goal, rounds=rounds, delta=delta
        )

    def affordable_rounds(self, goal: int, wanted: int) -> int:
        """How many of the `wanted` rounds the budget allows."""
        low, high = 0, wanted
        while low < high:
            middle = (low + high + 1) // 2
            if self.epsilon_after(middle, goal) <= self.epsilon:
                low = middle
            else:
                high = middle - 1
        return low

    def check(self, policy: RoundPolicy, *, max_weight: int, largest_cohort: int) -> None:
        """Refuses (CONFIGURATION) what could not be accounted for, or not even pay one round."""
        self._check_numbers()
        capped = self.mode is PrivacyMode.PARTICIPATION_CAP
        only, other = self.max_participations, self.population
        if not capped:
            only, other = other, only
        largest_sum = self.clip_norm * largest_cohort + LARGEST_DEVIATE * self.deviation
        problems = {
            "max_participations is for PARTICIPATION_CAP, which needs it to be at least 1, and "
            "population for POISSON and FIXED_SIZE, which need one of at least the goal": (
                other is None and only is not None and only >= (1 if capped else policy.goal)
            ),
            "limits.max_weight must be 1: every device counts alike": max_weight == 1,
            "clip_norm x largest_cohort and the noise must stay below 2**23": (
                largest_sum < HEADROOM
            ),
        }
        if not capped:
            # What depends on who else came would tell who was drawn, and drawing is the secret.
            problems["a drawn cohort wants quorum, minimum_cohort and over_selection of 1"] = (
                policy.quorum == policy.minimum_cohort == 1 and policy.over_selection == 1.0
            )
            problems["a drawn cohort wants a minimum_separation of 0"] = (
                policy.minimum_separation == 0
            )
            problems["largest_cohort must leave room for a draw: goal + 10 x sqrt(goal)"] = (
                policy.goal + 10 * math.sqrt(policy.goal) <= largest_cohort
            )
        _refuse_unless(problems)
        first = self.epsilon_after(1, policy.goal)
        if first > self.epsilon:
            raise Refusal(
                Reason.CONFIGURATION,
                f"privacy: one round already costs an epsilon of {first:.3g}, more than the "
                f"budget of {self.epsilon:g}; raise noise_multiplier or epsilon",
                field="epsilon",
            )

    def _check_numbers(self) -> None:
        _refuse_unless(
            {
                "clip_norm must lie between 1e-6 and 1e6": 1e-6 <= self.clip_norm <= 1e6,
                "noise_multiplier must lie between 0.1 and 10,000": (
                    0.1 <= self.noise_multiplier <= 1e4
                ),
                "clip_norm x noise_multiplier must be at most 256, or noise would lack its last "
                "digits": self.deviation <= _LARGEST_DEVIATION,
                "epsilon must lie above 0 and at most at 10,000": 0 < self.epsilon <= 1e4,
                "delta must lie between 1e-30 and 0.01": 1e-30 <= self.delta <= 0.01,
            }
        )

    def to_json(self) -> dict[str, JsonValue]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> Privacy:
        """Read what `to_json` wrote; what is missing takes its default. Refuses CONFIGURATION."""
        refuse_unknown_keys(data, [field.name for field in fields(cls)])
        mode = read_text({"mode": PrivacyMode.PARTICIPATION_CAP, **data}, "mode")
        if mode not in set(PrivacyMode):
            raise Refusal(
                Reason.CONFIGURATION,
                f"privacy mode {mode!r} is unknown; known are {', '.join(PrivacyMode)}",
                field="mode",
            )
        return cls(
            clip_norm=read_number(data, "clip_norm"),
            noise_multiplier=read_number(data, "noise_multiplier"),
            epsilon=read_number(data, "epsilon"),
            delta=read_number(data, "delta"),
            mode=PrivacyMode(mode),
            max_participations=_optional_count(data, "max_participations"),
            population=_optional_count(data, "population"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Who is in a round that the server drew; secret until it is over, and destroyed then."""

    seed: bytes
    # Devices whose number is below are in.
    threshold: int
    # How many of those enrolled before `drawn_at` are.
    devices: int
    drawn_at: datetime

    def takes(self, device_id: UUID, enrolled_at: datetime) -> bool:
        return enrolled_at < self.drawn_at and _number(self.seed, device_id) < self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What a round of a private task holds of the budget, from its opening on.

    An aborted round holds nothing: nothing of it was ever released. Draw and seed are destroyed
    with the round's payloads, for with them the noise could be taken off what was published.
    """

    round_id: UUID
    task_id: UUID
    # Of the task, once this round is published: the rounds that hold something, and their cost.
    rounds: int
    epsilon: float
    # The budget pays for no other after it.
    is_last: bool
    draw: Draw | None = None
    # Fixed in the transaction that closes the round, so that its noise is drawn once.
    noise_seed: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Of a task: what its rounds hold together, and what of that is published."""

    rounds_reserved: int
    epsilon_reserved: float
    rounds_published: int
    epsilon_spent: float
    # It pays for no round after those that hold something.
    is_exhausted: bool


def draw_cohort(
    privacy: Privacy, goal: int, enrolled: Collection[UUID], seed: bytes, now: datetime
) -> Draw | None:
    """Return the draw among the devices `enrolled` before `now`; None where they are too few.

    Fewer than the configured population would do for the accounting, but not for the task: rounds
    of few or no devices cost as much of the budget. More only make a device's part rarer.
    """
    numbers = sorted(_number(seed, device_id) for device_id in enrolled)
    if len(numbers) < (privacy.population or 0):
        return None
    if privacy.mode is PrivacyMode.POISSON:
        threshold = (goal << _DRAW_BITS) // len(numbers)
    else:
        threshold = numbers[goal - 1] + 1
    devices = sum(number < threshold for number in numbers)
    return Draw(seed=seed, threshold=threshold, devices=devices, drawn_at=now)


def _number(seed: bytes, device_id: UUID) -> int:
    digest = hmac.digest(seed, device_id.bytes, "sha256")
    return int.from_bytes(digest[:8], "big") >> (64 - _DRAW_BITS)


def _optional_count(data: Mapping[str, JsonValue], key: str) -> int | None:
    return None if data.get(key) is None else read_integer(data, key)


def _refuse_unless(problems: Mapping[str, bool]) -> None:
    for problem, holds in problems.items():
        if not holds:
            raise Refusal(Reason.CONFIGURATION, f"privacy: {problem}", field="privacy")
