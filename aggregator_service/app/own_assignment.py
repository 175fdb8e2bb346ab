"""Finding a device's assignment, the same way in every use case."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from aggregator_service.domain.assignments import Assignment
from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["Work", "own_assignment", "own_work"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An assignment with the round and task it belongs to."""

    assignment: Assignment
    round: Round
    task: Task


def own_assignment(tx: Transaction, device_id: UUID, assignment_id: UUID) -> Assignment:
    """Refuses ASSIGNMENT_UNKNOWN, the same for missing and for somebody else's."""
    assignment = tx.assignments.get(assignment_id)
    if assignment is None or assignment.device_id != device_id:
        raise Refusal(
            Reason.ASSIGNMENT_UNKNOWN, "this device has no such assignment; check in for a new one"
        )
    return assignment


def own_work(tx: Transaction, device_id: UUID, assignment_id: UUID) -> Work:
    """Refuses ASSIGNMENT_UNKNOWN."""
    assignment = own_assignment(tx, device_id, assignment_id)
    round_ = tx.rounds.get(assignment.round_id)
    task = tx.tasks.get(assignment.task_id)
    if round_ is None or task is None:
        raise AssertionError("an assignment's round and task are never removed")
    return Work(assignment=assignment, round=round_, task=task)
