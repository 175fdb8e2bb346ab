"""Tasks, in a list and one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field

from admin_api.schemas.bytes import PayloadBytes
from admin_api.schemas.common import Digest, Id, Output, Time
from admin_api.schemas.privacy import PrivacyView
from admin_api.schemas.rounds import EvaluationView
from admin_api.schemas.task_config import TaskConfigBody
from aggregator_service.domain.privacy import Budget
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import Task, TaskState
from aggregator_service.store.figures import TierRound
from flasc_core.errors import Reason
from flasc_core.layout import Role

__all__ = ["TaskDetail", "TaskSummary", "TaskTotals"]


class LatestRound(Output):
    id: Id
    number: int = Field(examples=[8])
    state: RoundState

    @classmethod
    def of(cls, latest: Round | None) -> Self | None:
        if latest is None:
            return None
        return cls(id=latest.id, number=latest.number, state=latest.state)


class TaskSummary(Output):
    id: Id
    name: str = Field(examples=["debian-sections"])
    state: TaskState
    created_at: Time
    base_model: str = Field(examples=["all-MiniLM-L6-v2"])
    dimension: int = Field(description="Trainable values.", examples=[671252])
    rounds_wanted: int = Field(description="Published rounds that end the task.", examples=[50])
    latest_version: int = Field(
        description="The newest adapter, and so the rounds published.", examples=[7]
    )
    latest_round: LatestRound | None

    @classmethod
    def of(cls, task: Task, *, latest_version: int, latest_round: Round | None) -> Self:
        return cls(
            id=task.id,
            name=task.name,
            state=task.state,
            created_at=task.created_at,
            base_model=task.config.base_model.name,
            dimension=task.config.layout.dim,
            rounds_wanted=task.config.ending.rounds,
            latest_version=latest_version,
            latest_round=LatestRound.of(latest_round),
        )


class TaskDetail(TaskSummary):
    layout_fingerprint: Digest
    spec_sha256: Digest = Field(description="Of what devices are told of the task.")
    privacy: PrivacyView | None = Field(description="Null where the task promises none.")
    config: TaskConfigBody

    @classmethod
    def detailed(cls, task: Task, summary: TaskSummary, budget: Budget) -> Self:
        return cls(
            **dict(summary),
            layout_fingerprint=task.config.layout.fingerprint.hex(),
            spec_sha256=task.spec_sha256.hex(),
            privacy=PrivacyView.of(task.config, budget),
            config=TaskConfigBody.of(task.config),
        )


class LatestEvaluation(EvaluationView):
    """The adapter of the newest round with reports of held-out examples."""

    round_number: int = Field(examples=[8])
    version: int = Field(description="The adapter's.", examples=[7])

    @classmethod
    def newest(cls, rounds: Sequence[TierRound]) -> Self | None:
        """Of `rounds` that are oldest first."""
        for one in reversed(rounds):
            shown = EvaluationView.of(one.figures.evaluation)
            if shown is not None and shown.total:
                return cls(**dict(shown), round_number=one.number, version=one.base_version)
        return None


class TierTotals(Output):
    """What devices of one tier add up to over all rounds of a task."""

    tier: str = Field(description="Empty for devices without one.", examples=["phone"])
    assigned: int = Field(examples=[160])
    accepted: int = Field(examples=[130])
    bytes: PayloadBytes
    latest_evaluation: LatestEvaluation | None = Field(
        description="Null before the first report of a held-out example."
    )
    values_by_role: dict[Role, int] = Field(
        description="How the values of accepted updates divide, all of them together.",
        examples=[{"LORA_A": 390_000, "LORA_B": 1_080_000, "HEAD": 1_001_000}],
    )

    @classmethod
    def of(cls, tier: str, rounds: Sequence[TierRound], dimension: int) -> Self:
        parts = [one.figures for one in rounds]
        return cls(
            tier=tier,
            assigned=sum(part.assigned for part in parts),
            accepted=sum(part.bytes.updates_accepted for part in parts),
            bytes=PayloadBytes.of([part.bytes for part in parts], dimension),
            latest_evaluation=LatestEvaluation.newest(rounds),
            values_by_role={
                role: sum(part.values_by_role[role] for part in parts) for role in Role
            },
        )


class TaskTotals(Output):
    """What all rounds of a task add up to."""

    updates_accepted: int = Field(examples=[400])
    refused: dict[Reason, int] = Field(
        description="Refused requests by reason.", examples=[{"NON_FINITE": 1}]
    )
    bytes: PayloadBytes
    tiers: list[TierTotals] = Field(description="Of those with devices in the task.")

    @classmethod
    def of(
        cls,
        by_tier: Mapping[str, Sequence[TierRound]],
        refused: Mapping[Reason, int],
        dimension: int,
    ) -> Self:
        moved = [one.figures.bytes for rounds in by_tier.values() for one in rounds]
        return cls(
            updates_accepted=sum(one.updates_accepted for one in moved),
            refused=dict(refused),
            bytes=PayloadBytes.of(moved, dimension),
            tiers=[TierTotals.of(tier, rounds, dimension) for tier, rounds in by_tier.items()],
        )
