"""What each database error asks of the service."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from aggregator_service.store.base import NotDurable, WrongAddress
from aggregator_service.store.sql.engines import check_durable, database_url
from aggregator_service.store.sql.failures import Failure, classify

START_OVER, UNAVAILABLE, BUG = Failure.START_OVER, Failure.UNAVAILABLE, Failure.BUG
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


def wrapped(cause: Exception, *, invalidated: bool = False) -> SQLAlchemyError:
    return DBAPIError("SELECT 1", {}, cause, connection_invalidated=invalidated)


def of_sqlite(code: int) -> SQLAlchemyError:
    cause = sqlite3.OperationalError("something")
    cause.sqlite_errorcode = code
    return wrapped(cause)


@pytest.mark.parametrize(
    ("cause", "failure"),
    [
        (psycopg.errors.SerializationFailure(), START_OVER),
        (psycopg.errors.DeadlockDetected(), START_OVER),
        (psycopg.OperationalError("connection refused"), UNAVAILABLE),
        (psycopg.errors.AdminShutdown(), UNAVAILABLE),
        (psycopg.errors.CrashShutdown(), UNAVAILABLE),
        (psycopg.errors.CannotConnectNow(), UNAVAILABLE),
        (psycopg.errors.DiskFull(), UNAVAILABLE),
        (psycopg.errors.TooManyConnections(), UNAVAILABLE),
        (psycopg.errors.LockNotAvailable(), UNAVAILABLE),
        (psycopg.errors.QueryCanceled(), UNAVAILABLE),
        (psycopg.errors.IdleInTransactionSessionTimeout(), UNAVAILABLE),
        (psycopg.errors.ReadOnlySqlTransaction(), UNAVAILABLE),
        (psycopg.errors.UniqueViolation(), BUG),
        (psycopg.errors.CheckViolation(), BUG),
        (psycopg.errors.UndefinedTable(), BUG),
        (psycopg.errors.SyntaxError(), BUG),
        (RuntimeError(), BUG),
    ],
    ids=lambda value: value.name if isinstance(value, Failure) else type(value).__name__,
)
def test_a_postgresql_error_asks_for(cause: Exception, failure: Failure) -> None:
    assert classify(wrapped(cause)) is failure


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (sqlite3.SQLITE_BUSY, START_OVER),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, START_OVER),
        (sqlite3.SQLITE_LOCKED, UNAVAILABLE),
        (sqlite3.SQLITE_FULL, UNAVAILABLE),
        (sqlite3.SQLITE_IOERR, UNAVAILABLE),
        (sqlite3.SQLITE_IOERR_FSYNC, UNAVAILABLE),
        (sqlite3.SQLITE_CANTOPEN, UNAVAILABLE),
        (sqlite3.SQLITE_READONLY, UNAVAILABLE),
        (sqlite3.SQLITE_CONSTRAINT, BUG),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, BUG),
        (sqlite3.SQLITE_ERROR, BUG),
        (sqlite3.SQLITE_CORRUPT, BUG),
        (sqlite3.SQLITE_MISUSE, BUG),
    ],
)
def test_a_sqlite_error_asks_for(code: int, failure: Failure) -> None:
    assert classify(of_sqlite(code)) is failure


@pytest.mark.parametrize(
    "error",
    [of_sqlite(sqlite3.SQLITE_READONLY), wrapped(psycopg.errors.ReadOnlySqlTransaction())],
    ids=["sqlite", "postgresql"],
)
def test_a_write_that_a_reader_tries_is_a_bug(error: SQLAlchemyError) -> None:
    assert classify(error, reading=True) is BUG


def test_a_lost_connection_is_an_outage_whatever_it_was_doing() -> None:
    assert classify(wrapped(psycopg.InterfaceError(), invalidated=True)) is UNAVAILABLE
    assert classify(wrapped(psycopg.InterfaceError())) is BUG


def test_no_free_connection_is_an_outage_and_misuse_is_a_bug() -> None:
    assert classify(PoolTimeoutError()) is UNAVAILABLE
    assert classify(ArgumentError()) is BUG


@pytest.mark.parametrize("name", DURABLE)
def test_a_postgresql_that_may_forget_is_refused(name: str) -> None:
    with pytest.raises(NotDurable, match=name):
        check_durable(DURABLE | {name: "off"})


@pytest.mark.parametrize("word", ["on", "local", "remote_write", "remote_apply"])
def test_a_postgresql_that_flushes_its_own_log_is_accepted(word: str) -> None:
    check_durable(DURABLE | {"synchronous_commit": word})


@pytest.mark.parametrize(
    "url", ["mysql://host/name", "sqlite://", "sqlite:///", "sqlite:///:memory:", "flasc.db", ""]
)
def test_a_database_the_service_does_not_know_is_refused(url: str) -> None:
    with pytest.raises(WrongAddress, match="sqlite"):
        database_url(url)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgresql://me@host/name", "postgresql+psycopg"),
        ("postgres://me@host/name", "postgresql+psycopg"),
        ("postgresql+psycopg://me@host/name", "postgresql+psycopg"),
        ("sqlite:///file.db", "sqlite+pysqlite"),
    ],
)
def test_a_url_gets_the_driver_that_the_service_has(url: str, driver: str) -> None:
    assert database_url(url).drivername == driver
