"""One writer for a whole process: transactions that wait for it are committed together.

    run ──▶ queue ──▶ the first to come leads: BEGIN IMMEDIATE
                      each body in its own savepoint, in order of arrival
                      COMMIT ──▶ wake the others ──▶ the next in the queue leads

A commit costs one fsync however many bodies it holds, and nobody waits for more company: a batch
is what has queued up meanwhile. A body that raises undoes its own savepoint only. Nobody returns
before the commit; where that fails, everybody in the batch fails.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from threading import Event, Lock, get_ident
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine

from aggregator_service.store.base import StoreUnavailable

__all__ = ["GroupCommit"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    body: Callable[[Connection], T]
    # Whoever leads runs the body as if its own caller did.
    context: Context = field(default_factory=copy_context)
    woken: Event = field(default_factory=Event)
    result: list[T] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def is_settled(self) -> bool:
        return bool(self.result) or self.error is not None

    def attempt(self, connection: Connection) -> None:
        """Runs the body in a savepoint; raises only where the whole transaction is gone."""
        savepoint = connection.begin_nested()
        try:
            self.result.append(self.context.run(self.body, connection))
            savepoint.commit()
        except Exception as error:
            self.result.clear()
            self.error = error
            if not _in_transaction(connection):
                raise
            savepoint.rollback()

    def outcome(self) -> T:
        if self.error is not None:
            raise self.error
        return self.result[0]


class GroupCommit:
    """`engine` begins transactions with BEGIN IMMEDIATE and is written to by nobody else here."""

    def __init__(self, engine: Engine, *, largest_batch: int = 64) -> None:
        self._engine = engine
        self._largest_batch = largest_batch
        self._mutex = Lock()
        self._queue: deque[_Job[Any]] = deque()
        self._leader: int | None = None
        self._has_leader = False

    def run(self, body: Callable[[Connection], T]) -> T:
        """Runs `body`, perhaps in another thread, and returns once it is committed."""
        if self._leader == get_ident():
            raise AssertionError("a transaction's body began another transaction")
        job = _Job(body)
        with self._mutex:
            self._queue.append(job)
            leads = not self._has_leader
            self._has_leader = True
        if not leads:
            job.woken.wait()
        if not job.is_settled:
            self._lead()
        return job.outcome()

    def _lead(self) -> None:
        with self._mutex:
            size = min(len(self._queue), self._largest_batch)
            batch = [self._queue.popleft() for _ in range(size)]
        self._leader = get_ident()
        try:
            self._commit(batch)
        finally:
            self._leader = None
            with self._mutex:
                successor = self._queue[0] if self._queue else None
                self._has_leader = successor is not None
            if successor is not None:
                successor.woken.set()
            for job in batch:
                job.woken.set()

    def _commit(self, batch: Sequence[_Job[Any]]) -> None:
        """Settles every job of the batch, whatever happens."""
        try:
            with self._engine.begin() as connection:
                for job in batch:
                    job.attempt(connection)
        except BaseException as error:
            failure = error if isinstance(error, Exception) else StoreUnavailable("interrupted")
            for job in batch:
                job.result.clear()
                # Also of one that was refused: what it was refused by is undone as well.
                job.error = failure
            if failure is not error:
                raise


def _in_transaction(connection: Connection) -> bool:
    """SQLite itself undoes everything after some errors, a full disk among them."""
    raw = connection.connection.dbapi_connection
    return raw is not None and bool(raw.in_transaction)
