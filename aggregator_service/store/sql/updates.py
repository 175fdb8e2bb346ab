"""The ledger of accepted updates in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, case, func, select
from sqlalchemy import update as sql_update

from aggregator_service.domain.updates import Update, UpdateState
from aggregator_service.store.base import LedgerSummary, LostRace
from aggregator_service.store.sql.statements import insert_if_absent
from aggregator_service.store.sql.tables import assignments, updates

__all__ = ["SqlUpdates"]

# Well below the number of parameters that either database takes in one statement.
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class SqlUpdates:
    connection: Connection

    def add_if_absent(self, update: Update) -> bool:
        return insert_if_absent(self.connection, updates, _to_row(update), "round_id", "device_id")

    def get(self, round_id: UUID, device_id: UUID) -> Update | None:
        query = select(updates).where(
            updates.c.round_id == round_id, updates.c.device_id == device_id
        )
        row = self.connection.execute(query).first()
        return None if row is None else _from_row(row)

    def pending(self, round_id: UUID, shard: int, limit: int) -> Sequence[Update]:
        query = (
            select(updates)
            .where(
                updates.c.round_id == round_id,
                updates.c.shard == shard,
                _pending,
            )
            .order_by(updates.c.sequence)
            .limit(limit)
        )
        return [_from_row(row) for row in self.connection.execute(query)]

    def pending_count(self, round_id: UUID) -> int:
        return self._count(round_id, _pending)

    def retracting_count(self, round_id: UUID) -> int:
        return self._count(round_id, updates.c.state == UpdateState.RETRACTING.value)

    def mark_folded(self, update_ids: Sequence[UUID]) -> None:
        self._move(update_ids, UpdateState.ACCEPTED, {"state": UpdateState.FOLDED.value})

    def retract(self, update: Update) -> Update:
        retracted = update.retract()
        changed = {"state": retracted.state.value, "payload": retracted.payload}
        self._move([update.id], update.state, changed)
        return retracted

    def mark_retracted(self, update_ids: Sequence[UUID]) -> None:
        retracted = {"state": UpdateState.RETRACTED.value, "payload": None}
        self._move(update_ids, UpdateState.RETRACTING, retracted)

    def retracted(self, round_id: UUID) -> Sequence[Update]:
        query = (
            select(updates)
            .where(updates.c.round_id == round_id, updates.c.state == UpdateState.RETRACTED.value)
            .order_by(updates.c.sequence)
        )
        return [_from_row(row) for row in self.connection.execute(query)]

    def count(self, round_id: UUID) -> int:
        return self._count(round_id, _accepted)

    def ids(self, round_id: UUID) -> Sequence[UUID]:
        query = (
            select(updates.c.id)
            .where(updates.c.round_id == round_id, _accepted)
            .order_by(updates.c.sequence)
        )
        return list(self.connection.execute(query).scalars())

    def summary(self, round_id: UUID) -> LedgerSummary:
        query = select(updates.c.id, updates.c.weight).where(
            updates.c.round_id == round_id, _accepted
        )
        number, weight_sum, id_xor = 0, 0, 0
        for row in self.connection.execute(query):
            number += 1
            weight_sum += row.weight
            id_xor ^= int.from_bytes(sha256(row.id.bytes).digest(), "big")
        return LedgerSummary(count=number, weight_sum=weight_sum, id_xor=id_xor.to_bytes(32, "big"))

    def weights_by_tier(self, round_id: UUID) -> Mapping[str, int]:
        query = (
            select(assignments.c.tier, func.sum(updates.c.weight).label("weight"))
            .select_from(updates.join(assignments, assignments.c.id == updates.c.assignment_id))
            .where(updates.c.round_id == round_id, _accepted)
            .group_by(assignments.c.tier)
        )
        return {row.tier: int(row.weight) for row in self.connection.execute(query)}

    def scrub(self, round_id: UUID) -> Sequence[str]:
        in_round = updates.c.round_id == round_id
        scrubbed = case((_accepted, UpdateState.SCRUBBED.value), else_=UpdateState.RETRACTED.value)
        self.connection.execute(
            sql_update(updates).where(in_round).values(state=scrubbed, payload=None)
        )
        keys = (
            select(updates.c.payload_key)
            .where(in_round, updates.c.payload_key.is_not(None))
            .order_by(updates.c.sequence)
        )
        return list(self.connection.execute(keys).scalars())

    def _count(self, round_id: UUID, condition: ColumnElement[bool]) -> int:
        query = select(func.count()).where(updates.c.round_id == round_id, condition)
        return int(self.connection.execute(query).scalar_one())

    def _move(
        self, update_ids: Sequence[UUID], state: UpdateState, changed: Mapping[str, object]
    ) -> None:
        for start in range(0, len(update_ids), _CHUNK):
            ids = update_ids[start : start + _CHUNK]
            query = sql_update(updates).where(updates.c.id.in_(ids), updates.c.state == state.value)
            moved = self.connection.execute(query.values(changed)).rowcount
            if moved != len(ids):
                raise LostRace(f"only {moved} of {len(ids)} updates were still {state}")


_pending = updates.c.state.in_([UpdateState.ACCEPTED.value, UpdateState.RETRACTING.value])
_accepted = updates.c.state.not_in([UpdateState.RETRACTING.value, UpdateState.RETRACTED.value])


def _to_row(value: Update) -> dict[str, object]:
    return {
        "id": value.id,
        "round_id": value.round_id,
        "device_id": value.device_id,
        "assignment_id": value.assignment_id,
        "state": value.state.value,
        "payload_sha256": value.payload_sha256,
        "payload_bytes": value.payload_bytes,
        "nnz": value.nnz,
        "weight": value.weight,
        "shard": value.shard,
        "accepted_at": value.accepted_at,
        "payload_key": value.payload_key,
        "payload": value.payload,
    }


def _from_row(row: Row[Any]) -> Update:
    return Update(
        id=row.id,
        round_id=row.round_id,
        device_id=row.device_id,
        assignment_id=row.assignment_id,
        state=UpdateState(row.state),
        payload_sha256=row.payload_sha256,
        payload_bytes=row.payload_bytes,
        nnz=row.nnz,
        weight=row.weight,
        shard=row.shard,
        accepted_at=row.accepted_at,
        payload=row.payload,
        payload_key=row.payload_key,
        sequence=row.sequence,
    )
