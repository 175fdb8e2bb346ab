"""The ledger of accepted updates in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, select, update

from aggregator_service.domain.updates import Update, UpdateState
from aggregator_service.store.base import LedgerSummary, LostRace
from aggregator_service.store.sql.statements import insert_if_absent
from aggregator_service.store.sql.tables import updates

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
                updates.c.state == UpdateState.ACCEPTED.value,
            )
            .order_by(updates.c.sequence)
            .limit(limit)
        )
        return [_from_row(row) for row in self.connection.execute(query)]

    def pending_count(self, round_id: UUID) -> int:
        query = select(func.count()).where(
            updates.c.round_id == round_id, updates.c.state == UpdateState.ACCEPTED.value
        )
        return int(self.connection.execute(query).scalar_one())

    def mark_folded(self, update_ids: Sequence[UUID]) -> None:
        for start in range(0, len(update_ids), _CHUNK):
            ids = update_ids[start : start + _CHUNK]
            query = update(updates).where(
                updates.c.id.in_(ids), updates.c.state == UpdateState.ACCEPTED.value
            )
            folded = self.connection.execute(query.values(state=UpdateState.FOLDED.value)).rowcount
            if folded != len(ids):
                raise LostRace(f"only {folded} of {len(ids)} updates were still to be folded")

    def count(self, round_id: UUID) -> int:
        query = select(func.count()).where(updates.c.round_id == round_id)
        return int(self.connection.execute(query).scalar_one())

    def ids(self, round_id: UUID) -> Sequence[UUID]:
        query = (
            select(updates.c.id).where(updates.c.round_id == round_id).order_by(updates.c.sequence)
        )
        return list(self.connection.execute(query).scalars())

    def summary(self, round_id: UUID) -> LedgerSummary:
        query = select(updates.c.id, updates.c.weight).where(updates.c.round_id == round_id)
        number, weight_sum, id_xor = 0, 0, 0
        for row in self.connection.execute(query):
            number += 1
            weight_sum += row.weight
            id_xor ^= int.from_bytes(sha256(row.id.bytes).digest(), "big")
        return LedgerSummary(count=number, weight_sum=weight_sum, id_xor=id_xor.to_bytes(32, "big"))

    def scrub(self, round_id: UUID) -> Sequence[str]:
        in_round = updates.c.round_id == round_id
        self.connection.execute(
            update(updates)
            .where(in_round, updates.c.state != UpdateState.SCRUBBED.value)
            .values(state=UpdateState.SCRUBBED.value, payload=None)
        )
        keys = (
            select(updates.c.payload_key)
            .where(in_round, updates.c.payload_key.is_not(None))
            .order_by(updates.c.sequence)
        )
        return list(self.connection.execute(keys).scalars())


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
