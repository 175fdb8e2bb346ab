"""A database with a row in every table, and a connection to change them behind the store's back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import Engine

from aggregator_service.domain.rounds import RoundState
from aggregator_service.store.sql.engines import database_url, sqlite_engine
from flasc_core.errors import Reason
from tests.builders import (
    a_device,
    a_draw,
    a_reservation,
    a_round,
    a_task,
    an_adapter,
    an_api_key,
    an_assignment,
    an_event,
    an_update,
    stored,
)
from tests.support.stores import open_patiently, patient_postgres

__all__ = ["connected", "fill"]


@contextmanager
def connected(url: str) -> Iterator[Engine]:
    parsed = database_url(url)
    engine = (
        sqlite_engine(parsed, pool_size=1, begin="BEGIN IMMEDIATE")
        if parsed.get_backend_name() == "sqlite"
        else patient_postgres(url, pool_size=1)
    )
    try:
        yield engine
    finally:
        engine.dispose()


def fill(url: str) -> UUID:
    """A row in every table; returns the task's identifier."""
    opened = open_patiently(url)
    task, device = a_task(), a_device()
    current = a_round(task, state=RoundState.COLLECTING)
    assignment = an_assignment(current, device)
    stored(opened, task, current, device, assignment, an_update(assignment))
    stored(opened, a_reservation(current, draw=a_draw()))
    stored(opened, an_adapter(task), an_api_key(), an_event(task))
    opened.run("shard", lambda tx: tx.accumulators.ensure(current.id, 1))
    opened.run(
        "count", lambda tx: tx.rejections.count(Reason.OVERLOADED, task_id=None, round_id=None)
    )
    opened.close()
    return task.id
