"""Updates go into exact integer accumulators, and retracted ones out of them, under leases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Final
from uuid import UUID, uuid4

from aggregator_service.app.round_blobs import drop_payload
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
        """Adds or takes out up to one batch per shard; returns how many updates.

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
            # Fenced out, or an update was retracted meanwhile: the same work is done anew, by
            # whoever has the lease, or by the next who takes it.
            self._release(leased, token)
            return 0

    def _fold_batch(self, task: Task, leased: FoldProgress, token: UUID) -> int:
        enough = self.now() + LEASE / 3
        batch = self.store.read(
            "pending_updates",
            lambda tx: tx.updates.pending(leased.round_id, leased.shard, BATCH),
        )
        if not batch:
            self._release(leased, token)
            return 0
        dim = task.config.layout.dim
        accumulator = load_accumulator(self.blobs, leased, dim)
        added: list[Update] = []
        taken_out: list[Update] = []
        for update in batch:
            self._move(task, accumulator, update)
            (taken_out if update.is_retracted else added).append(update)
            # Otherwise two drivers with large updates would fence each other out for ever.
            if self.now() >= enough:
                break
        data = accumulator.to_bytes()
        folder = f"rounds/{leased.round_id}/accumulators"
        # The version keeps a key from ever coming back: taking out what was added restores the
        # very bytes of before, which a slow driver may be about to delete.
        key = f"{folder}/{leased.shard}-{leased.version + 1}-{sha256(data).hexdigest()}"
        self.blobs.put(key, data)
        held = leased.updates_folded + len(added) - len(taken_out)
        folded = replace(leased, key=key, updates_folded=held)

        def body(tx: Transaction) -> None:
            tx.accumulators.commit(folded, token=token)
            tx.updates.mark_folded([update.id for update in added])
            tx.updates.mark_retracted([update.id for update in taken_out])

        self.store.run("fold_batch", body)
        for update in taken_out:
            drop_payload(self.blobs, update)
        if leased.key is not None:
            self.blobs.delete(leased.key)
        return len(added) + len(taken_out)

    def _release(self, leased: FoldProgress, token: UUID) -> None:
        self.store.run(
            "release_shard",
            lambda tx: tx.accumulators.release(leased.round_id, leased.shard, token=token),
        )

    def _move(self, task: Task, accumulator: Accumulator, update: Update) -> None:
        payload = update.payload
        if payload is None:
            if update.payload_key is None:
                raise AssertionError("a pending update has its payload")
            payload = self.blobs.get(update.payload_key)
        # Nothing stricter than what it was accepted by: a receipt is never taken back.
        limits = DecodeLimits(
            dim=task.config.layout.dim,
            max_nnz=task.config.layout.dim,
            max_abs_value=task.config.limits.max_abs_value,
            was_read=True,
        )
        # A segment at a time, so that no whole vector is held beside the sums.
        parts = partial(decode_segments, payload, limits)
        move = accumulator.subtract_parts if update.is_retracted else accumulator.add_parts
        move(parts, update.weight, update.id.bytes, task.config.fold_clip_norm)


def load_accumulator(blobs: BlobStore, progress: FoldProgress, dim: int) -> Accumulator:
    if progress.key is None:
        return Accumulator.zeros(dim)
    return Accumulator.from_bytes(blobs.get(progress.key))
