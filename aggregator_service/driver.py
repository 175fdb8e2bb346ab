"""The background loop that opens, folds, closes and publishes rounds; any number of replicas."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from aggregator_service.app.advance_task import AdvanceTask
from aggregator_service.app.publish_round import ConservationBroken
from aggregator_service.app.round_blobs import SweepBlobs
from aggregator_service.domain.tasks import Task, TaskState
from aggregator_service.store.base import LostRace, Store, StoreUnavailable, Transaction
from aggregator_service.store.blobs import BlobMissing, BlobStore
from aggregator_service.telemetry import TASKS_RUNNING
from flasc_core.errors import Refusal

__all__ = ["Driver"]

SWEEP_INTERVAL: Final = timedelta(minutes=10)

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Driver:
    """Every step it takes is safe to repeat and to die in."""

    store: Store
    blobs: BlobStore
    now: Callable[[], datetime]
    interval: timedelta
    _swept_at: datetime | None = field(default=None, init=False)

    def run(self, stop: threading.Event) -> None:
        """Steps until `stop` is set; a step that fails is logged and tried again later."""
        while not stop.is_set():
            try:
                busy = self.step()
            except StoreUnavailable as error:
                log.warning("driver_waits_for_storage", error=str(error))
                busy = False
            except Exception:
                # The one place where a bug in a step ends: a dead driver would stop every task.
                log.exception("driver_step_failed")
                busy = False
            if not busy:
                stop.wait(self.interval.total_seconds())

    def step(self) -> bool:
        """One step of every task; True if any of them has more to do at once."""
        self._sweep_if_due()
        tasks = self.store.read("driver_tasks", _open_tasks)
        TASKS_RUNNING.set(sum(task.state is TaskState.RUNNING for task in tasks))
        # Counted rather than any()ed, so that one busy task does not keep the others waiting.
        return sum(self._advance(task.id) for task in tasks) > 0

    def _advance(self, task_id: UUID) -> bool:
        try:
            return AdvanceTask(store=self.store, blobs=self.blobs, now=self.now)(task_id)
        except (LostRace, BlobMissing) as lost:
            # Another replica was faster; what it did is seen at the next step.
            log.info("driver_lost_race", task_id=str(task_id), error=str(lost))
            return False
        except ConservationBroken as broken:
            log.critical("conservation_broken", task_id=str(task_id), error=str(broken))
            return False
        except Refusal as refused:
            # A payload that was accepted is damaged. An operator may abort the round; other tasks
            # go on.
            log.critical("payload_unreadable", task_id=str(task_id), error=str(refused))
            return False

    def _sweep_if_due(self) -> None:
        now = self.now()
        if self._swept_at is None or now - self._swept_at >= SWEEP_INTERVAL:
            SweepBlobs(store=self.store, blobs=self.blobs)()
            self._swept_at = now


def _open_tasks(tx: Transaction) -> list[Task]:
    return [*tx.tasks.in_state(TaskState.RUNNING), *tx.tasks.in_state(TaskState.PAUSED)]
