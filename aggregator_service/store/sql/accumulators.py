"""Accumulators and their leases in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Update, or_, select, update

from aggregator_service.domain.updates import FoldProgress
from aggregator_service.store.base import LostRace
from aggregator_service.store.sql.statements import insert_if_absent
from aggregator_service.store.sql.tables import accumulators

__all__ = ["SqlAccumulators"]


@dataclass(frozen=True, slots=True)
class SqlAccumulators:
    connection: Connection

    def ensure(self, round_id: UUID, shards: int) -> None:
        for shard in range(shards):
            row = {"round_id": round_id, "shard": shard, "version": 0, "updates_folded": 0}
            insert_if_absent(self.connection, accumulators, row, "round_id", "shard")

    def lease(
        self, round_id: UUID, shard: int, *, token: UUID, now: datetime, duration: timedelta
    ) -> FoldProgress | None:
        free = or_(
            accumulators.c.lease_token.is_(None),
            accumulators.c.lease_token == token,
            accumulators.c.lease_expires_at <= now,
        )
        query = (
            _of_shard(round_id, shard)
            .where(free)
            .values(lease_token=token, lease_expires_at=now + duration)
            .returning(accumulators)
        )
        row = self.connection.execute(query).first()
        return None if row is None else _from_row(row)

    def commit(self, progress: FoldProgress, *, token: UUID) -> None:
        query = (
            _of_shard(progress.round_id, progress.shard)
            .where(accumulators.c.lease_token == token, accumulators.c.version == progress.version)
            .values(
                version=progress.version + 1,
                blob_key=progress.key,
                updates_folded=progress.updates_folded,
                lease_token=None,
                lease_expires_at=None,
            )
        )
        if self.connection.execute(query).rowcount != 1:
            raise LostRace(
                f"shard {progress.shard} of round {progress.round_id} belongs to another writer"
            )

    def release(self, round_id: UUID, shard: int, *, token: UUID) -> None:
        query = _of_shard(round_id, shard).where(accumulators.c.lease_token == token)
        self.connection.execute(query.values(lease_token=None, lease_expires_at=None))

    def all(self, round_id: UUID) -> Sequence[FoldProgress]:
        query = (
            select(accumulators)
            .where(accumulators.c.round_id == round_id)
            .order_by(accumulators.c.shard)
        )
        return [_from_row(row) for row in self.connection.execute(query)]


def _of_shard(round_id: UUID, shard: int) -> Update:
    return update(accumulators).where(
        accumulators.c.round_id == round_id, accumulators.c.shard == shard
    )


def _from_row(row: Row[Any]) -> FoldProgress:
    return FoldProgress(
        round_id=row.round_id,
        shard=row.shard,
        version=row.version,
        key=row.blob_key,
        updates_folded=row.updates_folded,
        lease_token=row.lease_token,
        lease_expires_at=row.lease_expires_at,
    )
