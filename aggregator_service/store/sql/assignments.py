"""Assignments and their byte ledger in SQL."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, select, update

from aggregator_service.domain.assignments import (
    Assignment,
    AssignmentState,
    Evaluation,
    TrainingMetrics,
)
from aggregator_service.domain.rounds import RoundState
from aggregator_service.store.base import AssignmentRecord, LostRace
from aggregator_service.store.figures import ByteFigures, RoundFigures, TierFigures, TierRound
from aggregator_service.store.sql.statements import insert_if_absent
from aggregator_service.store.sql.tables import assignments, rounds, updates
from flasc_core.layout import Role

__all__ = ["SqlAssignments"]


@dataclass(frozen=True, slots=True)
class SqlAssignments:
    connection: Connection

    def add_if_absent(self, assignment: Assignment) -> bool:
        row = _to_row(assignment) | {"payload_bytes_down": 0, "payload_bytes_up": 0}
        return insert_if_absent(self.connection, assignments, row, "round_id", "device_id")

    def get(self, assignment_id: UUID) -> Assignment | None:
        query = select(assignments).where(assignments.c.id == assignment_id)
        row = self.connection.execute(query).first()
        return None if row is None else _from_row(row)

    def of_device(self, round_id: UUID, device_id: UUID) -> Assignment | None:
        query = select(assignments).where(
            assignments.c.round_id == round_id, assignments.c.device_id == device_id
        )
        row = self.connection.execute(query).first()
        return None if row is None else _from_row(row)

    def save(self, changed: Assignment) -> None:
        query = update(assignments).where(
            assignments.c.id == changed.id, assignments.c.revision == changed.revision
        )
        row = _to_row(changed) | {"revision": changed.revision + 1}
        if self.connection.execute(query.values(row)).rowcount != 1:
            raise LostRace(f"assignment {changed.id} has moved past revision {changed.revision}")

    def expire(self, round_id: UUID, now: datetime, *, all_open: bool = False) -> int:
        query = update(assignments).where(
            assignments.c.round_id == round_id,
            assignments.c.state == AssignmentState.TRAINING.value,
        )
        if not all_open:
            query = query.where(assignments.c.expires_at <= now)
        expired = query.values(
            state=AssignmentState.EXPIRED.value,
            ended_at=now,
            revision=assignments.c.revision + 1,
        )
        return self.connection.execute(expired).rowcount

    def count(self, round_id: UUID, state: AssignmentState) -> int:
        query = select(func.count()).where(
            assignments.c.round_id == round_id, assignments.c.state == state.value
        )
        return int(self.connection.execute(query).scalar_one())

    def participations(self, task_id: UUID, device_id: UUID) -> int:
        taken: int = self.connection.execute(
            _over_accepted(func.count(), task_id, device_id)
        ).scalar_one()
        return taken

    def tier_steps(self, task_id: UUID, device_id: UUID) -> int:
        query = select(func.coalesce(func.max(assignments.c.tier_steps), 0)).where(
            assignments.c.task_id == task_id,
            assignments.c.device_id == device_id,
            assignments.c.state == AssignmentState.ACCEPTED.value,
        )
        return int(self.connection.execute(query).scalar_one())

    def last_accepted_round(self, task_id: UUID, device_id: UUID) -> int | None:
        query = _over_accepted(func.max(rounds.c.number), task_id, device_id)
        number: int | None = self.connection.execute(query).scalar_one()
        return number

    def add_bytes(self, assignment_id: UUID, *, down: int = 0, up: int = 0) -> None:
        query = update(assignments).where(assignments.c.id == assignment_id)
        self.connection.execute(
            query.values(
                payload_bytes_down=assignments.c.payload_bytes_down + down,
                payload_bytes_up=assignments.c.payload_bytes_up + up,
            )
        )

    def evaluation(self, round_id: UUID) -> Evaluation | None:
        query = select(*_EVALUATED).where(assignments.c.round_id == round_id)
        return _summed_evaluation(self.connection.execute(query).one())

    def figures(self, round_ids: Collection[UUID]) -> Mapping[UUID, RoundFigures]:
        numbers = self._by_round(_STATES.group_by(assignments.c.state), round_ids)
        sums = self._by_round(_SUMS, round_ids)
        by_tier = _TIERS.group_by(assignments.c.tier).order_by(assignments.c.tier)
        tiers = self._by_round(by_tier, round_ids)
        return {
            round_id: _figures_from_rows(numbers[round_id], sums[round_id], tiers[round_id])
            for round_id in round_ids
        }

    def _by_round(
        self, query: Select[Any], round_ids: Collection[UUID]
    ) -> defaultdict[UUID, list[Row[Any]]]:
        """The rows of a sum for every one of these rounds, in one statement."""
        of_rounds = (
            query.add_columns(assignments.c.round_id)
            .where(assignments.c.round_id.in_(round_ids))
            .group_by(assignments.c.round_id)
        )
        found: defaultdict[UUID, list[Row[Any]]] = defaultdict(list)
        for row in self.connection.execute(of_rounds):
            found[row.round_id].append(row)
        return found

    def page(self, round_id: UUID, *, limit: int, after: UUID | None) -> Sequence[AssignmentRecord]:
        query = (
            select(assignments, _wasted_down.label("wasted_down"), _wasted_up.label("wasted_up"))
            .select_from(_joined)
            .where(assignments.c.round_id == round_id)
        )
        if after is not None:
            query = query.where(assignments.c.id > after)
        query = query.order_by(assignments.c.id).limit(limit)
        return [
            AssignmentRecord(
                assignment=_from_row(row),
                payload_bytes_down=row.payload_bytes_down,
                payload_bytes_up=row.payload_bytes_up,
                wasted_bytes_down=row.wasted_down,
                wasted_bytes_up=row.wasted_up,
            )
            for row in self.connection.execute(query)
        ]

    def rounds_by_tier(self, task_id: UUID) -> Mapping[str, Sequence[TierRound]]:
        parts = (
            _TIERS.add_columns(assignments.c.round_id)
            .where(assignments.c.task_id == task_id)
            .group_by(assignments.c.round_id, assignments.c.tier)
            .subquery()
        )
        query = (
            select(parts, rounds.c.number, rounds.c.base_version)
            .join(rounds, rounds.c.id == parts.c.round_id)
            .order_by(rounds.c.number)
        )
        found: defaultdict[str, list[TierRound]] = defaultdict(list)
        for row in self.connection.execute(query):
            part = TierRound(
                number=row.number, base_version=row.base_version, figures=_tier_from_row(row)
            )
            found[row.tier].append(part)
        # Not by the database, which sorts by its own collation.
        return dict(sorted(found.items()))


# Columns of how an update's values divide.
_VALUES: Final[Mapping[Role, str]] = MappingProxyType(
    {Role.LORA_A: "values_lora_a", Role.LORA_B: "values_lora_b", Role.HEAD: "values_head"}
)
_accepted = assignments.c.state == AssignmentState.ACCEPTED.value
_EVALUATED = (
    func.count(assignments.c.evaluation_total).label("evaluations"),
    func.sum(assignments.c.evaluation_correct).label("correct"),
    func.sum(assignments.c.evaluation_total).label("total"),
    func.sum(assignments.c.evaluation_loss_sum).label("loss_sum"),
)
_STATES = select(assignments.c.state, func.count().label("number"))
_SUMS = select(
    func.coalesce(func.sum(case((_accepted, assignments.c.examples))), 0).label("examples"),
    func.coalesce(func.sum(case((_accepted, assignments.c.steps))), 0).label("steps"),
    func.coalesce(
        func.sum(case((_accepted, assignments.c.loss_mean * assignments.c.examples))), 0.0
    ).label("weighted_loss"),
    *_EVALUATED,
)


_joined = assignments.outerjoin(
    updates,
    (updates.c.round_id == assignments.c.round_id)
    & (updates.c.device_id == assignments.c.device_id),
)
_down, _size = assignments.c.payload_bytes_down, assignments.c.download_size_bytes
_uses_download = assignments.c.state.in_(
    [state.value for state in AssignmentState if state.uses_download]
)
_wasted_down = case((~_uses_download, _down), (_down > _size, _down - _size), else_=0)
_wasted_up = assignments.c.payload_bytes_up - case(
    (_accepted, func.coalesce(updates.c.payload_bytes, 0)), else_=0
)
_TIERS = select(
    func.coalesce(func.sum(_down), 0).label("down"),
    func.coalesce(func.sum(assignments.c.payload_bytes_up), 0).label("up"),
    func.coalesce(func.sum(_wasted_down), 0).label("wasted_down"),
    func.coalesce(func.sum(_wasted_up), 0).label("wasted_up"),
    func.coalesce(func.max(_size), 0).label("download_size"),
    func.count(case((_accepted, 1))).label("accepted"),
    assignments.c.tier,
    func.count().label("assigned"),
    *_EVALUATED,
    *(func.sum(assignments.c[name]).label(name) for name in _VALUES.values()),
).select_from(_joined)


def _figures_from_rows(
    numbers: Sequence[Row[Any]], sums: Sequence[Row[Any]], tiers: Sequence[Row[Any]]
) -> RoundFigures:
    """`sums` has one row, or none where the round has no assignments."""
    by_state = {AssignmentState(row.state): int(row.number) for row in numbers}
    examples = sum(int(row.examples) for row in sums)
    weighted_loss = sum(float(row.weighted_loss) for row in sums)
    return RoundFigures(
        assignments={state: by_state.get(state, 0) for state in AssignmentState},
        examples=examples,
        steps=sum(int(row.steps) for row in sums),
        loss_mean=weighted_loss / examples if examples else None,
        evaluation=_summed_evaluation(sums[0]) if sums else None,
        tiers={row.tier: _tier_from_row(row) for row in tiers},
    )


def _tier_from_row(row: Row[Any]) -> TierFigures:
    return TierFigures(
        assigned=int(row.assigned),
        bytes=_bytes_from_row(row),
        evaluation=_summed_evaluation(row),
        values_by_role={role: int(getattr(row, name)) for role, name in _VALUES.items()},
    )


def _bytes_from_row(row: Row[Any]) -> ByteFigures:
    return ByteFigures(
        down=int(row.down),
        up=int(row.up),
        wasted_down=int(row.wasted_down),
        wasted_up=int(row.wasted_up),
        download_size_bytes=int(row.download_size),
        updates_accepted=int(row.accepted),
    )


def _summed_evaluation(sums: Row[Any]) -> Evaluation | None:
    if not sums.evaluations:
        return None
    return Evaluation(
        correct=int(sums.correct), total=int(sums.total), loss_sum=float(sums.loss_sum)
    )


def _to_row(value: Assignment) -> dict[str, object]:
    training, evaluation = value.training_metrics, value.evaluation
    return {
        "id": value.id,
        "task_id": value.task_id,
        "round_id": value.round_id,
        "device_id": value.device_id,
        "state": value.state.value,
        "download_sha256": value.download_sha256,
        "download_size_bytes": value.download_size_bytes,
        "tier": value.tier,
        "tier_steps": value.tier_steps,
        "training_seed": _signed(value.training_seed),
        "assigned_at": value.assigned_at,
        "expires_at": value.expires_at,
        "ended_at": value.ended_at,
        "detail": value.detail,
        "examples": None if training is None else training.examples,
        "steps": None if training is None else training.steps,
        "loss_mean": None if training is None else _finite(training.loss_mean),
        "seconds": None if training is None else _finite(training.seconds),
        "evaluation_correct": None if evaluation is None else evaluation.correct,
        "evaluation_total": None if evaluation is None else evaluation.total,
        "evaluation_loss_sum": None if evaluation is None else _finite(evaluation.loss_sum),
        "revision": value.revision,
        **{name: value.values_by_role.get(role, 0) for role, name in _VALUES.items()},
    }


def _from_row(row: Row[Any]) -> Assignment:
    return Assignment(
        id=row.id,
        task_id=row.task_id,
        round_id=row.round_id,
        device_id=row.device_id,
        state=AssignmentState(row.state),
        download_sha256=row.download_sha256,
        download_size_bytes=row.download_size_bytes,
        tier=row.tier,
        tier_steps=row.tier_steps,
        training_seed=row.training_seed % _WORD,
        assigned_at=row.assigned_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
        detail=row.detail,
        training_metrics=_training_from_row(row),
        evaluation=_evaluation_from_row(row),
        values_by_role={
            role: count for role, name in _VALUES.items() if (count := getattr(row, name))
        },
        revision=row.revision,
    )


def _training_from_row(row: Row[Any]) -> TrainingMetrics | None:
    if row.examples is None:
        return None
    return TrainingMetrics(
        examples=row.examples, steps=row.steps, loss_mean=row.loss_mean, seconds=row.seconds
    )


def _evaluation_from_row(row: Row[Any]) -> Evaluation | None:
    if row.evaluation_total is None:
        return None
    return Evaluation(
        correct=row.evaluation_correct,
        total=row.evaluation_total,
        loss_sum=row.evaluation_loss_sum,
    )


_WORD = 1 << 64


def _signed(seed: int) -> int:
    return seed - _WORD if seed >= _WORD >> 1 else seed


def _finite(number: float) -> float:
    """SQLite would store NaN as NULL; callers refuse such numbers before they come here."""
    if not math.isfinite(number):
        raise ValueError(f"{number} can not be stored")
    return number


def _over_accepted(what: ColumnElement[Any], task_id: UUID, device_id: UUID) -> Select[Any]:
    """Over the rounds in which an update of this device was accepted, and that were not aborted."""
    return (
        select(what)
        .select_from(assignments.join(rounds, rounds.c.id == assignments.c.round_id))
        .where(
            assignments.c.task_id == task_id,
            assignments.c.device_id == device_id,
            assignments.c.state == AssignmentState.ACCEPTED.value,
            rounds.c.state != RoundState.ABORTED.value,
        )
    )
