"""Fixtures that every test may ask for."""

from tests.support.stores import (
    memory_store,
    postgres_server,
    postgres_store,
    postgres_template,
    postgres_url,
    sql_store,
    sql_url,
    sqlite_store,
    sqlite_template,
    sqlite_url,
    store,
)

__all__ = [
    "memory_store",
    "postgres_server",
    "postgres_store",
    "postgres_template",
    "postgres_url",
    "sql_store",
    "sql_url",
    "sqlite_store",
    "sqlite_template",
    "sqlite_url",
    "store",
]
