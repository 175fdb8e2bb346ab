"""What the rows of rounds add up to, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aggregator_service.domain.assignments import AssignmentState, Evaluation
from flasc_core.layout import Role

__all__ = ["ByteFigures", "RoundFigures", "TierFigures", "TierRound"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteFigures:
    """A tier's payload bytes in a round: what was sent and received, whatever became of it.

    One whole download of each assignment that is at work or came to a result, and one payload of
    each accepted update, are what the round is made of. All beyond that is wasted: repeats,
    refused uploads, and everything of stragglers and of updates that were retracted.
    """

    down: int
    up: int
    wasted_down: int
    wasted_up: int
    # What a device downloads, and how many updates counted: dense ones are reckoned from these.
    download_size_bytes: int
    updates_accepted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TierFigures:
    """What the assignments of a round's one tier add up to."""

    assigned: int
    bytes: ByteFigures
    # As in RoundFigures.
    evaluation: Evaluation | None
    # How the values of its accepted updates divide.
    values_by_role: Mapping[Role, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRound:
    """A tier's part in one of a task's rounds."""

    number: int
    # What its evaluation is of.
    base_version: int
    figures: TierFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFigures:
    """What a round's assignments add up to."""

    # How many assignments are in each state; absent states are 0.
    assignments: Mapping[AssignmentState, int]
    # Over accepted updates.
    examples: int
    steps: int
    # Mean over devices, weighted by examples; None before the first update.
    loss_mean: float | None
    # Summed over every device that reported an evaluation; None before the first.
    evaluation: Evaluation | None
    # Of tiers with assignments, in order of name.
    tiers: Mapping[str, TierFigures]
