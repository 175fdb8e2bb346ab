"""Tasks, in a list and one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field

from admin_api.schemas.bytes import PayloadBytes
from admin_api.schemas.common import Digest, Id, Output, Time
from admin_api.schemas.privacy import PrivacyView
from admin_api.schemas.task_config import TaskConfigBody
from aggregator_service.domain.privacy import Budget
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import Task, TaskState
from aggregator_service.store.figures import ByteFigures
from flasc_core.errors import Reason

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


class TaskTotals(Output):
    """What all rounds of a task add up to."""

    updates_accepted: int = Field(examples=[400])
    refused: dict[Reason, int] = Field(
        description="Refused requests by reason.", examples=[{"NON_FINITE": 1}]
    )
    bytes: PayloadBytes

    @classmethod
    def of(
        cls, downloads: Sequence[ByteFigures], refused: Mapping[Reason, int], dimension: int
    ) -> Self:
        return cls(
            updates_accepted=sum(one.updates_accepted for one in downloads),
            refused=dict(refused),
            bytes=PayloadBytes.of(downloads, dimension),
        )
