"""Rounds, with every figure that the ledger gives, and the assignments in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from admin_api.schemas.bytes import PayloadBytes
from admin_api.schemas.common import Digest, Id, Input, Output, Seconds, Time
from admin_api.schemas.privacy import RoundPrivacyView
from aggregator_service.domain.assignments import AssignmentState, Evaluation, TrainingMetrics
from aggregator_service.domain.privacy import Reservation
from aggregator_service.domain.rounds import AbortReason, DownloadFile, Round, RoundKind, RoundState
from aggregator_service.store.base import AssignmentRecord
from aggregator_service.store.figures import RoundFigures, TierFigures
from flasc_core.errors import Reason
from flasc_core.layout import Role

__all__ = ["AssignmentView", "EvaluationView", "Retraction", "RoundView"]


class RoundDevices(Output):
    assigned: int = Field(examples=[12])
    reported: int = Field(
        description="Accepted updates, or evaluations in an evaluation round.", examples=[10]
    )
    accepted: int = Field(examples=[10])
    by_state: dict[AssignmentState, int] = Field(
        description="Assignments by their state now.", examples=[{"ACCEPTED": 10, "EXPIRED": 2}]
    )

    @classmethod
    def of(cls, counts: Mapping[AssignmentState, int]) -> Self:
        by_state = {state: counts.get(state, 0) for state in AssignmentState}
        accepted = by_state[AssignmentState.ACCEPTED]
        return cls(
            assigned=sum(by_state.values()),
            reported=accepted + by_state[AssignmentState.EVALUATED],
            accepted=accepted,
            by_state=by_state,
        )


class RoundTraining(Output):
    """What devices say of their training, over accepted updates."""

    examples: int = Field(examples=[640])
    steps: int = Field(examples=[40])
    loss_mean: float | None = Field(description="Weighted by examples.", examples=[1.83])


class EvaluationView(Output):
    """The adapter that the round started from, on devices' held-out examples."""

    correct: int = Field(examples=[488])
    total: int = Field(examples=[800])
    accuracy: float | None = Field(
        description="Null where no example was held out.", examples=[0.61]
    )
    loss: float | None = Field(description="Mean over examples.", examples=[1.35])

    @classmethod
    def of(cls, evaluation: Evaluation | None) -> Self | None:
        if evaluation is None:
            return None
        correct, total = evaluation.correct, evaluation.total
        return cls(
            correct=correct,
            total=total,
            accuracy=correct / total if total else None,
            loss=evaluation.loss_sum / total if total else None,
        )


class DownloadView(Output):
    """What devices of one tier download."""

    tier: str = Field(description="Empty for devices without one.", examples=["phone"])
    size_bytes: int = Field(examples=[671_000])
    values: int = Field(
        description="How many are sent, explicit zeros included.", examples=[57_221]
    )
    values_by_role: dict[Role, int] = Field(
        description="How they divide; empty for rounds of before this was counted.",
        examples=[{"LORA_A": 40_000, "LORA_B": 9_521, "HEAD": 7_700}],
    )

    @classmethod
    def of(cls, tier: str, file: DownloadFile) -> Self:
        return cls(
            tier=tier,
            size_bytes=file.size_bytes,
            values=file.nnz,
            values_by_role=dict(file.values_by_role),
        )


class TierView(Output):
    """The part of a round that devices of one tier have."""

    tier: str = Field(description="Empty for devices without one.", examples=["phone"])
    assigned: int = Field(examples=[4])
    accepted: int = Field(examples=[3])
    bytes: PayloadBytes
    evaluation: EvaluationView | None
    values_by_role: dict[Role, int] = Field(
        description="How the values of accepted updates divide, all of them together.",
        examples=[{"LORA_A": 9_000, "LORA_B": 25_000, "HEAD": 23_100}],
    )

    @classmethod
    def of(cls, tier: str, figures: TierFigures, dimension: int) -> Self:
        return cls(
            tier=tier,
            assigned=figures.assigned,
            accepted=figures.bytes.updates_accepted,
            bytes=PayloadBytes.of([figures.bytes], dimension),
            evaluation=EvaluationView.of(figures.evaluation),
            values_by_role=dict(figures.values_by_role),
        )


class RoundView(Output):
    id: Id
    task_id: Id
    number: int = Field(examples=[8])
    kind: RoundKind
    state: RoundState
    abort_reason: AbortReason | None
    base_version: int = Field(description="The version that devices download.", examples=[7])
    published_version: int | None = Field(
        description="The version that it made; null unless PUBLISHED.", examples=[8]
    )
    goal: int = Field(description="Reports that end the collecting.", examples=[10])
    quorum: int = Field(description="The fewest updates that make a version.", examples=[5])
    seats: int = Field(
        description="Devices assigned at most, where the server draws none.", examples=[12]
    )
    created_at: Time
    opened_at: Time | None
    deadline: Time | None
    closed_at: Time | None
    ended_at: Time | None
    collecting_seconds: Seconds | None = Field(description="From opened to closed.")
    publishing_seconds: Seconds | None = Field(description="From closed to ended.")
    downloads: list[DownloadView] = Field(description="One for each tier, once it has opened.")
    devices: RoundDevices
    refused: dict[Reason, int] = Field(
        description="Refused requests by reason.", examples=[{"NON_FINITE": 1}]
    )
    bytes: PayloadBytes
    training: RoundTraining
    evaluation: EvaluationView | None = Field(description="Null before the first report.")
    tiers: list[TierView] = Field(description="Of those with devices in this round.")
    manifest_sha256: Digest | None = Field(
        description="Over the accepted update ids; null before the round has closed."
    )
    privacy: RoundPrivacyView | None = Field(
        description="Null where the task promises none, before the round opens, and where devices "
        "only evaluate."
    )

    @classmethod
    def of(
        cls,
        shown: Round,
        figures: RoundFigures,
        refused: Mapping[Reason, int],
        dimension: int,
        reservation: Reservation | None,
    ) -> Self:
        published = shown.state is RoundState.PUBLISHED
        return cls(
            id=shown.id,
            task_id=shown.task_id,
            number=shown.number,
            kind=shown.kind,
            state=shown.state,
            abort_reason=shown.abort_reason,
            base_version=shown.base_version,
            published_version=shown.base_version + 1 if published else None,
            goal=shown.policy.goal,
            quorum=shown.policy.least_updates,
            seats=shown.policy.seats,
            created_at=shown.created_at,
            opened_at=shown.opened_at,
            deadline=shown.deadline,
            closed_at=shown.closed_at,
            ended_at=shown.ended_at,
            collecting_seconds=_seconds(shown.opened_at, shown.closed_at),
            publishing_seconds=_seconds(shown.closed_at, shown.ended_at),
            downloads=[DownloadView.of(tier, file) for tier, file in shown.downloads.items()],
            devices=RoundDevices.of(figures.assignments),
            refused=dict(refused),
            bytes=PayloadBytes.of([one.bytes for one in figures.tiers.values()], dimension),
            training=RoundTraining(
                examples=figures.examples, steps=figures.steps, loss_mean=figures.loss_mean
            ),
            evaluation=EvaluationView.of(figures.evaluation),
            tiers=[TierView.of(tier, part, dimension) for tier, part in figures.tiers.items()],
            manifest_sha256=shown.manifest_sha256.hex() if shown.manifest_sha256 else None,
            privacy=RoundPrivacyView.of(reservation),
        )


def _on_one_line(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("give a reason on one line, in characters that a terminal can show")
    return text


class Retraction(Input):
    reason: Annotated[str, AfterValidator(_on_one_line)] = Field(
        min_length=1,
        max_length=500,
        description="Why, for whoever looks at the round later; on one line.",
        examples=["the owner withdrew consent"],
    )


class TrainingMetricsView(Output):
    examples: int = Field(examples=[64])
    steps: int = Field(examples=[4])
    loss_mean: float = Field(examples=[1.83])
    seconds: Seconds

    @classmethod
    def of(cls, metrics: TrainingMetrics | None) -> Self | None:
        if metrics is None:
            return None
        return cls(
            examples=metrics.examples,
            steps=metrics.steps,
            loss_mean=metrics.loss_mean,
            seconds=metrics.seconds,
        )


class AssignmentView(Output):
    """One device's part in a round."""

    id: Id
    device_id: Id
    tier: str = Field(description="The device's when it was assigned.", examples=[""])
    state: AssignmentState
    assigned_at: Time
    expires_at: Time
    ended_at: Time | None
    detail: str = Field(
        description="What the device said where it gave up, or the operator's reason where its "
        "update was retracted.",
        examples=[""],
    )
    payload_bytes_down: int = Field(examples=[671_000])
    payload_bytes_up: int = Field(examples=[665_000])
    wasted_bytes_down: int = Field(
        description="Of these, what no result came of: all but one whole download of a device "
        "that is at work or came to one.",
        examples=[0],
    )
    wasted_bytes_up: int = Field(
        description="Of these, all but one payload of an accepted update.", examples=[0]
    )
    training: TrainingMetricsView | None
    evaluation: EvaluationView | None

    @classmethod
    def of(cls, record: AssignmentRecord) -> Self:
        assignment = record.assignment
        return cls(
            id=assignment.id,
            device_id=assignment.device_id,
            tier=assignment.tier,
            state=assignment.state,
            assigned_at=assignment.assigned_at,
            expires_at=assignment.expires_at,
            ended_at=assignment.ended_at,
            detail=assignment.detail,
            payload_bytes_down=record.payload_bytes_down,
            payload_bytes_up=record.payload_bytes_up,
            wasted_bytes_down=record.wasted_bytes_down,
            wasted_bytes_up=record.wasted_bytes_up,
            training=TrainingMetricsView.of(assignment.training_metrics),
            evaluation=EvaluationView.of(assignment.evaluation),
        )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else max(0.0, (end - start).total_seconds())
