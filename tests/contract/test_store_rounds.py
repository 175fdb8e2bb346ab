"""What every store keeps of rounds and their seats."""

from __future__ import annotations

import threading
from datetime import timedelta
from uuid import uuid4

import pytest

from aggregator_service.domain.rounds import AbortReason, RoundState
from aggregator_service.store.base import Lock, LostRace, Store
from flasc_core.layout import Role
from tests.builders import NOW, SECOND, a_config, a_download, a_policy, a_round, a_task, stored
from tests.support.patience import PATIENCE_SECONDS


@pytest.mark.parametrize("state", RoundState)
def test_a_stored_round_is_read_back_as_it_was(store: Store, state: RoundState) -> None:
    policy = a_policy(
        window=timedelta(minutes=1, microseconds=3),
        over_selection=1.3,
        minimum_cohort=2,
        minimum_separation=4,
        retry_min=timedelta(milliseconds=1),
    )
    task = a_task(config=a_config(policy=policy))
    current = a_round(task, state=state)

    stored(store, task, current)

    assert store.read("get", lambda tx: tx.rounds.get(current.id)) == current


def test_a_round_keeps_a_download_for_every_tier(store: Store) -> None:
    task = a_task()
    downloads = {
        "": a_download(),
        "phone": a_download(key="downloads/bb", nnz=3, values_by_role={Role.HEAD: 3}),
        "watch": a_download(key="downloads/cc", nnz=1, values_by_role={}),
    }
    current = a_round(task, state=RoundState.COLLECTING, downloads=downloads)

    stored(store, task, current)

    assert store.read("get", lambda tx: tx.rounds.get(current.id)) == current


@pytest.mark.parametrize("lock", Lock)
def test_a_locked_read_gives_the_same_round(store: Store, lock: Lock) -> None:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    stored(store, task, current)

    assert store.run("get", lambda tx: tx.rounds.get(current.id, lock)) == current
    assert store.run("get", lambda tx: tx.rounds.get(uuid4(), lock)) is None


def test_a_task_has_each_number_once(store: Store) -> None:
    task, other = a_task(), a_task()
    first = a_round(task, state=RoundState.PENDING, number=1)
    stored(store, task, other, first)

    with pytest.raises(LostRace):
        stored(store, a_round(task, state=RoundState.PENDING, number=1))
    stored(store, a_round(other, state=RoundState.PENDING, number=1))

    assert store.read("latest", lambda tx: tx.rounds.latest(task.id)) == first


def test_rounds_are_paged_newest_first(store: Store) -> None:
    task, other = a_task(), a_task()
    rounds = [a_round(task, state=RoundState.PENDING, number=number) for number in (2, 10, 1)]
    stored(store, task, other, *rounds, a_round(other, state=RoundState.PENDING, number=99))
    second, tenth, first = rounds

    newest = store.read("page", lambda tx: tx.rounds.page(task.id, limit=2, before_number=None))
    older = store.read("page", lambda tx: tx.rounds.page(task.id, limit=2, before_number=2))

    assert newest == [tenth, second]
    assert older == [first]
    assert store.read("latest", lambda tx: tx.rounds.latest(task.id)) == tenth
    assert store.read("latest", lambda tx: tx.rounds.latest(uuid4())) is None


def test_a_round_is_found_by_its_number(store: Store) -> None:
    task, other = a_task(), a_task()
    rounds = {n: a_round(task, state=RoundState.PENDING, number=n) for n in (1, 2)}
    stored(store, task, other, *rounds.values(), a_round(other, state=RoundState.PENDING, number=3))

    found = store.read("get", lambda tx: [tx.rounds.numbered(task.id, n) for n in (1, 2, 3)])

    assert found == [rounds[1], rounds[2], None]


def test_the_latest_rounds_of_several_tasks_come_together(store: Store) -> None:
    task, other, without, unasked = (a_task() for _ in range(4))
    rounds = [a_round(task, state=RoundState.PENDING, number=number) for number in (1, 3, 2)]
    third = rounds[1]
    first = a_round(other, state=RoundState.PENDING, number=1)
    stored(store, task, other, without, unasked, *rounds, first)
    stored(store, a_round(unasked, state=RoundState.PENDING, number=9))

    asked = [task.id, other.id, without.id]
    latest = store.read("latest", lambda tx: tx.rounds.latest_of(asked))

    assert latest == {task.id: third, other.id: first}
    assert store.read("latest", lambda tx: tx.rounds.latest_of([])) == {}


def test_every_change_of_a_round_is_kept(store: Store) -> None:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    stored(store, task, current)

    aborted = current.abort(NOW + SECOND, AbortReason.QUORUM_MISSED)
    store.run("save", lambda tx: tx.rounds.save(aborted))

    read = store.read("get", lambda tx: tx.rounds.get(current.id))
    assert read is not None
    assert read.revision == 1
    assert read.abort_reason is AbortReason.QUORUM_MISSED
    assert (read.closed_at, read.ended_at) == (NOW + SECOND, NOW + SECOND)


def test_saving_an_old_revision_of_a_round_loses_the_race(store: Store) -> None:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    stored(store, task, current)
    closing = current.tick(NOW, current.policy.goal)
    store.run("save", lambda tx: tx.rounds.save(closing))

    with pytest.raises(LostRace):
        store.run("save", lambda tx: tx.rounds.save(current.abort(NOW, AbortReason.OPERATOR)))

    read = store.read("get", lambda tx: tx.rounds.get(current.id))
    assert read is not None
    assert (read.state, read.revision) == (RoundState.CLOSING, 1)


def test_no_more_seats_are_taken_than_there_are(store: Store) -> None:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    stored(store, task, current)

    def take() -> bool:
        return store.run("take", lambda tx: tx.rounds.take_seat(current.id, 2))

    assert [take(), take(), take()] == [True, True, False]
    store.run("free", lambda tx: tx.rounds.free_seats(current.id, 1))
    assert [take(), take()] == [True, False]


def test_a_round_nobody_knows_has_no_seats(store: Store) -> None:
    assert not store.run("take", lambda tx: tx.rounds.take_seat(uuid4(), 5))


def test_seats_that_nobody_took_can_not_be_freed(store: Store) -> None:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    stored(store, task, current)
    store.run("take", lambda tx: tx.rounds.take_seat(current.id, 3))

    with pytest.raises(AssertionError):
        store.run("free", lambda tx: tx.rounds.free_seats(current.id, 2))

    taken = [store.run("take", lambda tx: tx.rounds.take_seat(current.id, 3)) for _ in range(3)]
    assert taken == [True, True, False]


def test_seats_are_exact_when_many_devices_come_at_once(store: Store) -> None:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    stored(store, task, current)
    taken: list[bool] = []

    def come() -> None:
        taken.extend(
            store.run("take", lambda tx: tx.rounds.take_seat(current.id, 13)) for _ in range(5)
        )

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)

    assert len(taken) == 40
    assert sum(taken) == 13
