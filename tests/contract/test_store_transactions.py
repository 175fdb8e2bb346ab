"""What every store promises of transactions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import TaskState
from aggregator_service.store.base import LostRace, Store, Transaction
from flasc_core.errors import Reason
from tests.builders import (
    NOW,
    a_device,
    a_round,
    a_task,
    an_adapter,
    an_api_key,
    an_assignment,
    an_event,
    an_update,
    stored,
)
from tests.support.patience import PATIENCE_SECONDS


class Oops(Exception):
    pass


def test_a_body_returns_its_result(store: Store) -> None:
    assert store.run("answer", lambda _: 42) == 42
    assert store.read("answer", lambda _: 42) == 42


def test_a_body_sees_its_own_changes(store: Store) -> None:
    task = a_task()

    def body(tx: Transaction) -> bool:
        tx.tasks.add(task)
        return tx.tasks.get(task.id) == task

    assert store.run("add", body)


def test_an_exception_undoes_every_table(store: Store) -> None:
    task, device = a_task(), a_device()
    current = a_round(task, state=RoundState.COLLECTING)
    assignment = an_assignment(current, device)
    update = an_update(assignment)
    stored(store, task, device, current)
    before = store.read("everything", _everything(current.id, device.id))

    def body(tx: Transaction) -> None:
        tx.tasks.add(a_task())
        tx.tasks.save(task.move_to(TaskState.PAUSED))
        tx.rounds.save(replace(current, accepted_updates=3))
        assert tx.rounds.take_seat(current.id, 1)
        assert tx.assignments.add_if_absent(assignment)
        tx.assignments.add_bytes(assignment.id, up=5)
        assert tx.updates.add_if_absent(update)
        tx.accumulators.ensure(current.id, 2)
        tx.adapters.add(an_adapter(task))
        tx.devices.revoke(device.id, NOW)
        tx.api_keys.add(an_api_key())
        tx.rejections.count(Reason.ROUND_CLOSED, task_id=task.id, round_id=current.id)
        tx.events.append(an_event(task))
        raise Oops

    with pytest.raises(Oops):
        store.run("fail", body)

    assert store.read("everything", _everything(current.id, device.id)) == before
    assert store.run("seat", lambda tx: tx.rounds.take_seat(current.id, 1))


def _everything(round_id: UUID, device_id: UUID) -> Callable[[Transaction], object]:
    return lambda tx: (
        tx.tasks.page(limit=9, after=None),
        tx.rounds.get(round_id),
        tx.assignments.page(round_id, limit=9, after=None),
        tx.updates.ids(round_id),
        tx.accumulators.all(round_id),
        tx.devices.get(device_id),
        tx.api_keys.page(limit=9, after=None),
        dict(tx.rejections.totals()),
        tx.events.after(0, limit=9),
    )


def test_a_lost_race_runs_the_body_again_on_clean_ground(store: Store) -> None:
    task = a_task()
    attempts: list[bool] = []

    def body(tx: Transaction) -> None:
        attempts.append(tx.tasks.get(task.id) is None)
        tx.tasks.add(task)
        if len(attempts) < 3:
            raise LostRace("again")

    store.run("add", body)

    assert attempts == [True, True, True]
    assert store.read("get", lambda tx: tx.tasks.get(task.id)) == task


def test_a_race_that_is_always_lost_ends(store: Store) -> None:
    attempts: list[None] = []

    def body(_: Transaction) -> None:
        attempts.append(None)
        raise LostRace("for ever")

    with pytest.raises(LostRace):
        store.run("lose", body)

    assert 1 < len(attempts) <= 20


def test_other_exceptions_run_a_body_once(store: Store) -> None:
    attempts: list[None] = []

    def body(_: Transaction) -> None:
        attempts.append(None)
        raise Oops

    with pytest.raises(Oops):
        store.run("fail", body)

    assert len(attempts) == 1


def test_what_a_read_writes_is_not_stored(store: Store) -> None:
    task = a_task()

    with suppress(DBAPIError):
        store.read("write", lambda tx: tx.tasks.add(task))

    assert store.read("get", lambda tx: tx.tasks.get(task.id)) is None


def test_a_read_that_writes_is_a_bug_and_no_outage(sql_store: Store) -> None:
    with pytest.raises(DBAPIError) as failed:
        sql_store.read("write", lambda tx: tx.tasks.add(a_task(name="secret")))

    assert "secret" not in str(failed.value)


def test_a_read_does_not_see_what_is_not_committed(store: Store) -> None:
    task = a_task()
    added, looked = threading.Event(), threading.Event()

    def body(tx: Transaction) -> None:
        tx.tasks.add(task)
        added.set()
        assert looked.wait(PATIENCE_SECONDS)

    writer = threading.Thread(target=lambda: store.run("add", body))
    writer.start()
    assert added.wait(PATIENCE_SECONDS)
    seen = store.read("look", lambda tx: tx.tasks.get(task.id))
    looked.set()
    writer.join(PATIENCE_SECONDS)

    assert seen is None
    assert store.read("look", lambda tx: tx.tasks.get(task.id)) == task


def test_transactions_of_many_threads_all_count(store: Store) -> None:
    task = a_task()
    stored(store, task)

    def append() -> None:
        for _ in range(5):
            store.run("append", lambda tx: tx.events.append(an_event(task)))

    threads = [threading.Thread(target=append) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)

    events = store.read("all", lambda tx: tx.events.after(0, limit=1000))
    assert len(events) == 40
    assert len({event.sequence for event in events}) == 40


def test_a_new_store_is_ready(store: Store) -> None:
    store.check_ready()
