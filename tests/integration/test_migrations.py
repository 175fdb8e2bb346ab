"""Schema revisions: what the code expects, what migrations make, and what rows must satisfy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, Table, inspect, select

from aggregator_service.store import schema
from aggregator_service.store.base import StoreUnavailable
from aggregator_service.store.sql import tables
from tests.support.full_database import connected, fill
from tests.support.postgres import PostgresServer
from tests.support.stores import open_patiently


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create_database()
    yield url
    server.drop_database(url)


def rows(connection: Connection) -> dict[str, int]:
    return {
        name: len(connection.execute(select(table)).all())
        for name, table in tables.metadata.tables.items()
    }


def test_migrations_make_the_tables_that_the_code_expects(empty_url: str) -> None:
    schema.upgrade(empty_url)

    with connected(empty_url) as engine, engine.begin() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []


def test_migrations_make_the_checks_that_the_code_expects(empty_url: str) -> None:
    """Alembic compares no CHECK constraints, so their names and words are compared here."""
    schema.upgrade(empty_url)

    with connected(empty_url) as engine, engine.begin() as connection:
        inspector = inspect(connection)
        for name, table in tables.metadata.tables.items():
            made = {
                str(check["name"]): words(check["sqltext"])
                for check in inspector.get_check_constraints(name)
            }
            assert made == {
                str(check.name): words(str(check.sqltext)) for check in checks_of(table)
            }


def checks_of(table: Table) -> list[CheckConstraint]:
    return [one for one in table.constraints if isinstance(one, CheckConstraint)]


def words(sql: str) -> set[str]:
    """What a condition speaks of, however a database writes it down again."""
    found = set(re.findall(r"'[A-Z_]+'|[a-z][a-z0-9_]*|\d+", sql))
    return found - {"any", "array", "text", "octet_length", "length", "in"}


def test_a_new_database_has_no_revision_and_then_the_head(empty_url: str) -> None:
    assert schema.current_revision(empty_url) is None

    schema.upgrade(empty_url)

    assert schema.current_revision(empty_url) == schema.head_revision()


def test_upgrading_again_changes_nothing(empty_url: str) -> None:
    schema.upgrade(empty_url)
    fill(empty_url)
    schema.upgrade(empty_url)

    with connected(empty_url) as engine, engine.begin() as connection:
        assert set(rows(connection).values()) == {1}


def test_down_and_up_again_works_on_a_database_with_rows(empty_url: str) -> None:
    schema.upgrade(empty_url)
    fill(empty_url)

    schema.downgrade(empty_url, "base")

    assert schema.current_revision(empty_url) is None
    with connected(empty_url) as engine, engine.begin() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    schema.upgrade(empty_url)
    task_id = fill(empty_url)
    opened = open_patiently(empty_url)
    read = opened.read("get", lambda tx: tx.tasks.get(task_id))
    opened.close()
    assert read is not None


def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    with connected(empty_url) as engine, engine.begin() as connection:
        # The last table that the migration wants to make is there already.
        connection.exec_driver_sql("CREATE TABLE events (id INTEGER)")

    with pytest.raises(Exception, match="events"):
        schema.upgrade(empty_url)

    assert schema.current_revision(empty_url) is None
    with connected(empty_url) as engine, engine.begin() as connection:
        assert inspect(connection).get_table_names() == ["events"]


def test_a_store_is_ready_once_the_schema_is_the_expected_one(empty_url: str) -> None:
    opened = open_patiently(empty_url)
    with pytest.raises(StoreUnavailable, match="flasc migrate"):
        opened.check_ready()

    schema.upgrade(empty_url)
    opened.check_ready()

    with connected(empty_url) as engine, engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'from_the_future'")
    with pytest.raises(StoreUnavailable, match="from_the_future"):
        opened.check_ready()
    opened.close()
