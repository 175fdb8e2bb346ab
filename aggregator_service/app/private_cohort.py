"""Which devices a private task's round takes."""

from __future__ import annotations

from uuid import UUID

from aggregator_service.domain.rounds import Round, RoundKind
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import Transaction

__all__ = ["has_taken_part", "may_take_part", "seats_of"]


def may_take_part(tx: Transaction, task: Task, current: Round, device_id: UUID) -> bool:
    """Whether the task's privacy lets the device into the round; any may evaluate."""
    if task.config.privacy is None or current.kind is RoundKind.EVALUATION:
        return True
    if has_taken_part(tx, task, device_id):
        return False
    reservation = tx.reservations.get(current.id)
    draw = None if reservation is None else reservation.draw
    if draw is None:
        return True
    device = tx.devices.get(device_id)
    return device is not None and draw.takes(device_id, device.enrolled_at)


def has_taken_part(tx: Transaction, task: Task, device_id: UUID) -> bool:
    """Whether the device has taken part as often as a cap on participations allows."""
    privacy = task.config.privacy
    if privacy is None or privacy.max_participations is None:
        return False
    return tx.assignments.participations(task.id, device_id) >= privacy.max_participations


def seats_of(tx: Transaction, current: Round) -> int:
    """How many devices the round takes: all that were drawn, or as many as its policy says."""
    reservation = tx.reservations.get(current.id)
    if reservation is None or reservation.draw is None:
        return current.policy.seats
    return reservation.draw.devices
