"""What a private task's next round costs, and whom it takes, before it opens."""

from __future__ import annotations

import secrets
from datetime import datetime

from aggregator_service.domain.privacy import Reservation, draw_cohort
from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import Task, TaskConfig
from aggregator_service.store.base import LostRace, Store, Transaction
from flasc_core.noise import SEED_BYTES

__all__ = ["keep_reservation", "plan_reservation"]


def plan_reservation(store: Store, task: Task, pending: Round, now: datetime) -> Reservation | None:
    """Return what the round would reserve; None where too few devices are enrolled to draw from.

    Computed outside transactions: an epsilon can take a second.
    """
    privacy, goal = task.config.privacy, task.config.policy.goal
    if privacy is None:
        raise AssertionError("a task without privacy reserves nothing")
    held = store.read("reserve_look", lambda tx: tx.reservations.budget(task.id))
    rounds = held.rounds_reserved + 1
    draw = None
    if privacy.mode.draws:
        enrolled = store.read("reserve_devices", lambda tx: tx.devices.enrolled_before(now))
        draw = draw_cohort(privacy, goal, enrolled, secrets.token_bytes(SEED_BYTES), now)
        if draw is None:
            return None
    return Reservation(
        round_id=pending.id,
        task_id=task.id,
        rounds=rounds,
        epsilon=privacy.epsilon_after(rounds, goal),
        is_last=privacy.epsilon_after(rounds + 1, goal) > privacy.epsilon,
        draw=draw,
    )


def keep_reservation(tx: Transaction, config: TaskConfig, planned: Reservation) -> bool:
    """Reserves what was planned; False, with nothing changed, where the budget does not pay for it.

    Raises LostRace where another round has reserved something since.
    """
    held = tx.reservations.budget(planned.task_id)
    if held.rounds_reserved + 1 != planned.rounds:
        raise LostRace(f"round {planned.round_id} is not the next to reserve")
    if config.privacy is None or planned.epsilon > config.privacy.epsilon:
        return False
    tx.reservations.add(planned)
    return True
