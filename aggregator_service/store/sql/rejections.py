"""How often requests were refused, and why, in SQL."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, func, select

from aggregator_service.store.sql.statements import add_to_counter
from aggregator_service.store.sql.tables import rejections
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

    def by_reason(self, round_id: UUID) -> Mapping[Reason, int]:
        query = _TOTALS.where(rejections.c.round_id == round_id)
        return {Reason(row.reason): int(row.total) for row in self.connection.execute(query)}

    def totals(self) -> Mapping[Reason, int]:
        return {Reason(row.reason): int(row.total) for row in self.connection.execute(_TOTALS)}


_TOTALS: Final = select(
    rejections.c.reason, func.sum(rejections.c.refused).label("total")
).group_by(rejections.c.reason)
