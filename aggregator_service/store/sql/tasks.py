"""Tasks in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, select, tuple_, update

from aggregator_service.domain.tasks import Task, TaskState
from aggregator_service.store.base import Lock, LostRace
from aggregator_service.store.sql.config_json import config_from_text, config_to_text
from aggregator_service.store.sql.statements import insert_if_absent, locked
from aggregator_service.store.sql.tables import tasks
from flasc_core.errors import Reason, Refusal

__all__ = ["SqlTasks"]


@dataclass(frozen=True, slots=True)
class SqlTasks:
    connection: Connection

    def add(self, task: Task) -> None:
        if not insert_if_absent(self.connection, tasks, _to_row(task), "name"):
            raise Refusal(
                Reason.NAME_TAKEN, f"a task named {task.name!r} exists already", name=task.name
            )

    def get(self, task_id: UUID, lock: Lock = Lock.NONE) -> Task | None:
        query = select(tasks).where(tasks.c.id == task_id)
        query = locked(self.connection, query, task_id, lock)
        row = self.connection.execute(query).first()
        return None if row is None else _from_row(row)

    def get_by_name(self, name: str) -> Task | None:
        row = self.connection.execute(select(tasks).where(tasks.c.name == name)).first()
        return None if row is None else _from_row(row)

    def in_state(self, state: TaskState) -> Sequence[Task]:
        query = select(tasks).where(tasks.c.state == state).order_by(tasks.c.created_at, tasks.c.id)
        return [_from_row(row) for row in self.connection.execute(query)]

    def page(self, *, limit: int, after: UUID | None) -> Sequence[Task]:
        age = tuple_(tasks.c.created_at, tasks.c.id)
        query = select(tasks).order_by(tasks.c.created_at.desc(), tasks.c.id.desc()).limit(limit)
        if after is not None:
            last = select(tasks.c.created_at, tasks.c.id).where(tasks.c.id == after)
            query = query.where(age < last.scalar_subquery())
        return [_from_row(row) for row in self.connection.execute(query)]

    def save(self, task: Task) -> None:
        query = update(tasks).where(tasks.c.id == task.id, tasks.c.revision == task.revision)
        changed = _to_row(task) | {"revision": task.revision + 1}
        if self.connection.execute(query.values(changed)).rowcount != 1:
            raise LostRace(f"task {task.id} has moved past revision {task.revision}")


def _to_row(task: Task) -> dict[str, object]:
    return {
        "id": task.id,
        "name": task.name,
        "state": task.state.value,
        "config": config_to_text(task.config),
        "spec": task.spec,
        "spec_sha256": task.spec_sha256,
        "created_at": task.created_at,
        "revision": task.revision,
    }


def _from_row(row: Row[Any]) -> Task:
    return Task(
        id=row.id,
        name=row.name,
        state=TaskState(row.state),
        config=config_from_text(row.config),
        spec=row.spec,
        spec_sha256=row.spec_sha256,
        created_at=row.created_at,
        revision=row.revision,
    )
