"""Fixtures that every test may ask for."""

from hypothesis import HealthCheck, settings

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

# How long an example takes says how busy the machine is.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
