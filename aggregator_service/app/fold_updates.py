"""Accepted updates go into exact integer accumulators, a batch at a time, under leases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Final
from uuid import UUID, uuid4

from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import Task
from aggregator_service.domain.updates import FoldProgress, Update
from aggregator_service.store.base import LostRace, Store, Transaction
from aggregator_service.store.blobs import BlobMissing, BlobStore
from flasc_core.fold import Accumulator
from flasc_core.wire import DecodeLimits, decode_segments

__all__ = ["FoldUpdates", "load_accumulator"]

BATCH: Final = 64
# How long a round waits for a driver that died; a slow batch is cut short well before.
LEASE: Final = timedelta(seconds=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldUpdates:
    store: Store
    blobs: BlobStore
    now: Callable[[], datetime]

    def __call__(self, task: Task, current: Round) -> int:
        """Folds up to one batch per shard; returns how many updates.

        Any number of drivers may do this at once. A lease keeps them from doing the same work
        twice; the compare-and-set on its token keeps them from counting it twice.
        """
        return sum(
            self._fold_shard(task, current, shard) for shard in range(task.config.fold_shards)
        )

    def _fold_shard(self, task: Task, current: Round, shard: int) -> int:
        token = uuid4()
        leased = self.store.run(
            "lease_shard",
            lambda tx: tx.accumulators.lease(
                current.id, shard, token=token, now=self.now(), duration=LEASE
            ),
        )
        if leased is None:
            return 0
        try:
            return self._fold_batch(task, leased, token)
        except (LostRace, BlobMissing):
            # Fenced out: whoever has the lease now folds the same updates.
            return 0

    def _fold_batch(self, task: Task, leased: FoldProgress, token: UUID) -> int:
        enough = self.now() + LEASE / 3
        batch = self.store.read(
            "pending_updates",
            lambda tx: tx.updates.pending(leased.round_id, leased.shard, BATCH),
        )
        if not batch:
            self.store.run(
                "release_shard",
                lambda tx: tx.accumulators.release(leased.round_id, leased.shard, token=token),
            )
            return 0
        dim = task.config.layout.dim
        accumulator = load_accumulator(self.blobs, leased, dim)
        ids: list[UUID] = []
        for update in batch:
            self._add(task, accumulator, update)
            ids.append(update.id)
            # Otherwise two drivers with large updates would fence each other out for ever.
            if self.now() >= enough:
                break
        data = accumulator.to_bytes()
        folder = f"rounds/{leased.round_id}/accumulators"
        key = f"{folder}/{leased.shard}-{sha256(data).hexdigest()}"
        self.blobs.put(key, data)
        folded = replace(leased, key=key, updates_folded=leased.updates_folded + len(ids))

        def body(tx: Transaction) -> None:
            tx.accumulators.commit(folded, token=token)
            tx.updates.mark_folded(ids)

        self.store.run("fold_batch", body)
        if leased.key is not None:
            self.blobs.delete(leased.key)
        return len(ids)

    def _add(self, task: Task, accumulator: Accumulator, update: Update) -> None:
        payload = update.payload
        if payload is None:
            if update.payload_key is None:
                raise AssertionError("a pending update has its payload")
            payload = self.blobs.get(update.payload_key)
        limits = DecodeLimits(
            dim=task.config.layout.dim,
            max_nnz=update.nnz,
            max_abs_value=task.config.limits.max_abs_value,
        )
        # A segment at a time, so that no whole vector is held beside the sums.
        accumulator.add_parts(
            partial(decode_segments, payload, limits), update.weight, update.id.bytes
        )


def load_accumulator(blobs: BlobStore, progress: FoldProgress, dim: int) -> Accumulator:
    if progress.key is None:
        return Accumulator.zeros(dim)
    return Accumulator.from_bytes(blobs.get(progress.key))
