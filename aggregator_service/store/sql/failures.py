"""What a database error asks of us: start over, tell the caller to come back, or fix a bug."""

from __future__ import annotations

import sqlite3
from enum import Enum, unique
from typing import Final

from psycopg import Error as PostgresError
from psycopg import OperationalError as PostgresOperationalError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

__all__ = ["Failure", "classify"]


@unique
class Failure(Enum):
    # The database undid the transaction in favour of another one.
    START_OVER = "START_OVER"
    # It can not be reached, or can not do this now.
    UNAVAILABLE = "UNAVAILABLE"
    BUG = "BUG"


# serialization_failure and deadlock_detected.
_START_OVER_STATES: Final = frozenset({"40001", "40P01"})
# A server that has become a read-only replica.
_READ_ONLY_STATE: Final = "25006"
# idle_in_transaction_session_timeout; everything else of the kind is an OperationalError.
_IDLE_STATE: Final = "25P03"

_UNAVAILABLE_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)


def classify(error: SQLAlchemyError, *, reading: bool = False) -> Failure:
    """`reading`: the transaction was not to write, so that a refused write is a bug."""
    # No connection of the pool came free in time.
    if isinstance(error, PoolTimeoutError):
        return Failure.UNAVAILABLE
    if not isinstance(error, DBAPIError):
        return Failure.BUG
    if error.connection_invalidated:
        return Failure.UNAVAILABLE
    refused_write = Failure.BUG if reading else Failure.UNAVAILABLE
    match error.orig:
        case sqlite3.Error() as cause:
            return _classify_sqlite(cause, refused_write)
        case PostgresError() as cause:
            return _classify_postgres(cause, refused_write)
        case _:
            return Failure.BUG


def _classify_postgres(cause: PostgresError, refused_write: Failure) -> Failure:
    if cause.sqlstate in _START_OVER_STATES:
        return Failure.START_OVER
    if cause.sqlstate == _READ_ONLY_STATE:
        return refused_write
    if cause.sqlstate == _IDLE_STATE or isinstance(cause, PostgresOperationalError):
        return Failure.UNAVAILABLE
    return Failure.BUG


def _classify_sqlite(cause: sqlite3.Error, refused_write: Failure) -> Failure:
    # The low byte is the kind; the rest says more about it.
    kind = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if kind == sqlite3.SQLITE_BUSY:
        return Failure.START_OVER
    if kind == sqlite3.SQLITE_READONLY:
        return refused_write
    return Failure.UNAVAILABLE if kind in _UNAVAILABLE_CODES else Failure.BUG
