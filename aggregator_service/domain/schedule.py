"""What follows when a round has ended: another round, a last evaluation, or the task's end."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from aggregator_service.domain.assignments import Evaluation
from aggregator_service.domain.rounds import Round, RoundKind, RoundState
from aggregator_service.domain.tasks import Ending, Task

__all__ = ["first_round", "following_round"]


def first_round(task: Task, round_id: UUID, now: datetime) -> Round:
    return _pending(task, round_id, now, number=1, version=0, kind=RoundKind.TRAINING)


def following_round(
    task: Task,
    ended: Round,
    evaluation: Evaluation | None,
    round_id: UUID,
    now: datetime,
    *,
    budget_is_spent: bool = False,
) -> Round | None:
    """The round after `ended`, or None where the task is done.

    `evaluation` is what devices counted on the version that `ended` started from. Every published
    round adds one version, so the version number counts them. `budget_is_spent` says that once
    `ended` is published a private task can pay for no other.
    """
    if ended.kind is RoundKind.EVALUATION:
        return None
    published = ended.state is RoundState.PUBLISHED
    version = ended.base_version + 1 if published else ended.base_version
    ending = task.config.ending
    kind = RoundKind.TRAINING
    met = _meets_target(ending, evaluation) or budget_is_spent
    if version >= ending.rounds or (published and met):
        if not ending.final_evaluation:
            return None
        kind = RoundKind.EVALUATION
    return _pending(task, round_id, now, number=ended.number + 1, version=version, kind=kind)


def _meets_target(ending: Ending, evaluation: Evaluation | None) -> bool:
    if ending.target_accuracy is None or evaluation is None or evaluation.total == 0:
        return False
    return evaluation.correct >= ending.target_accuracy * evaluation.total


def _pending(
    task: Task, round_id: UUID, now: datetime, *, number: int, version: int, kind: RoundKind
) -> Round:
    return Round(
        id=round_id,
        task_id=task.id,
        number=number,
        kind=kind,
        state=RoundState.PENDING,
        policy=task.config.policy,
        base_version=version,
        created_at=now,
    )
