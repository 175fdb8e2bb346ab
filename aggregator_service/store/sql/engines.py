"""Database connections, set up so that what was committed stays committed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError

from aggregator_service.store.base import NotDurable, StoreUnavailable, WrongAddress

__all__ = [
    "check_durable",
    "database_url",
    "durability_settings",
    "postgres_engine",
    "sqlite_engine",
]

# RETURNING came with it.
_OLDEST_SQLITE: Final = (3, 35, 0)
_CONNECT_SECONDS: Final = 5
_MUST_BE_ON: Final = ("fsync", "full_page_writes", "synchronous_commit")


def database_url(url: str) -> URL:
    """Raises WrongAddress for anything but sqlite:///path and postgresql://…."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise WrongAddress(
            "a database's URL reads sqlite:///path/to/file.db or postgresql://user@host/database"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise WrongAddress("a SQLite URL names a file: sqlite:///path/to/file.db")
        return parsed.set(drivername="sqlite+pysqlite")
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise WrongAddress(f"{backend!r} is no database this service knows; use sqlite or postgresql")


def sqlite_engine(
    url: URL,
    *,
    pool_size: int,
    begin: str,
    read_only: bool = False,
    busy_timeout: timedelta = timedelta(seconds=5),
) -> Engine:
    """Connections whose transactions start with `begin`; makes the file, for its owner alone."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 is needed")
    _make_private(Path(str(url.database)))
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_CONNECT_SECONDS,
        connect_args={"check_same_thread": False},
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, record: object) -> None:
        del record
        # Python would otherwise begin transactions by itself, too late and deferred.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_milliseconds(busy_timeout)}")
        if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise NotDurable(f"{url.database} can not use a write-ahead log on this file system")
        # NORMAL would lose acknowledged updates when the power goes.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA query_only = {int(read_only)}")

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _make_private(file: Path) -> None:
    """Updates and noise seeds are in it; the files that SQLite puts beside it get its rights."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Never one that there is: closing it would end the locks that SQLite has on it. Where else this
    # fails, SQLite tells why it can not use the file.
    with suppress(OSError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def postgres_engine(
    url: URL,
    *,
    pool_size: int,
    statement_timeout: timedelta = timedelta(seconds=5),
    lock_timeout: timedelta = timedelta(seconds=2),
    idle_timeout: timedelta = timedelta(seconds=10),
) -> Engine:
    """At most `pool_size` connections; a timeout of zero waits without end."""
    settings = {
        "statement_timeout": f"{_milliseconds(statement_timeout)}ms",
        "lock_timeout": f"{_milliseconds(lock_timeout)}ms",
        "idle_in_transaction_session_timeout": f"{_milliseconds(idle_timeout)}ms",
        "timezone": "UTC",
    }
    connect_args: dict[str, Any] = {
        "application_name": "flasc",
        "connect_timeout": _CONNECT_SECONDS,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_CONNECT_SECONDS,
        pool_pre_ping=True,
        # Rows are locked by name, so a statement may see what committed before it.
        isolation_level="READ COMMITTED",
        # Errors are logged; updates and credentials are not.
        hide_parameters=True,
        # What the URL itself says comes first.
        connect_args={key: value for key, value in connect_args.items() if key not in url.query},
    )


def durability_settings(connection: Connection) -> Mapping[str, str]:
    query = text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)")
    rows = connection.execute(query, {"names": list(_MUST_BE_ON)})
    return {row.name: row.setting for row in rows}


def check_durable(settings: Mapping[str, str]) -> None:
    """Raises NotDurable where a setting lets PostgreSQL lose committed transactions."""
    off = [name for name in _MUST_BE_ON if settings[name] == "off"]
    if off:
        raise NotDurable(
            f"PostgreSQL runs with {', '.join(off)} off and can lose accepted updates; "
            "switch it on, then start again"
        )


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
