"""Statements that SQLite and PostgreSQL both have, and SQLAlchemy offers for each by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, Table
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


def locked(query: S, lock: Lock) -> S:
    """Makes `query` lock the rows it reads; SQLite's one writer holds everything already."""
    match lock:
        case Lock.NONE:
            return query
        case Lock.SHARED:
            return query.with_for_update(read=True)
        case Lock.EXCLUSIVE:
            # NO KEY: rows that only refer to this one may still be inserted meanwhile.
            return query.with_for_update(key_share=True)
