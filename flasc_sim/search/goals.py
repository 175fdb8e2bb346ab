"""What a search is for, and which of its outcomes serves that best."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from flasc_core.json_value import JsonValue
from flasc_sim.search.space import Candidate

__all__ = [
    "ByteBudget",
    "Goal",
    "Measure",
    "Outcome",
    "Outcomes",
    "TargetAccuracy",
    "frontier",
    "measured",
]

# While a search for an accuracy stops trials early, half the bytes are worth so many points.
_POINTS_PER_HALVING: Final = 1.0
# Rounds of a run differ by a few per cent of their bytes; a projection may be that far off.
_PROJECTION_SLACK: Final = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A candidate's run after `round` of `rounds` rounds.

    `accuracy` is of validation rows; `payload_bytes` were measured, both ways, over all devices.
    """

    candidate: Candidate
    round: int
    rounds: int
    accuracy: float
    payload_bytes: int
    # Training failed, in the round after or as this one was evaluated; the accuracy is 0.
    failed: bool = False

    @property
    def is_whole(self) -> bool:
        return self.round == self.rounds and not self.failed

    @property
    def projected_bytes(self) -> float:
        """Of the whole run, if its other rounds are as these."""
        return self.payload_bytes / self.round * self.rounds


Outcomes: TypeAlias = Generator[Outcome, None, None]


class Measure(Protocol):
    def __call__(self, candidate: Candidate) -> Outcomes:
        """Yield the outcome so far at every evaluation, and at last that of the whole run.

        Whoever has seen enough closes it; asked again, it yields the same and goes on.
        """
        ...


class Goal(Protocol):
    def to_json(self) -> dict[str, JsonValue]: ...

    def is_met(self, outcome: Outcome) -> bool:
        """Whether a whole run keeps to the constraint; what is not whole never does."""
        ...

    def is_beyond(self, outcome: Outcome) -> bool:
        """Whether the run can not keep to the constraint any more, so that its rest is a waste."""
        ...

    def is_enough(self, outcome: Outcome) -> bool:
        """Whether no run of more bytes could serve the goal better."""
        ...

    def violation(self, outcome: Outcome) -> float:
        """How far the run, as it goes, is off the constraint; at most 0 where it keeps to it."""
        ...

    def score(self, outcome: Outcome) -> float:
        """What runs of as many rounds are compared by where some are stopped early; higher wins."""
        ...

    def choose(self, outcomes: Iterable[Outcome]) -> Outcome:
        """Return the best of the whole runs that meet the goal, or the nearest of those that fail.

        ValueError where there is no whole run.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetAccuracy:
    """The fewest bytes for at least this accuracy, a share in (0, 1]."""

    accuracy: float

    def __post_init__(self) -> None:
        if not 0 < self.accuracy <= 1:
            raise ValueError(f"the target accuracy is in (0, 1], not {self.accuracy}")

    def to_json(self) -> dict[str, JsonValue]:
        return {"target_accuracy": self.accuracy}

    def is_met(self, outcome: Outcome) -> bool:
        return outcome.is_whole and outcome.accuracy >= self.accuracy

    def is_beyond(self, outcome: Outcome) -> bool:
        # Accuracy may still rise until the last round.
        return False

    def is_enough(self, outcome: Outcome) -> bool:
        return self.is_met(outcome)

    def violation(self, outcome: Outcome) -> float:
        return self.accuracy - outcome.accuracy

    def score(self, outcome: Outcome) -> float:
        points = 100 * min(outcome.accuracy, self.accuracy)
        return points - _POINTS_PER_HALVING * math.log2(outcome.projected_bytes)

    def choose(self, outcomes: Iterable[Outcome]) -> Outcome:
        whole = _whole(outcomes)
        met = [outcome for outcome in whole if self.is_met(outcome)]
        if met:
            return min(met, key=lambda outcome: (outcome.payload_bytes, -outcome.accuracy))
        return max(whole, key=lambda outcome: (outcome.accuracy, -outcome.payload_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteBudget:
    """The highest accuracy for at most so many payload bytes, both ways, over all devices."""

    payload_bytes: int

    def __post_init__(self) -> None:
        if self.payload_bytes < 1:
            raise ValueError(f"the byte budget is at least 1, not {self.payload_bytes}")

    def to_json(self) -> dict[str, JsonValue]:
        return {"byte_budget": self.payload_bytes}

    def is_met(self, outcome: Outcome) -> bool:
        return outcome.is_whole and outcome.payload_bytes <= self.payload_bytes

    def is_beyond(self, outcome: Outcome) -> bool:
        return (
            outcome.payload_bytes > self.payload_bytes
            or outcome.projected_bytes > _PROJECTION_SLACK * self.payload_bytes
        )

    def is_enough(self, outcome: Outcome) -> bool:
        # What is left of the budget may buy more.
        return False

    def violation(self, outcome: Outcome) -> float:
        return math.log2(outcome.projected_bytes / self.payload_bytes)

    def score(self, outcome: Outcome) -> float:
        return 100 * outcome.accuracy

    def choose(self, outcomes: Iterable[Outcome]) -> Outcome:
        whole = _whole(outcomes)
        met = [outcome for outcome in whole if self.is_met(outcome)]
        if met:
            return max(met, key=lambda outcome: (outcome.accuracy, -outcome.payload_bytes))
        return min(whole, key=lambda outcome: (outcome.payload_bytes, -outcome.accuracy))


def measured(goal: Goal, outcomes: Outcomes) -> Outcome:
    """Return the outcome of the whole run, or of as much as showed that it is beyond the goal."""
    with closing(outcomes):
        for outcome in outcomes:
            last = outcome
            if goal.is_beyond(outcome):
                break
    return last


def frontier(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return the whole runs that no other one beats in both, from the fewest bytes upwards."""
    best: list[Outcome] = []
    ordered = sorted(
        (outcome for outcome in outcomes if outcome.is_whole),
        key=lambda outcome: (outcome.payload_bytes, -outcome.accuracy),
    )
    for outcome in ordered:
        if not best or outcome.accuracy > best[-1].accuracy:
            best.append(outcome)
    return best


def _whole(outcomes: Iterable[Outcome]) -> list[Outcome]:
    whole = [outcome for outcome in outcomes if outcome.is_whole]
    if not whole:
        raise ValueError("no trial ran to its end")
    return whole
