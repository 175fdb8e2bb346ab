"""Going up to retractions keeps every row; going down forgets them, once none is under way."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy import Engine, Table, delete, select, update

from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.updates import UpdateState
from aggregator_service.store import schema
from aggregator_service.store.sql import tables
from tests.builders import a_device, a_round, a_task, an_assignment, an_update, stored
from tests.support.full_database import connected
from tests.support.stores import open_patiently

BEFORE = "20261122_first_schema"


@pytest.fixture
def updates(sql_url: str) -> list[UUID]:
    """Three accepted updates, one of them in a blob, and a gap in the ledger before the last."""
    opened = open_patiently(sql_url)
    task, devices = a_task(), [a_device() for _ in range(4)]
    current = a_round(task, state=RoundState.COLLECTING)
    parts = [an_assignment(current, one, state=AssignmentState.ACCEPTED) for one in devices]
    made = [an_update(part) for part in parts]
    made[1] = an_update(parts[1], payload=None, payload_key="rounds/a/updates/b")
    stored(opened, task, *devices, current, *parts, *made)
    opened.close()
    with connected(sql_url) as engine, engine.begin() as connection:
        connection.execute(delete(tables.updates).where(tables.updates.c.id == made[2].id))
    return [one.id for one in (made[0], made[1], made[3])]


def rows(engine: Engine, table: Table) -> Sequence[object]:
    with engine.begin() as connection:
        return connection.execute(select(table).order_by(table.c.id)).all()


def test_every_row_comes_through_down_and_up(sql_url: str, updates: list[UUID]) -> None:
    with connected(sql_url) as engine:
        before = [rows(engine, table) for table in (tables.updates, tables.assignments)]

    schema.downgrade(sql_url, BEFORE)
    schema.upgrade(sql_url)

    with connected(sql_url) as engine:
        after = [rows(engine, table) for table in (tables.updates, tables.assignments)]
    assert after == before
    assert len(before[0]) == len(updates)


def test_going_down_forgets_what_was_retracted(sql_url: str, updates: list[UUID]) -> None:
    with connected(sql_url) as engine, engine.begin() as connection:
        gone = update(tables.updates).where(tables.updates.c.id == updates[0])
        connection.execute(gone.values(state=UpdateState.RETRACTED.value, payload=None))
        part = select(tables.updates.c.assignment_id).where(tables.updates.c.id == updates[0])
        its = update(tables.assignments).where(tables.assignments.c.id.in_(part))
        connection.execute(its.values(state=AssignmentState.RETRACTED.value))

    schema.downgrade(sql_url, BEFORE)

    with connected(sql_url) as engine, engine.begin() as connection:
        kept = connection.execute(select(tables.updates.c.id)).scalars().all()
        states = connection.execute(select(tables.assignments.c.state)).scalars().all()
    assert set(kept) == set(updates[1:])
    assert sorted(states) == ["ACCEPTED"] * 3 + ["FAILED"]


def test_nobody_goes_down_while_an_update_is_being_taken_out(
    sql_url: str, updates: list[UUID]
) -> None:
    with connected(sql_url) as engine, engine.begin() as connection:
        going = update(tables.updates).where(tables.updates.c.id == updates[0])
        connection.execute(going.values(state=UpdateState.RETRACTING.value))

    with pytest.raises(RuntimeError, match="let the driver finish"):
        schema.downgrade(sql_url, BEFORE)

    assert schema.current_revision(sql_url) == schema.head_revision()
    with connected(sql_url) as engine:
        assert len(rows(engine, tables.updates)) == len(updates)
