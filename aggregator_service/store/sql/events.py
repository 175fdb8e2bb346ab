"""The stream of events in SQL.

A reader that has seen event 6 never asks for event 5 again, so no transaction that holds a lower
number may be open when a higher one is read. SQLite has one writer, which is enough. On PostgreSQL
writers share a lock from their first event to their commit, and a reader that finds something new
takes it alone for a moment: those before it have committed, and its second look sees all of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, Select, func, insert, select

from aggregator_service.domain.events import Event
from aggregator_service.store.sql.tables import events

__all__ = ["SqlEvents"]

# An advisory lock's number; nothing else in the service takes one with it.
STREAM: Final = 0x466C_6173_6345


@dataclass(frozen=True, slots=True)
class SqlEvents:
    connection: Connection

    def append(self, event: Event) -> None:
        if self._has_many_writers:
            self.connection.execute(select(func.pg_advisory_xact_lock_shared(STREAM)))
        self.connection.execute(
            insert(events).values(
                task_id=event.task_id,
                round_id=event.round_id,
                state=event.state,
                at=event.at,
            )
        )

    def after(self, sequence: int, *, limit: int, task_id: UUID | None = None) -> Sequence[Event]:
        query = select(events).where(events.c.sequence > sequence)
        if task_id is not None:
            query = query.where(events.c.task_id == task_id)
        return [
            _from_row(row) for row in self._settled(query.order_by(events.c.sequence).limit(limit))
        ]

    def last_sequence(self) -> int:
        highest = self._settled(select(func.max(events.c.sequence).label("highest")))
        return highest[0].highest or 0

    @property
    def _has_many_writers(self) -> bool:
        return self.connection.dialect.name == "postgresql"

    def _settled(self, query: Select[Any]) -> Sequence[Row[Any]]:
        rows = self.connection.execute(query).all()
        if rows and self._has_many_writers:
            self.connection.execute(select(func.pg_advisory_xact_lock(STREAM)))
            rows = self.connection.execute(query).all()
        return rows


def _from_row(row: Row[Any]) -> Event:
    return Event(
        task_id=row.task_id,
        round_id=row.round_id,
        state=row.state,
        at=row.at,
        sequence=row.sequence,
    )
