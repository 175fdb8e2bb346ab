"""A pending round gets its download and starts collecting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from aggregator_service.app.adapter_files import load_masters
from aggregator_service.app.reserve_budget import keep_reservation, plan_reservation
from aggregator_service.domain.downloads import encode_download, select_download
from aggregator_service.domain.events import Event
from aggregator_service.domain.rounds import DownloadFile, Round, RoundKind, RoundState
from aggregator_service.domain.tasks import Task, TaskState
from aggregator_service.store.base import Lock, Store, Transaction
from aggregator_service.store.blobs import BlobStore
from flasc_core.methods import mask_composition

__all__ = ["OpenRound"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRound:
    store: Store
    blobs: BlobStore
    now: Callable[[], datetime]

    def __call__(self, task: Task, pending: Round) -> bool:
        """Encodes the base version's masked weights once for every tier. Safe to repeat.

        A round that starts over from the same version gets the same files. A private task's round
        reserves its part of the budget as it opens; where the budget does not pay for it, the task
        is paused instead. False where a drawn cohort has too few devices to be drawn from yet.
        """
        planned = None
        if task.config.privacy is not None and pending.kind is RoundKind.TRAINING:
            planned = plan_reservation(self.store, task, pending, self.now())
            if planned is None:
                return False
        before = self.store.read("open_round_look", lambda tx: _look(tx, task, pending))
        downloads = before.downloads if before is not None else {}
        if not downloads:
            tiers = task.config.tier_names
            downloads = {tier: self._encode(task, pending, tier) for tier in tiers}

        def body(tx: Transaction) -> None:
            current = tx.rounds.get(pending.id, Lock.EXCLUSIVE)
            if current is None or current.state is not RoundState.PENDING:
                return
            # An operator may have paused it while a reservation or a download was made.
            steered = tx.tasks.get(task.id)
            if steered is None or steered.state is not TaskState.RUNNING:
                return
            if planned is not None and not keep_reservation(tx, task.config, planned):
                _pause(tx, task.id, self.now())
                return
            opened = current.open(self.now(), downloads)
            tx.rounds.save(opened)
            tx.accumulators.ensure(opened.id, task.config.fold_shards)
            tx.events.append(
                Event(
                    task_id=task.id,
                    round_id=opened.id,
                    state=opened.state,
                    at=opened.opened_at or opened.created_at,
                )
            )

        self.store.run("open_round", body)
        return True

    def _encode(self, task: Task, pending: Round, tier: str) -> DownloadFile:
        masters = load_masters(self.store, self.blobs, task, pending.base_version, tier)
        vector = select_download(task.config, masters)
        payload = encode_download(task.config, vector)
        digest = sha256(payload).digest()
        key = f"tasks/{task.id}/downloads/{digest.hex()}"
        self.blobs.put(key, payload)
        return DownloadFile(
            key=key,
            sha256=digest,
            size_bytes=len(payload),
            nnz=vector.nnz,
            values_by_role=mask_composition(task.config.layout, vector.indices),
        )


def _pause(tx: Transaction, task_id: UUID, now: datetime) -> None:
    task = tx.tasks.get(task_id)
    if task is not None and task.state is TaskState.RUNNING:
        tx.tasks.save(task.move_to(TaskState.PAUSED))
        tx.events.append(Event(task_id=task.id, round_id=None, state=TaskState.PAUSED, at=now))


def _look(tx: Transaction, task: Task, pending: Round) -> Round | None:
    """The round before, if it started from the same version."""
    before = tx.rounds.page(task.id, limit=1, before_number=pending.number)
    return next((one for one in before if one.base_version == pending.base_version), None)
