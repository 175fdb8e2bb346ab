"""Updates, accumulators and adapters in memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID

from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.updates import FoldProgress, Update, UpdateState
from aggregator_service.store.base import LedgerSummary, LostRace
from aggregator_service.store.memory.tables import Tables, require

__all__ = ["MemoryAccumulators", "MemoryAdapters", "MemoryUpdates"]


@dataclass(frozen=True, slots=True)
class MemoryUpdates:
    tables: Tables

    def add_if_absent(self, update: Update) -> bool:
        if self.get(update.round_id, update.device_id) is not None:
            return False
        updates = self.tables.updates
        require(update.id not in updates, f"update {update.id} exists already")
        require(update.assignment_id in self.tables.assignments, "the update has no assignment")
        require((update.payload is None) != (update.payload_key is None), "a payload is kept once")
        updates[update.id] = replace(update, sequence=len(updates) + 1)
        return True

    def get(self, round_id: UUID, device_id: UUID) -> Update | None:
        return next((one for one in self._of_round(round_id) if one.device_id == device_id), None)

    def pending(self, round_id: UUID, shard: int, limit: int) -> Sequence[Update]:
        return [one for one in self._pending(round_id) if one.shard == shard][:limit]

    def pending_count(self, round_id: UUID) -> int:
        return len(self._pending(round_id))

    def retracting_count(self, round_id: UUID) -> int:
        return sum(one.state is UpdateState.RETRACTING for one in self._of_round(round_id))

    def mark_folded(self, update_ids: Sequence[UUID]) -> None:
        for identifier in update_ids:
            update = self._in_state(identifier, UpdateState.ACCEPTED)
            self.tables.updates[identifier] = replace(update, state=UpdateState.FOLDED)

    def retract(self, update: Update) -> Update:
        retracted = self._in_state(update.id, update.state).retract()
        self.tables.updates[update.id] = retracted
        return retracted

    def mark_retracted(self, update_ids: Sequence[UUID]) -> None:
        for identifier in update_ids:
            update = self._in_state(identifier, UpdateState.RETRACTING)
            self.tables.updates[identifier] = replace(
                update, state=UpdateState.RETRACTED, payload=None
            )

    def retracted(self, round_id: UUID) -> Sequence[Update]:
        return [one for one in self._of_round(round_id) if one.state is UpdateState.RETRACTED]

    def count(self, round_id: UUID) -> int:
        return len(self._accepted(round_id))

    def ids(self, round_id: UUID) -> Sequence[UUID]:
        return [one.id for one in self._accepted(round_id)]

    def summary(self, round_id: UUID) -> LedgerSummary:
        updates = self._accepted(round_id)
        id_xor = 0
        for one in updates:
            id_xor ^= int.from_bytes(sha256(one.id.bytes).digest(), "big")
        return LedgerSummary(
            count=len(updates),
            weight_sum=sum(one.weight for one in updates),
            id_xor=id_xor.to_bytes(32, "big"),
        )

    def weights_by_tier(self, round_id: UUID) -> Mapping[str, int]:
        weights: Counter[str] = Counter()
        for one in self._accepted(round_id):
            weights[self.tables.assignments[one.assignment_id].tier] += one.weight
        return weights

    def scrub(self, round_id: UUID) -> Sequence[str]:
        updates = self._of_round(round_id)
        for one in updates:
            state = UpdateState.RETRACTED if one.is_retracted else UpdateState.SCRUBBED
            self.tables.updates[one.id] = replace(one, state=state, payload=None)
        return [one.payload_key for one in updates if one.payload_key is not None]

    def _of_round(self, round_id: UUID) -> list[Update]:
        return [one for one in self.tables.updates.values() if one.round_id == round_id]

    def _pending(self, round_id: UUID) -> list[Update]:
        pending = (UpdateState.ACCEPTED, UpdateState.RETRACTING)
        return [one for one in self._of_round(round_id) if one.state in pending]

    def _accepted(self, round_id: UUID) -> list[Update]:
        return [one for one in self._of_round(round_id) if not one.is_retracted]

    def _in_state(self, update_id: UUID, state: UpdateState) -> Update:
        update = self.tables.updates.get(update_id)
        if update is None or update.state is not state:
            raise LostRace(f"update {update_id} is {state} no more")
        return update


@dataclass(frozen=True, slots=True)
class MemoryAccumulators:
    tables: Tables

    def ensure(self, round_id: UUID, shards: int) -> None:
        require(round_id in self.tables.rounds, f"there is no round {round_id}")
        for shard in range(shards):
            new = FoldProgress(round_id=round_id, shard=shard)
            self.tables.accumulators.setdefault((round_id, shard), new)

    def lease(
        self, round_id: UUID, shard: int, *, token: UUID, now: datetime, duration: timedelta
    ) -> FoldProgress | None:
        known = self.tables.accumulators.get((round_id, shard))
        if known is None:
            return None
        expires_at = known.lease_expires_at
        if expires_at is not None and expires_at > now and known.lease_token != token:
            return None
        leased = replace(known, lease_token=token, lease_expires_at=now + duration)
        self.tables.accumulators[round_id, shard] = leased
        return leased

    def commit(self, progress: FoldProgress, *, token: UUID) -> None:
        key = progress.round_id, progress.shard
        known = self.tables.accumulators.get(key)
        if known is None or known.lease_token != token or known.version != progress.version:
            raise LostRace(f"shard {progress.shard} of round {key[0]} belongs to another writer")
        self.tables.accumulators[key] = replace(
            progress, version=progress.version + 1, lease_token=None, lease_expires_at=None
        )

    def release(self, round_id: UUID, shard: int, *, token: UUID) -> None:
        known = self.tables.accumulators.get((round_id, shard))
        if known is not None and known.lease_token == token:
            free = replace(known, lease_token=None, lease_expires_at=None)
            self.tables.accumulators[round_id, shard] = free

    def all(self, round_id: UUID) -> Sequence[FoldProgress]:
        of_round = [one for one in self.tables.accumulators.values() if one.round_id == round_id]
        return sorted(of_round, key=lambda one: one.shard)


@dataclass(frozen=True, slots=True)
class MemoryAdapters:
    tables: Tables

    def add(self, adapter: Adapter) -> None:
        key = adapter.task_id, adapter.version
        if key in self.tables.adapters:
            raise LostRace(f"task {adapter.task_id} has an adapter {adapter.version} already")
        require(adapter.task_id in self.tables.tasks, f"there is no task {adapter.task_id}")
        require(
            (adapter.version == 0) == (adapter.round_id is None),
            "every adapter but the first has a round",
        )
        self.tables.adapters[key] = adapter

    def get(self, task_id: UUID, version: int) -> Adapter | None:
        return self.tables.adapters.get((task_id, version))

    def latest(self, task_id: UUID) -> Adapter | None:
        newest = self.page(task_id, limit=1, before_version=None)
        return newest[0] if newest else None

    def latest_versions(self, task_ids: Collection[UUID]) -> Mapping[UUID, int]:
        found = {task_id: self.latest(task_id) for task_id in task_ids}
        return {task_id: newest.version for task_id, newest in found.items() if newest is not None}

    def page(self, task_id: UUID, *, limit: int, before_version: int | None) -> Sequence[Adapter]:
        before = math.inf if before_version is None else before_version
        older = [
            one
            for one in self.tables.adapters.values()
            if one.task_id == task_id and one.version < before
        ]
        return sorted(older, key=lambda one: one.version, reverse=True)[:limit]
