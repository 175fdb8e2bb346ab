"""Moves databases between schema revisions, and tells whether one fits this code."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Text, column, func, inspect, select, table
from sqlalchemy.exc import SQLAlchemyError

import aggregator_service
from aggregator_service.store.base import StoreUnavailable
from aggregator_service.store.sql.engines import database_url, postgres_engine, sqlite_engine
from aggregator_service.store.sql.failures import Failure, classify

__all__ = [
    "SchemaCheck",
    "UnknownRevision",
    "current_revision",
    "downgrade",
    "head_revision",
    "upgrade",
]

T = TypeVar("T")


class UnknownRevision(Exception):
    """There is no migration of this name, or none that the database can go to."""


# An advisory lock's number: one migration at a time.
_MIGRATING: Final = 0x466C_6173_634D
# How long a migration waits for its turn; each sets its own timeout for the tables it changes.
_TURN: Final = timedelta(minutes=1)


def upgrade(url: str, revision: str = "head") -> None:
    """Applies the missing migrations, all or none.

    Raises UnknownRevision, and StoreUnavailable where the database can not do it.
    """
    _migrate(url, lambda config: command.upgrade(config, revision))


def downgrade(url: str, revision: str) -> None:
    """Takes migrations back, all or none; "base" removes every table and what is in it.

    Raises as `upgrade` does.
    """
    _migrate(url, lambda config: command.downgrade(config, revision))


def current_revision(url: str) -> str | None:
    """None where no migration has run yet."""
    return _in_transaction(url, _read_revision)


def head_revision() -> str:
    """The revision that this code expects."""
    (head,) = ScriptDirectory.from_config(_config()).get_heads()
    return head


class SchemaCheck:
    """Raises StoreUnavailable unless a database has the revision that this code expects."""

    def __call__(self, connection: Connection) -> None:
        found = _read_revision(connection)
        if found != self._expected:
            raise StoreUnavailable(
                f"the database has schema revision {found}, this version needs {self._expected}; "
                "run `flasc migrate`"
            )

    @cached_property
    def _expected(self) -> str:
        return head_revision()


def _migrate(url: str, step: Callable[[Config], None]) -> None:
    def body(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATING)))
        config = _config()
        config.attributes["connection"] = connection
        try:
            step(config)
        except CommandError as error:
            raise UnknownRevision(str(error)) from error

    _in_transaction(url, body)


def _in_transaction(url: str, body: Callable[[Connection], T]) -> T:
    engine = _engine(url)
    try:
        with engine.begin() as connection:
            return body(connection)
    except SQLAlchemyError as error:
        if classify(error) is Failure.BUG:
            raise
        raise StoreUnavailable(f"the database can not do this now: {error}") from error
    finally:
        engine.dispose()


def _engine(url: str) -> Engine:
    parsed = database_url(url)
    if parsed.get_backend_name() == "sqlite":
        return sqlite_engine(parsed, pool_size=1, begin="BEGIN IMMEDIATE")
    return postgres_engine(
        parsed,
        pool_size=1,
        statement_timeout=timedelta(0),
        lock_timeout=_TURN,
        idle_timeout=timedelta(0),
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    return config


def _scripts() -> Path:
    """Inside the package where it is installed, beside it in a checkout."""
    package = Path(aggregator_service.__file__).parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _read_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    query = select(column("version_num", Text())).select_from(table("alembic_version"))
    return connection.execute(query).scalar_one_or_none()
