"""The SQL stores beside their contract: settings, outages, lost races and several processes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, make_url

from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.store import schema
from aggregator_service.store.base import (
    Lock,
    NotDurable,
    Store,
    StoreUnavailable,
    Transaction,
)
from aggregator_service.store.open import open_store
from aggregator_service.store.sql.engines import database_url, postgres_engine, sqlite_engine
from aggregator_service.store.sql.store import PostgresConnections, SqliteConnections, SqlStore
from tests.builders import NOW, a_device, a_round, a_task, an_event, stored
from tests.support.patience import PATIENCE_SECONDS
from tests.support.postgres import PostgresCluster, PostgresServer, find_binaries


def settings(engine: Engine, query: str, *names: str) -> list[object]:
    with engine.connect() as connection:
        return [connection.exec_driver_sql(query.format(name)).scalar_one() for name in names]


def test_sqlite_commits_are_flushed_and_references_hold(tmp_path: Path) -> None:
    url = database_url(f"sqlite:///{tmp_path}/new/folder/flasc.db")
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "query_only")

    for read_only in (False, True):
        engine = sqlite_engine(url, pool_size=1, begin="BEGIN", read_only=read_only)
        found = settings(engine, "PRAGMA {}", *names)
        engine.dispose()
        # 2 is FULL.
        assert found == ["wal", 2, 1, 5000, int(read_only)]


def test_postgresql_sessions_are_bounded(postgres_url: str) -> None:
    engine = postgres_engine(database_url(postgres_url), pool_size=1)
    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "transaction_isolation",
        "timezone",
        "application_name",
    )
    found = settings(engine, "SHOW {}", *names)
    engine.dispose()

    assert found == ["5s", "2s", "10s", "read committed", "UTC", "flasc"]


def test_a_postgresql_that_may_forget_is_not_opened(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    name = sql.Identifier(str(make_url(url).database))
    with psycopg.connect(url, autocommit=True) as connection:
        query = sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name)
        connection.execute(query)

    try:
        with pytest.raises(NotDurable, match="synchronous_commit"):
            open_store(url)
        open_store(url, check_durability=False).close()
    finally:
        postgres_server.drop_database(url)


def test_a_database_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        open_store("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(StoreUnavailable):
        schema.current_revision("postgresql://nobody@127.0.0.1:1/nothing")


def test_times_come_back_in_utc_whatever_zone_they_had(sql_store: Store) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    task = a_task(created_at=elsewhere)
    stored(sql_store, task)

    read = sql_store.read("get", lambda tx: tx.tasks.get(task.id))

    assert read is not None
    assert read.created_at == elsewhere
    assert read.created_at.tzinfo is UTC


def two_rounds(store: Store) -> tuple[Round, Round]:
    task = a_task()
    first, second = (a_round(task, state=RoundState.COLLECTING, number=n) for n in (1, 2))
    stored(store, task, first, second)
    return first, second


def test_two_transactions_that_wait_for_each_other_both_succeed(postgres_store: Store) -> None:
    first, second = two_rounds(postgres_store)
    both_hold_one = threading.Barrier(2)
    attempts: list[None] = []

    def lock_both(one: Round, other: Round) -> None:
        def body(tx: Transaction) -> None:
            attempts.append(None)
            tx.rounds.get(one.id, Lock.EXCLUSIVE)
            if len(attempts) <= 2:
                both_hold_one.wait(PATIENCE_SECONDS)
            tx.rounds.get(other.id, Lock.EXCLUSIVE)

        postgres_store.run("lock", body)

    with ThreadPoolExecutor(max_workers=2) as threads:
        done = [threads.submit(lock_both, first, second), threads.submit(lock_both, second, first)]
        for one in done:
            one.result()

    assert len(attempts) == 3


@pytest.fixture
def hasty_store(postgres_url: str) -> Iterator[Store]:
    """Waits for a lock no longer than a test likes to."""
    engine = postgres_engine(
        database_url(postgres_url), pool_size=1, lock_timeout=timedelta(seconds=0.1)
    )
    opened = SqlStore(PostgresConnections(engine), check_schema=schema.SchemaCheck())
    yield opened
    opened.close()


def test_a_lock_that_is_not_let_go_is_an_outage_and_not_for_ever(
    postgres_store: Store, hasty_store: Store
) -> None:
    first, _ = two_rounds(postgres_store)
    held, let_go = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> None:
        tx.rounds.get(first.id, Lock.EXCLUSIVE)
        held.set()
        assert let_go.wait(PATIENCE_SECONDS)

    with ThreadPoolExecutor(max_workers=1) as threads:
        holding = threads.submit(postgres_store.run, "hold", hold)
        assert held.wait(PATIENCE_SECONDS)
        with pytest.raises(StoreUnavailable):
            hasty_store.run("want", lambda tx: tx.rounds.get(first.id, Lock.SHARED))
        let_go.set()
        holding.result()

    assert hasty_store.run("want", lambda tx: tx.rounds.get(first.id, Lock.SHARED)) == first


@pytest.fixture
def durable_cluster() -> Iterator[PostgresCluster]:
    cluster = PostgresCluster(find_binaries(), durable=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def test_a_crash_of_postgresql_is_an_outage_that_loses_nothing(
    durable_cluster: PostgresCluster,
) -> None:
    schema.upgrade(durable_cluster.url)
    store = open_store(durable_cluster.url)
    task = a_task()
    stored(store, task)

    durable_cluster.kill()
    with pytest.raises(StoreUnavailable):
        store.read("get", lambda tx: tx.tasks.get(task.id))
    with pytest.raises(StoreUnavailable):
        stored(store, a_task())
    with pytest.raises(StoreUnavailable):
        store.check_ready()

    durable_cluster.start()
    store.check_ready()
    assert store.read("page", lambda tx: tx.tasks.page(limit=9, after=None)) == [task]
    store.close()


def test_two_processes_may_write_one_sqlite_file(sqlite_url: str) -> None:
    task = a_task()
    stores = [open_store(sqlite_url) for _ in range(2)]
    stored(stores[0], task)

    def write(store: Store) -> None:
        for _ in range(25):
            store.run("write", lambda tx: tx.events.append(an_event(task)))

    with ThreadPoolExecutor(max_workers=8) as threads:
        for done in [threads.submit(write, store) for store in stores * 4]:
            done.result()

    assert stores[1].read("last", lambda tx: tx.events.last_sequence()) == 200
    for store in stores:
        store.close()


def test_a_busy_sqlite_is_tried_again_and_then_an_outage(sqlite_url: str) -> None:
    other = sqlite3.connect(make_url(sqlite_url).database or "", isolation_level=None)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            other.execute("ROLLBACK")

    store = SqlStore(
        SqliteConnections(*impatient_engines(sqlite_url)),
        check_schema=schema.SchemaCheck(),
        sleep=pause,
    )
    other.execute("BEGIN IMMEDIATE")
    stored(store, a_device())
    assert len(pauses) == 2

    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        stored(store, a_device())
    other.execute("ROLLBACK")
    stored(store, a_device())
    assert len(store.read("page", lambda tx: tx.devices.page(limit=9, after=None))) == 2
    other.close()
    store.close()


def impatient_engines(url: str) -> tuple[Engine, Engine]:
    parsed, at_once = database_url(url), timedelta(0)
    return (
        sqlite_engine(parsed, pool_size=1, begin="BEGIN IMMEDIATE", busy_timeout=at_once),
        sqlite_engine(parsed, pool_size=1, begin="BEGIN", read_only=True, busy_timeout=at_once),
    )


def test_every_transaction_is_observed_by_name(sqlite_url: str) -> None:
    observed: list[tuple[str, int]] = []

    def observe(name: str, seconds: float, attempts: int) -> None:
        assert seconds >= 0
        observed.append((name, attempts))

    store = open_store(sqlite_url, observe=observe)
    stored(store, a_device())
    store.read("look", lambda tx: tx.devices.page(limit=9, after=None))
    with pytest.raises(ZeroDivisionError):
        store.run("fail", lambda _: 1 // 0)
    store.check_ready()
    store.close()

    assert observed == [("stored", 1), ("look", 1), ("fail", 1), ("check_ready", 1)]
