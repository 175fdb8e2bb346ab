"""Many at once: what was acknowledged is what a round closes with, and readers miss nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.updates import Update
from aggregator_service.store.base import Lock, Store, Transaction
from flasc_core.errors import Refusal
from tests.builders import (
    NOW,
    a_config,
    a_device,
    a_policy,
    a_round,
    a_task,
    an_assignment,
    an_event,
    an_update,
    stored,
)
from tests.support.patience import PATIENCE_SECONDS

ROUNDS, WRITERS, UPDATES_EACH, GOAL = 40, 8, 3, 6


@dataclass(slots=True)
class Outcome:
    acknowledged: set[UUID] = field(default_factory=set)
    # What the ledger held when the round closed, and how many the round says it closed with.
    fixed: set[UUID] = field(default_factory=set)
    count: int | None = None


def accept(store: Store, update: Update, lock: Lock) -> None:
    """The transaction by which an update is accepted; raises Refusal where the round is over."""

    def body(tx: Transaction) -> None:
        current = tx.rounds.get(update.round_id, lock)
        assert current is not None
        assert tx.updates.add_if_absent(update)
        current.check_admits(NOW)

    store.run("accept", body)


def close(store: Store, current: Round) -> tuple[set[UUID], int | None] | None:
    def body(tx: Transaction) -> tuple[set[UUID], int | None] | None:
        locked = tx.rounds.get(current.id, Lock.EXCLUSIVE)
        assert locked is not None
        ids = set(tx.updates.ids(current.id))
        closed = locked.tick(NOW, len(ids))
        if closed is locked:
            return None
        tx.rounds.save(closed)
        return ids, closed.accepted_updates

    return store.run("close", body)


def race(store: Store, current: Round, updates: list[list[Update]], lock: Lock) -> Outcome:
    """Writers hand in one update after the other while somebody closes the round when he may."""
    outcome = Outcome()
    start = threading.Barrier(len(updates) + 1)

    def write(own: list[Update]) -> None:
        start.wait(PATIENCE_SECONDS)
        with suppress(Refusal):
            for update in own:
                accept(store, update, lock)
                outcome.acknowledged.add(update.id)

    with ThreadPoolExecutor(max_workers=len(updates)) as writers:
        writing = [writers.submit(write, own) for own in updates]
        start.wait(PATIENCE_SECONDS)
        while (closed := close(store, current)) is None:
            pass
        for done in writing:
            done.result()
    outcome.fixed, outcome.count = closed
    return outcome


def race_often(store: Store, lock: Lock) -> list[Outcome]:
    task = a_task(config=a_config(policy=a_policy(goal=GOAL, quorum=1)))
    devices = [a_device() for _ in range(WRITERS * UPDATES_EACH)]
    stored(store, task, *devices)
    outcomes = []
    for number in range(1, ROUNDS + 1):
        current = a_round(task, state=RoundState.COLLECTING, number=number)
        assignments = [an_assignment(current, device) for device in devices]
        stored(store, current, *assignments)
        updates = [an_update(assignment) for assignment in assignments]
        by_writer = [updates[writer::WRITERS] for writer in range(WRITERS)]
        outcomes.append(race(store, current, by_writer, lock))
    return outcomes


def test_every_acknowledged_update_is_in_the_set_its_round_closed_with(sql_store: Store) -> None:
    outcomes = race_often(sql_store, Lock.SHARED)

    for outcome in outcomes:
        assert outcome.acknowledged == outcome.fixed
        assert outcome.count == len(outcome.fixed)
    # A race that nobody ever loses would prove nothing.
    assert any(len(outcome.fixed) < WRITERS * UPDATES_EACH for outcome in outcomes)


def test_without_its_lock_the_race_is_lost_on_postgresql(postgres_store: Store) -> None:
    """The test above can fail: the lock that accepting takes is what it is about."""
    outcomes = race_often(postgres_store, Lock.NONE)

    assert any(outcome.acknowledged - outcome.fixed for outcome in outcomes)


def test_uploads_that_overlap_without_end_do_not_keep_a_round_open(postgres_store: Store) -> None:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    stored(postgres_store, task, current)
    over = threading.Event()

    def upload(mine: threading.Event, other: threading.Event) -> None:
        def body(tx: Transaction) -> None:
            tx.rounds.get(current.id, Lock.SHARED)
            other.clear()
            mine.set()
            # One lets go when the other has the lock too; with a closer in between it gives up.
            other.wait(0.2)

        while not over.is_set():
            postgres_store.run("upload", body)

    first, second = threading.Event(), threading.Event()
    with ThreadPoolExecutor(max_workers=2) as uploaders:
        uploading = [
            uploaders.submit(upload, first, second),
            uploaders.submit(upload, second, first),
        ]
        try:
            for _ in range(3):
                postgres_store.run("close", lambda tx: tx.rounds.get(current.id, Lock.EXCLUSIVE))
        finally:
            over.set()
        for done in uploading:
            done.result()


def test_a_reader_of_events_misses_none_that_commits_late(sql_store: Store) -> None:
    task = a_task()
    stored(sql_store, task)
    per_writer, seen = 25, list[int]()

    def write() -> None:
        for _ in range(per_writer):
            sql_store.run("write", lambda tx: tx.events.append(an_event(task)))

    def read() -> list[int]:
        last = seen[-1] if seen else 0
        events = sql_store.read("read", lambda tx: tx.events.after(last, limit=7))
        return [one.sequence for one in events]

    with ThreadPoolExecutor(max_workers=WRITERS) as writers:
        writing = [writers.submit(write) for _ in range(WRITERS)]
        while len(seen) < WRITERS * per_writer:
            finished = all(done.done() for done in writing)
            events = read()
            seen += events
            # Nothing more will come: whatever is missing now is lost.
            assert events or not finished

    assert len(set(seen)) == WRITERS * per_writer
    assert seen == sorted(seen)


def test_a_reader_waits_for_the_lower_number_before_it_reads_the_higher(
    postgres_store: Store,
) -> None:
    task = a_task()
    stored(postgres_store, task)
    appended, commit = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        tx.events.append(an_event(task, state="slow"))
        appended.set()
        assert commit.wait(PATIENCE_SECONDS)

    def read() -> list[str]:
        events = postgres_store.read("read", lambda tx: tx.events.after(0, limit=9))
        return [one.state for one in events]

    with ThreadPoolExecutor(max_workers=2) as threads:
        writing = threads.submit(postgres_store.run, "slow", slow)
        assert appended.wait(PATIENCE_SECONDS)
        stored(postgres_store, an_event(task, state="quick"))
        reading = threads.submit(read)
        # Long enough for a reader that does not wait to come back with half.
        wait([reading], timeout=0.5)
        commit.set()
        writing.result()
        assert reading.result() == ["slow", "quick"]
