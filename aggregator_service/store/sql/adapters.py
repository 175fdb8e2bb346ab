"""Published adapter versions in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, select

from aggregator_service.domain.adapters import Adapter
from aggregator_service.store.base import LostRace
from aggregator_service.store.sql.statements import insert_if_absent
from aggregator_service.store.sql.tables import adapters

__all__ = ["SqlAdapters"]


@dataclass(frozen=True, slots=True)
class SqlAdapters:
    connection: Connection

    def add(self, adapter: Adapter) -> None:
        if not insert_if_absent(self.connection, adapters, _to_row(adapter), "task_id", "version"):
            raise LostRace(f"task {adapter.task_id} has an adapter {adapter.version} already")

    def get(self, task_id: UUID, version: int) -> Adapter | None:
        query = select(adapters).where(adapters.c.task_id == task_id, adapters.c.version == version)
        row = self.connection.execute(query).first()
        return None if row is None else _from_row(row)

    def latest(self, task_id: UUID) -> Adapter | None:
        newest = self.page(task_id, limit=1, before_version=None)
        return newest[0] if newest else None

    def latest_versions(self, task_ids: Collection[UUID]) -> Mapping[UUID, int]:
        query = (
            select(adapters.c.task_id, func.max(adapters.c.version).label("version"))
            .where(adapters.c.task_id.in_(task_ids))
            .group_by(adapters.c.task_id)
        )
        return {row.task_id: row.version for row in self.connection.execute(query)}

    def page(self, task_id: UUID, *, limit: int, before_version: int | None) -> Sequence[Adapter]:
        query = select(adapters).where(adapters.c.task_id == task_id)
        if before_version is not None:
            query = query.where(adapters.c.version < before_version)
        query = query.order_by(adapters.c.version.desc()).limit(limit)
        return [_from_row(row) for row in self.connection.execute(query)]


def _to_row(value: Adapter) -> dict[str, object]:
    return {
        "task_id": value.task_id,
        "version": value.version,
        "round_id": value.round_id,
        "weights_key": value.weights_key,
        "weights_sha256": value.weights_sha256,
        "optimizer_step": value.optimizer_step,
        "optimizer_key": value.optimizer_key,
        "mask_nnz": value.mask_nnz,
        "divisor": value.divisor,
        "created_at": value.created_at,
    }


def _from_row(row: Row[Any]) -> Adapter:
    return Adapter(
        task_id=row.task_id,
        version=row.version,
        round_id=row.round_id,
        weights_key=row.weights_key,
        weights_sha256=row.weights_sha256,
        optimizer_step=row.optimizer_step,
        optimizer_key=row.optimizer_key,
        mask_nnz=row.mask_nnz,
        divisor=row.divisor,
        created_at=row.created_at,
    )
