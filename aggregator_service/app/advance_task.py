"""One step of a task's current round, whatever it is; what the driver repeats.

PENDING → OpenRound · COLLECTING → FoldUpdates, CloseRound · CLOSING → BeginFolding
FOLDING → FoldUpdates, PublishRound · ended → blobs dropped, follow up
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from aggregator_service.app.begin_folding import BeginFolding
from aggregator_service.app.close_round import CloseRound
from aggregator_service.app.fold_updates import FoldUpdates
from aggregator_service.app.follow_up import follow_up
from aggregator_service.app.open_round import OpenRound
from aggregator_service.app.publish_round import PublishRound
from aggregator_service.app.round_blobs import drop_round_blobs
from aggregator_service.domain.rounds import Round, RoundKind, RoundState
from aggregator_service.domain.tasks import Task, TaskState
from aggregator_service.store.base import Lock, Store, Transaction
from aggregator_service.store.blobs import BlobStore

__all__ = ["AdvanceTask"]

# While a round collects, updates are folded in batches of at least this many.
EAGER_BATCH: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceTask:
    store: Store
    blobs: BlobStore
    now: Callable[[], datetime]

    def __call__(self, task_id: UUID) -> bool:
        """Does what can be done now; True if it did anything and more may follow."""
        found = self.store.read("advance_look", lambda tx: _current(tx, task_id))
        if found is None:
            return False
        task, current = found
        match current.state:
            case RoundState.PENDING:
                return self._open(task, current)
            case RoundState.COLLECTING:
                return self._collect(task, current)
            case RoundState.CLOSING:
                BeginFolding(store=self.store, now=self.now)(current)
                return True
            case RoundState.FOLDING:
                return self._finish(task, current)
            case _:
                return self._go_on(task, current)

    def _open(self, task: Task, pending: Round) -> bool:
        if task.state is not TaskState.RUNNING:
            return False
        return OpenRound(store=self.store, blobs=self.blobs, now=self.now)(task, pending)

    def _collect(self, task: Task, collecting: Round) -> bool:
        folded = 0
        if collecting.kind is RoundKind.TRAINING and self._is_worth_folding(collecting):
            folded = self._fold(task, collecting)
        closed = CloseRound(store=self.store, now=self.now)(collecting)
        return closed or folded > 0

    def _finish(self, task: Task, folding: Round) -> bool:
        if self._waiting(folding) > 0:
            return self._fold(task, folding) > 0
        PublishRound(store=self.store, blobs=self.blobs, now=self.now)(task, folding)
        drop_round_blobs(self.blobs, folding.id)
        return True

    def _go_on(self, task: Task, ended: Round) -> bool:
        """After an aborted or evaluated round, or a completion that a pause held back."""
        if task.state is not TaskState.RUNNING:
            return False
        drop_round_blobs(self.blobs, ended.id)

        def body(tx: Transaction) -> None:
            current = tx.rounds.get(ended.id, Lock.EXCLUSIVE)
            latest = tx.rounds.latest(task.id)
            if current is not None and latest is not None and latest.id == current.id:
                follow_up(tx, task.id, current, self.now())

        self.store.run("follow_up", body)
        return True

    def _is_worth_folding(self, collecting: Round) -> bool:
        # A retraction waits for nobody: the payload is there only to be taken out.
        return self.store.read(
            "fold_look",
            lambda tx: (
                tx.updates.pending_count(collecting.id) >= EAGER_BATCH
                or tx.updates.retracting_count(collecting.id) > 0
            ),
        )

    def _waiting(self, current: Round) -> int:
        return self.store.read("pending_count", lambda tx: tx.updates.pending_count(current.id))

    def _fold(self, task: Task, current: Round) -> int:
        return FoldUpdates(store=self.store, blobs=self.blobs, now=self.now)(task, current)


def _current(tx: Transaction, task_id: UUID) -> tuple[Task, Round] | None:
    task = tx.tasks.get(task_id)
    current = tx.rounds.latest(task_id)
    if task is None or current is None or task.state.is_final:
        return None
    return task, current
