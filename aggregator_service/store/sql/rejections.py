"""How often requests were refused, and why, in SQL."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Select, func, select

from aggregator_service.store.sql.statements import add_to_counter
from aggregator_service.store.sql.tables import rejections, rounds
from flasc_core.errors import Reason

__all__ = ["SqlRejections"]

# Two transactions rarely draw the same shard, so they rarely wait for each other.
SHARDS: Final = 32
NOWHERE: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class SqlRejections:
    connection: Connection

    def count(self, reason: Reason, *, task_id: UUID | None, round_id: UUID | None) -> None:
        one_writer = self.connection.dialect.name == "sqlite"
        key = {
            "reason": reason.value,
            "task_id": task_id or NOWHERE,
            "round_id": round_id or NOWHERE,
            "shard": 0 if one_writer else secrets.randbelow(SHARDS),
        }
        add_to_counter(self.connection, rejections, key, "refused")

    def by_round(self, round_ids: Collection[UUID]) -> Mapping[UUID, Mapping[Reason, int]]:
        query = (
            _TOTALS.add_columns(rejections.c.round_id)
            .where(rejections.c.round_id.in_(round_ids))
            .group_by(rejections.c.round_id)
        )
        found: dict[UUID, dict[Reason, int]] = {round_id: {} for round_id in round_ids}
        for row in self.connection.execute(query):
            found[row.round_id][Reason(row.reason)] = int(row.total)
        return found

    def of_task(self, task_id: UUID) -> Mapping[Reason, int]:
        joined = rejections.join(rounds, rounds.c.id == rejections.c.round_id)
        return self._sum(_TOTALS.select_from(joined).where(rounds.c.task_id == task_id))

    def totals(self) -> Mapping[Reason, int]:
        return self._sum(_TOTALS)

    def _sum(self, query: Select[Any]) -> Mapping[Reason, int]:
        return {Reason(row.reason): int(row.total) for row in self.connection.execute(query)}


_TOTALS: Final = select(
    rejections.c.reason, func.sum(rejections.c.refused).label("total")
).group_by(rejections.c.reason)
