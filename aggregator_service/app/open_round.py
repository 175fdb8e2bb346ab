"""A pending round gets its download and starts collecting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from aggregator_service.app.adapter_files import load_weights
from aggregator_service.domain.downloads import encode_download, select_download
from aggregator_service.domain.events import Event
from aggregator_service.domain.rounds import DownloadFile, Round, RoundState
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import Lock, Store, Transaction
from aggregator_service.store.blobs import BlobStore

__all__ = ["OpenRound"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRound:
    store: Store
    blobs: BlobStore
    now: Callable[[], datetime]

    def __call__(self, task: Task, pending: Round) -> None:
        """Encodes the base version's masked weights once for every device. Safe to repeat."""
        download = self._encode(task, pending)

        def body(tx: Transaction) -> None:
            current = tx.rounds.get(pending.id, Lock.EXCLUSIVE)
            if current is None or current.state is not RoundState.PENDING:
                return
            opened = current.open(self.now(), download)
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

    def _encode(self, task: Task, pending: Round) -> DownloadFile:
        adapter = self.store.read(
            "open_round_adapter", lambda tx: tx.adapters.get(task.id, pending.base_version)
        )
        if adapter is None:
            raise AssertionError("a round's base version was published before the round was made")
        weights = load_weights(self.blobs, adapter)
        vector = select_download(task.config, weights, pending.index)
        payload = encode_download(task.config, vector)
        digest = sha256(payload).digest()
        key = f"tasks/{task.id}/downloads/{digest.hex()}"
        self.blobs.put(key, payload)
        return DownloadFile(key=key, sha256=digest, size_bytes=len(payload), nnz=vector.nnz)
