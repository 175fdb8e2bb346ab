"""One device's part in one round.

TRAINING ──update accepted──▶ ACCEPTED ──the operator takes the update back──▶ RETRACTED
    │────evaluation round, counts reported──▶ EVALUATED
    │────device says so──▶ ABANDONED | FAILED
    └────round over, or time over──▶ EXPIRED
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final
from uuid import UUID

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import Role

__all__ = ["Assignment", "AssignmentState", "Evaluation", "TrainingMetrics"]


@unique
class AssignmentState(StrEnum):
    TRAINING = "TRAINING"
    ACCEPTED = "ACCEPTED"
    EVALUATED = "EVALUATED"
    ABANDONED = "ABANDONED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    RETRACTED = "RETRACTED"

    @property
    def uses_download(self) -> bool:
        """It is at work, or came to a result; any other had its download for nothing."""
        return self in _AT_WORK_OR_DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMetrics:
    """What a device says of its training; shown, never trusted."""

    examples: int
    steps: int
    loss_mean: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The downloaded adapter on a device's held-out examples, before training."""

    correct: int
    total: int
    loss_sum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    id: UUID
    task_id: UUID
    round_id: UUID
    device_id: UUID
    state: AssignmentState
    # Digest of the download: updates are relative to exactly these bytes.
    download_sha256: bytes
    download_size_bytes: int
    training_seed: int
    assigned_at: datetime
    expires_at: datetime
    # The device's tier in this task when it was assigned; "" for none.
    tier: str = ""
    # How many tiers further down its device has asked to be in this task, in accepted updates.
    tier_steps: int = 0
    ended_at: datetime | None = None
    detail: str = ""
    training_metrics: TrainingMetrics | None = None
    evaluation: Evaluation | None = None
    # How the values of its accepted update divide; absent roles are 0.
    values_by_role: Mapping[Role, int] = field(default_factory=dict)
    revision: int = 0

    def check_open(self, now: datetime) -> None:
        """Refuses (ASSIGNMENT_EXPIRED) unless the device may still work on it."""
        if self.state is not AssignmentState.TRAINING or now >= self.expires_at:
            raise Refusal(
                Reason.ASSIGNMENT_EXPIRED,
                "this assignment has ended; check in for a new one",
                assignment_id=str(self.id),
            )

    def end(
        self,
        state: AssignmentState,
        now: datetime,
        *,
        detail: str = "",
        training_metrics: TrainingMetrics | None = None,
        evaluation: Evaluation | None = None,
        values_by_role: Mapping[Role, int] = MappingProxyType({}),
        steps_down: bool = False,
    ) -> Assignment:
        if self.state is not AssignmentState.TRAINING or state not in _ENDINGS:
            raise AssertionError(f"no transition {self.state} -> {state}")
        return replace(
            self,
            state=state,
            ended_at=now,
            detail=detail,
            training_metrics=training_metrics,
            evaluation=evaluation,
            values_by_role={role: count for role, count in values_by_role.items() if count},
            tier_steps=self.tier_steps + steps_down,
        )

    def retract(self, now: datetime, reason: str) -> Assignment:
        """After its update was taken back: what the device said of its data goes with it."""
        if self.state is not AssignmentState.ACCEPTED:
            raise AssertionError(f"no transition {self.state} -> RETRACTED")
        return replace(
            self,
            state=AssignmentState.RETRACTED,
            ended_at=now,
            detail=reason,
            training_metrics=None,
            evaluation=None,
            values_by_role={},
        )


_ENDINGS: Final = frozenset(AssignmentState) - {AssignmentState.TRAINING, AssignmentState.RETRACTED}
_AT_WORK_OR_DONE: Final = frozenset(
    {AssignmentState.TRAINING, AssignmentState.ACCEPTED, AssignmentState.EVALUATED}
)
