"""Transactions of one SQLite database that wait for each other are committed together."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import OperationalError

from aggregator_service.store.base import StoreUnavailable
from aggregator_service.store.sql.engines import database_url, sqlite_engine
from aggregator_service.store.sql.group_commit import GroupCommit
from tests.support.patience import PATIENCE_SECONDS

caller: ContextVar[str] = ContextVar("caller")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = sqlite_engine(
        database_url(f"sqlite:///{tmp_path}/group.db"), pool_size=1, begin="BEGIN IMMEDIATE"
    )
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (number INTEGER PRIMARY KEY)"))
    yield engine
    engine.dispose()


class Group:
    """One transaction held open while others queue behind it, then let go."""

    def __init__(self, commits: GroupCommit) -> None:
        self._commits = commits
        self._threads = ThreadPoolExecutor(max_workers=32)
        self._opened, self._go = threading.Event(), threading.Event()
        self._first = self._threads.submit(commits.run, self._hold)
        assert self._opened.wait(PATIENCE_SECONDS)
        self._queued: list[Future[object]] = []

    def _hold(self, _: Connection) -> None:
        self._opened.set()
        assert self._go.wait(PATIENCE_SECONDS)

    def queue(self, body: Callable[[Connection], object]) -> Future[object]:
        """In order: the next is queued only once this one is."""
        before = len(self._commits._queue)
        future = self._threads.submit(copy_context().run, self._commits.run, body)
        while len(self._commits._queue) == before:
            pass
        self._queued.append(future)
        return future

    def let_go(self) -> None:
        self._go.set()
        self._threads.shutdown(wait=True)
        self._first.result()


def insert(number: int) -> Callable[[Connection], int]:
    def body(connection: Connection) -> int:
        connection.execute(text("INSERT INTO numbers VALUES (:number)"), {"number": number})
        return number

    return body


def numbers(engine: Engine) -> list[int]:
    with engine.begin() as connection:
        return numbers_in(connection)


def numbers_in(connection: Connection) -> list[int]:
    return list(connection.execute(text("SELECT number FROM numbers ORDER BY 1")).scalars())


def commits_of(engine: Engine) -> list[None]:
    counted: list[None] = []
    event.listen(engine, "commit", lambda _: counted.append(None))
    return counted


def test_one_body_is_committed_and_returns(engine: Engine) -> None:
    assert GroupCommit(engine).run(insert(7)) == 7

    assert numbers(engine) == [7]


def test_bodies_that_queue_share_one_commit(engine: Engine) -> None:
    group = Group(GroupCommit(engine))
    counted = commits_of(engine)

    futures = [group.queue(insert(number)) for number in range(10)]
    group.let_go()

    assert [future.result() for future in futures] == list(range(10))
    # The first transaction's own, and one for all ten.
    assert len(counted) == 2
    assert numbers(engine) == list(range(10))


def test_a_batch_has_a_largest_size(engine: Engine) -> None:
    group = Group(GroupCommit(engine, largest_batch=4))
    counted = commits_of(engine)

    for number in range(10):
        group.queue(insert(number))
    group.let_go()

    assert len(counted) == 1 + 3
    assert numbers(engine) == list(range(10))


def test_a_body_that_raises_undoes_only_itself(engine: Engine) -> None:
    def body(connection: Connection) -> None:
        insert(2)(connection)
        raise ValueError("no")

    group = Group(GroupCommit(engine))
    before, failing, after = group.queue(insert(1)), group.queue(body), group.queue(insert(3))
    group.let_go()

    assert before.result() == 1
    assert after.result() == 3
    with pytest.raises(ValueError, match="no"):
        failing.result()
    assert numbers(engine) == [1, 3]


def test_a_statement_that_fails_undoes_only_its_own_body(engine: Engine) -> None:
    group = Group(GroupCommit(engine))
    first, same = group.queue(insert(1)), group.queue(insert(1))
    group.let_go()

    assert first.result() == 1
    with pytest.raises(Exception, match="UNIQUE"):
        same.result()
    assert numbers(engine) == [1]


def test_nobody_returns_before_the_commit(engine: Engine) -> None:
    group = Group(GroupCommit(engine))
    done_at_commit: list[bool] = []
    futures = [group.queue(insert(number)) for number in (1, 2)]
    event.listen(
        engine,
        "commit",
        lambda _: done_at_commit.extend(future.done() for future in futures),
    )
    group.let_go()

    assert [future.result() for future in futures] == [1, 2]
    # Twice for two futures: at the first transaction's commit and at their own.
    assert done_at_commit == [False] * 4


def test_when_the_commit_fails_everybody_fails(engine: Engine) -> None:
    def refuse(connection: Connection) -> None:
        # By what another body of the batch wrote, and nobody will ever see.
        raise ValueError(numbers_in(connection))

    group = Group(GroupCommit(engine))
    futures: list[Future[object]] = [group.queue(insert(number)) for number in (1, 2)]
    futures.append(group.queue(refuse))

    def fail(connection: Connection) -> None:
        # The first transaction holds nothing; the second is the one of the two.
        if connection.execute(text("SELECT count(*) FROM numbers")).scalar_one():
            raise sqlite3.OperationalError("disk I/O error")

    event.listen(engine, "commit", fail)
    group.let_go()
    event.remove(engine, "commit", fail)

    for future in futures:
        with pytest.raises(sqlite3.OperationalError):
            future.result()
    assert numbers(engine) == []


def test_when_sqlite_gives_up_the_transaction_everybody_fails(engine: Engine) -> None:
    commits = GroupCommit(engine)

    def body(connection: Connection) -> None:
        # What SQLite does by itself when the disk is full.
        connection.exec_driver_sql("ROLLBACK")
        raise ValueError("full")

    group = Group(commits)
    before, failing, after = group.queue(insert(1)), group.queue(body), group.queue(insert(3))
    group.let_go()

    for future in (before, failing, after):
        with pytest.raises(ValueError, match="full"):
            future.result()
    assert numbers(engine) == []
    assert commits.run(insert(4)) == 4
    assert numbers(engine) == [4]


def test_a_full_disk_fails_everybody_and_then_room_helps(engine: Engine) -> None:
    commits = GroupCommit(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE large (content BLOB)")
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    with engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")

    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO large VALUES (zeroblob(1000000))")

    with pytest.raises(OperationalError, match="full"):
        commits.run(fill)
    assert commits.run(insert(1)) == 1
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    commits.run(fill)

    assert numbers(engine) == [1]


def test_an_interrupted_leader_leaves_nobody_waiting(engine: Engine) -> None:
    commits = GroupCommit(engine)

    def body(_: Connection) -> None:
        raise KeyboardInterrupt

    group = Group(commits)
    first, interrupted, last = group.queue(insert(1)), group.queue(body), group.queue(insert(3))
    group.let_go()

    outcomes = [future.exception() for future in (first, interrupted, last)]
    assert sum(isinstance(error, KeyboardInterrupt) for error in outcomes) == 1
    assert sum(isinstance(error, StoreUnavailable) for error in outcomes) == 2
    assert numbers(engine) == []
    assert commits.run(insert(4)) == 4


def test_a_body_runs_in_its_callers_context(engine: Engine) -> None:
    group = Group(GroupCommit(engine))
    futures = []
    for name in ("first", "second"):
        caller.set(name)
        futures.append(group.queue(lambda _: caller.get()))
    group.let_go()

    # One thread led both.
    assert [future.result() for future in futures] == ["first", "second"]


def test_a_body_that_begins_another_transaction_is_told(engine: Engine) -> None:
    commits = GroupCommit(engine)

    with pytest.raises(AssertionError, match="another transaction"):
        commits.run(lambda _: commits.run(insert(1)))

    assert numbers(engine) == []
    assert commits.run(insert(1)) == 1


def test_many_threads_lose_nothing(engine: Engine) -> None:
    commits = GroupCommit(engine, largest_batch=5)
    with ThreadPoolExecutor(max_workers=16) as threads:
        returned = list(threads.map(lambda number: commits.run(insert(number)), range(400)))

    assert returned == list(range(400))
    assert numbers(engine) == list(range(400))
