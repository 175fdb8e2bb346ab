"""Differential privacy: as operators ask for it, and what a task has spent of it."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from admin_api.schemas.common import Input, Output, Positive
from aggregator_service.domain.averaging import count_taken
from aggregator_service.domain.privacy import Budget, PrivacyMode, Reservation
from aggregator_service.domain.tasks import TaskConfig

__all__ = ["PrivacyBody", "PrivacyView", "RoundPrivacyView"]


class PrivacyBody(Input):
    """Central differential privacy of the devices of a task; docs/privacy.md says what it covers.

    `flasc dp plan` finds the numbers.
    """

    clip_norm: float = Field(gt=0, description="The largest norm of an update.", examples=[0.5])
    noise_multiplier: float = Field(
        gt=0, description="Deviation of a round's noise, in clip norms.", examples=[1.0]
    )
    epsilon: float = Field(
        gt=0, description="No round opens that would cost more in all.", examples=[8.0]
    )
    delta: float = Field(gt=0, lt=1, examples=[1e-6])
    mode: PrivacyMode = Field(
        default=PrivacyMode.PARTICIPATION_CAP,
        description="What is assumed of how devices come into rounds.",
    )
    max_participations: Positive | None = Field(
        default=None, description="Of PARTICIPATION_CAP: rounds that a device may be in."
    )
    population: Positive | None = Field(
        default=None, description="Of POISSON and FIXED_SIZE: enrolled devices, at least."
    )


class PrivacyView(Output):
    """A private task's budget."""

    mode: PrivacyMode
    delta: float = Field(examples=[1e-6])
    epsilon_budget: float = Field(examples=[8.0])
    epsilon_reserved: float = Field(
        description="Spent, once the round in progress is published.", examples=[2.9]
    )
    epsilon_spent: float = Field(description="By published rounds.", examples=[2.6])
    rounds_reserved: int = Field(description="Published or in progress.", examples=[5])
    rounds_published: int = Field(examples=[4])
    is_exhausted: bool = Field(
        description="The budget pays for no round after those that are reserved."
    )
    noise_deviation: float = Field(
        description="Of the noise on a round's sum, in each value.", examples=[0.5]
    )
    noise_to_signal: float = Field(
        description="Expected norm of the next round's noise over the largest of its mean.",
        examples=[0.3],
    )

    @classmethod
    def of(cls, config: TaskConfig, budget: Budget) -> Self | None:
        privacy = config.privacy
        if privacy is None:
            return None
        return cls(
            mode=privacy.mode,
            delta=privacy.delta,
            epsilon_budget=privacy.epsilon,
            epsilon_reserved=budget.epsilon_reserved,
            epsilon_spent=budget.epsilon_spent,
            rounds_reserved=budget.rounds_reserved,
            rounds_published=budget.rounds_published,
            is_exhausted=budget.is_exhausted,
            noise_deviation=privacy.deviation,
            noise_to_signal=privacy.noise_to_signal(
                count_taken(config, budget.rounds_published), config.policy.goal
            ),
        )


class RoundPrivacyView(Output):
    """What a private task's round reserved as it opened; an aborted one gives it back."""

    epsilon: float = Field(description="Of the whole task, once it is published.", examples=[2.9])
    is_last: bool = Field(description="The budget pays for no round after it.")
    devices_drawn: int | None = Field(
        description="By the server; null where it draws none, and once the round is over.",
        examples=[104],
    )

    @classmethod
    def of(cls, reservation: Reservation | None) -> Self | None:
        if reservation is None:
            return None
        draw = reservation.draw
        return cls(
            epsilon=reservation.epsilon,
            is_last=reservation.is_last,
            devices_drawn=None if draw is None else draw.devices,
        )
