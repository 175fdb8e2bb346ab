"""An operator pauses, resumes or cancels a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from aggregator_service.app.abort_round import abort_open_round
from aggregator_service.domain.events import Event
from aggregator_service.domain.tasks import Task, TaskState
from aggregator_service.store.base import Store, Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["SteerTask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerTask:
    store: Store
    now: Callable[[], datetime]

    def __call__(self, task_id: UUID, state: TaskState) -> Task:
        """Moves the task to `state`; repeating is harmless.

        A paused task opens no round and gives no assignment, while updates already on their way
        still count. Cancelling aborts the round in progress. Refuses TASK_UNKNOWN and TASK_STATE.
        """
        now = self.now()

        def body(tx: Transaction) -> Task:
            task = tx.tasks.get(task_id)
            if task is None:
                raise Refusal(Reason.TASK_UNKNOWN, "no such task", task_id=str(task_id))
            if task.state is state:
                return task
            moved = task.move_to(state)
            tx.tasks.save(moved)
            if state is TaskState.CANCELLED:
                self._abort_latest(tx, task_id, now)
            tx.events.append(Event(task_id=task.id, round_id=None, state=state, at=now))
            return moved

        return self.store.run("steer_task", body)

    @staticmethod
    def _abort_latest(tx: Transaction, task_id: UUID, now: datetime) -> None:
        """Whoever adds a round holds the one before: once that is ours, the next may be there."""
        aborted = None
        while (latest := tx.rounds.latest(task_id)) is not None and latest.id != aborted:
            abort_open_round(tx, latest.id, now)
            aborted = latest.id
