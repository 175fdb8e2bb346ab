"""What privacy costs a task of a given size, in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from aggregator_service.domain.accounting import least_noise, tight_poisson_epsilon
from aggregator_service.domain.privacy import Privacy, PrivacyMode
from flasc_cli.errors import CliError, ExitCode
from flasc_cli.output import Json

__all__ = ["PrivacyPlan"]

# With as much noise as signal a round tells next to nothing; below a third it learns well.
_MOSTLY_NOISE = 1.0
_MUCH_NOISE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan:
    parameters: int
    cohort: int
    rounds: int
    mode: PrivacyMode
    max_participations: int | None
    population: int | None
    delta: float
    noise_multiplier: float = 1.0

    @property
    def epsilon(self) -> float:
        """After all rounds, as the service accounts for it."""
        return self._privacy().epsilon_after(self.rounds, self.cohort)

    @property
    def noise_to_signal(self) -> float:
        return self._privacy().noise_to_signal(self.parameters, self.cohort)

    def with_noise(self, noise_multiplier: float) -> PrivacyPlan:
        return replace(self, noise_multiplier=noise_multiplier)

    def within(self, epsilon: float) -> PrivacyPlan:
        """With the least noise whose cost is `epsilon` or less. Raises CliError if none is."""
        try:
            noise = least_noise(lambda noise: self.with_noise(noise).epsilon, epsilon)
        except ValueError as error:
            raise CliError(f"{error}; ask for fewer rounds", ExitCode.FAILED) from error
        # Rounded up to three decimals, so that what is printed keeps the promise.
        return self.with_noise(math.ceil(noise * 1000) / 1000)

    def tight_epsilon(self) -> float | None:
        """By privacy loss distributions, where that takes seconds; None elsewhere."""
        if self.mode is PrivacyMode.PARTICIPATION_CAP:
            # A closed form, and exact.
            return self.epsilon
        if self.mode is PrivacyMode.FIXED_SIZE or self.noise_multiplier < 0.5:
            return None
        return tight_poisson_epsilon(
            noise=self.noise_multiplier,
            rate=self.cohort / (self.population or self.cohort),
            rounds=self.rounds,
            delta=self.delta,
        )

    def settings(self, budget: float | None) -> dict[str, Json]:
        """A task's privacy section, the clip norm apart."""
        # Rounded up where no budget is given, so that it pays for all rounds.
        epsilon = math.ceil(self.epsilon * 1000) / 1000 if budget is None else budget
        told = replace(self._privacy(), epsilon=epsilon).to_json()
        return {name: value for name, value in told.items() if name != "clip_norm"}

    def warnings(self) -> list[str]:
        found = []
        share = self.noise_to_signal
        if share > _MUCH_NOISE:
            devices = math.ceil(self.cohort * share / _MUCH_NOISE)
            parameters = int((self.cohort * _MUCH_NOISE / self.noise_multiplier) ** 2)
            kind = "mostly noise" if share >= _MOSTLY_NOISE else "much noise"
            found.append(
                f"{kind}: each round's noise has {share:.2g} times the largest norm that its mean "
                f"can have. At this noise multiplier, cohorts of {devices:,} devices, or an "
                f"adapter of {parameters:,} values, would bring that to {_MUCH_NOISE}."
            )
        if self.population is not None and self.delta >= 1 / self.population:
            found.append(
                f"delta is not below 1/{self.population:,}: it would allow to publish one device's "
                "update in clear. Take a tenth of that or less."
            )
        if self.epsilon > 10:
            found.append(
                f"an epsilon of {self.epsilon:.3g} promises little: what is published may be "
                "e^epsilon times as likely with a device's updates as without them."
            )
        return found

    def _privacy(self) -> Privacy:
        return Privacy(
            clip_norm=1.0,
            noise_multiplier=self.noise_multiplier,
            epsilon=1.0,
            delta=self.delta,
            mode=self.mode,
            max_participations=self.max_participations,
            population=self.population,
        )
