"""Statements that SQLite and PostgreSQL both have, and SQLAlchemy offers for each by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Select, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from aggregator_service.store.base import Lock

__all__ = ["add_to_counter", "insert_if_absent", "locked"]

S = TypeVar("S", bound=Select[Any])


def insert_if_absent(
    connection: Connection, table: Table, row: Mapping[str, object], *key: str
) -> bool:
    """Inserts `row` unless one with an equal `key` exists; says whether it did.

    Waits for a transaction that is inserting the same key, and then sees how that ended.
    """
    returned = table.c[key[0]]
    if connection.dialect.name == "postgresql":
        on_postgres = (
            postgresql.insert(table).values(row).on_conflict_do_nothing(index_elements=key)
        )
        return connection.execute(on_postgres.returning(returned)).first() is not None
    on_sqlite = sqlite.insert(table).values(row).on_conflict_do_nothing(index_elements=key)
    return connection.execute(on_sqlite.returning(returned)).first() is not None


def add_to_counter(
    connection: Connection, table: Table, key: Mapping[str, object], counter: str
) -> None:
    """Adds one to the counter under `key`, which starts at one."""
    row = {**key, counter: 1}
    grown = {counter: table.c[counter] + 1}
    if connection.dialect.name == "postgresql":
        on_postgres = postgresql.insert(table).values(row)
        connection.execute(on_postgres.on_conflict_do_update(index_elements=list(key), set_=grown))
    else:
        on_sqlite = sqlite.insert(table).values(row)
        connection.execute(on_sqlite.on_conflict_do_update(index_elements=list(key), set_=grown))


def locked(connection: Connection, query: S, row_id: UUID, lock: Lock) -> S:
    """Makes `query` lock the one row it reads; SQLite's one writer holds everything already."""
    if lock is Lock.NONE or connection.dialect.name == "sqlite":
        return query
    _take_turn(connection, row_id, lock)
    if lock is Lock.SHARED:
        return query.with_for_update(read=True)
    # NO KEY: rows that only refer to this one may still be inserted meanwhile.
    return query.with_for_update(key_share=True)


def _take_turn(connection: Connection, row_id: UUID, lock: Lock) -> None:
    """Queues for the row until the transaction ends.

    PostgreSQL lets new sharers of a row in past whoever waits to have it alone, so a steady stream
    of them keeps that one out for ever. Its advisory locks are fair. They only keep order: the
    row's own lock is what guards it.
    """
    number = int.from_bytes(row_id.bytes[:8], "big", signed=True)
    shared, exclusive = func.pg_advisory_xact_lock_shared, func.pg_advisory_xact_lock
    connection.execute(select((shared if lock is Lock.SHARED else exclusive)(number)))
