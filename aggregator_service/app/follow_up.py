"""What a finished round leaves behind: the next round, or a completed task."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from aggregator_service.domain.events import Event
from aggregator_service.domain.rounds import Round
from aggregator_service.domain.schedule import following_round
from aggregator_service.domain.tasks import TaskState
from aggregator_service.store.base import Transaction

__all__ = ["follow_up"]


def follow_up(tx: Transaction, task_id: UUID, ended: Round, now: datetime) -> None:
    """Adds the round after `ended` or completes the task, in the caller's transaction.

    A paused task gets its next round too and keeps it waiting; one that has ended gets none.
    """
    task = tx.tasks.get(task_id)
    if task is None or task.state.is_final:
        return
    evaluation = None
    if task.config.ending.target_accuracy is not None:
        evaluation = tx.assignments.evaluation(ended.id)
    reservation = tx.reservations.get(ended.id)
    following = following_round(
        task,
        ended,
        evaluation,
        uuid4(),
        now,
        budget_is_spent=reservation is not None and reservation.is_last,
    )
    if following is not None:
        tx.rounds.add(following)
        return
    if task.state is TaskState.RUNNING:
        tx.tasks.save(task.move_to(TaskState.COMPLETED))
        tx.events.append(Event(task_id=task.id, round_id=None, state=TaskState.COMPLETED, at=now))
