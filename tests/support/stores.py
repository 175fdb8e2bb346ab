"""Fixtures that give a test a store of its own, on each database the service runs on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from aggregator_service.store import schema
from aggregator_service.store.base import Store
from aggregator_service.store.memory import MemoryStore
from aggregator_service.store.open import open_store
from aggregator_service.store.sql.engines import database_url, postgres_engine
from aggregator_service.store.sql.store import PostgresConnections, SqlStore
from tests.support.patience import PATIENCE
from tests.support.postgres import VARIABLE, PostgresCluster, PostgresServer, find_binaries

__all__ = [
    "memory_store",
    "open_patiently",
    "patient_postgres",
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


def patient_postgres(url: str, *, pool_size: int) -> Engine:
    """As the service has it, but for what a busy machine would take for an outage."""
    return postgres_engine(
        database_url(url),
        pool_size=pool_size,
        statement_timeout=PATIENCE,
        lock_timeout=PATIENCE,
        idle_timeout=PATIENCE,
    )


def open_patiently(url: str, *, pool_size: int = 2) -> Store:
    """A store of a test's own, on a database that may forget everything."""
    if database_url(url).get_backend_name() == "sqlite":
        return open_store(url, pool_size=pool_size)
    engine = patient_postgres(url, pool_size=pool_size)
    return SqlStore(PostgresConnections(engine), check_schema=schema.SchemaCheck())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    given = os.environ.get(VARIABLE)
    if given:
        yield PostgresServer(given)
        return
    cluster = PostgresCluster(find_binaries())
    try:
        cluster.start()
        yield PostgresServer(cluster.url)
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> Iterator[str]:
    """A migrated database to copy: faster than migrating anew for every test."""
    url = postgres_server.create_database()
    schema.upgrade(url)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    url = postgres_server.create_database(template=postgres_template)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    schema.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    path = tmp_path / "flasc.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def sql_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


@pytest.fixture
def memory_store() -> Store:
    return MemoryStore()


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Store]:
    opened = open_store(sqlite_url)
    yield opened
    opened.close()


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[Store]:
    opened = open_patiently(postgres_url, pool_size=20)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite_store", "postgres_store"])
def sql_store(request: pytest.FixtureRequest) -> Store:
    opened: Store = request.getfixturevalue(request.param)
    return opened


@pytest.fixture(params=["memory_store", "sqlite_store", "postgres_store"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each kind of store in turn: a test that takes it is part of their contract."""
    opened: Store = request.getfixturevalue(request.param)
    return opened
