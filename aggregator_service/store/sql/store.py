"""Named transactions on a SQL database, repeated where another one won."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from aggregator_service.store.base import LostRace, StoreUnavailable, Transaction
from aggregator_service.store.sql.failures import Failure, classify
from aggregator_service.store.sql.group_commit import GroupCommit
from aggregator_service.store.sql.transaction import SqlTransaction

__all__ = ["Observer", "PostgresConnections", "SqlStore", "SqliteConnections"]

T = TypeVar("T")

# Of the standard module: commands use the store too, and their stdout is for results.
_log = logging.getLogger(__name__)

ATTEMPTS: Final = 8
_FIRST_PAUSE_SECONDS: Final = 0.005
_LONGEST_PAUSE_SECONDS: Final = 0.1
# A device gives up on a call before long, and a busy database has waited each time already.
_PATIENCE_SECONDS: Final = 10


class Observer(Protocol):
    def __call__(self, name: str, seconds: float, attempts: int) -> None:
        """Told of every transaction that has ended, well or not, for metrics."""


class Connections(Protocol):
    def write(self, body: Callable[[Connection], T]) -> T:
        """Runs `body` in a transaction and commits it; rolls back where it raises."""

    def read(self, body: Callable[[Connection], T]) -> T:
        """Runs `body` in a transaction that can not write."""

    def close(self) -> None: ...


class SqliteConnections:
    def __init__(self, writer: Engine, readers: Engine) -> None:
        self._writer = writer
        self._readers = readers
        self._commits = GroupCommit(writer)

    def write(self, body: Callable[[Connection], T]) -> T:
        return self._commits.run(body)

    def read(self, body: Callable[[Connection], T]) -> T:
        with self._readers.begin() as connection:
            return body(connection)

    def close(self) -> None:
        self._readers.dispose()
        self._writer.dispose()


class PostgresConnections:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._readers = engine.execution_options(postgresql_readonly=True)

    def write(self, body: Callable[[Connection], T]) -> T:
        with self._engine.begin() as connection:
            return body(connection)

    def read(self, body: Callable[[Connection], T]) -> T:
        with self._readers.begin() as connection:
            return body(connection)

    def close(self) -> None:
        self._engine.dispose()


class SqlStore:
    def __init__(
        self,
        connections: Connections,
        *,
        check_schema: Callable[[Connection], None],
        observe: Observer | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connections = connections
        self._check_schema = check_schema
        self._observe = observe
        self._sleep = sleep

    def run(self, name: str, body: Callable[[Transaction], T]) -> T:
        return self._repeat(
            name,
            lambda: self._connections.write(lambda connection: body(SqlTransaction(connection))),
        )

    def read(self, name: str, body: Callable[[Transaction], T]) -> T:
        return self._repeat(
            name,
            lambda: self._connections.read(lambda connection: body(SqlTransaction(connection))),
            reading=True,
        )

    def check_ready(self) -> None:
        self._repeat("check_ready", lambda: self._connections.read(self._check_schema))

    def close(self) -> None:
        self._connections.close()

    def _repeat(self, name: str, once: Callable[[], T], *, reading: bool = False) -> T:
        started = time.perf_counter()
        attempt = 1
        try:
            while True:
                is_last = attempt == ATTEMPTS or time.perf_counter() > started + _PATIENCE_SECONDS
                try:
                    return once()
                except LostRace:
                    if is_last:
                        raise
                except SQLAlchemyError as error:
                    _judge(name, error, is_last=is_last, reading=reading)
                self._sleep(_pause(attempt))
                attempt += 1
        finally:
            if self._observe is not None:
                self._observe(name, time.perf_counter() - started, attempt)


def _judge(name: str, error: SQLAlchemyError, *, is_last: bool, reading: bool) -> None:
    """Returns where the transaction may start over."""
    failure = classify(error, reading=reading)
    if failure is Failure.BUG:
        raise error
    if failure is Failure.UNAVAILABLE or is_last:
        _log.warning("transaction %s failed: %s", name, error)
        raise StoreUnavailable(f"{name}: the database can not do this now") from error


def _pause(attempt: int) -> float:
    """Random, so that those who met do not meet again."""
    longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**attempt)
    return random.uniform(0.0, longest)  # noqa: S311 - no secret
