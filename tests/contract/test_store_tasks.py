"""What every store keeps of tasks."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from aggregator_service.domain.rounds import RoundPolicy
from aggregator_service.domain.tasks import Ending, TaskState
from aggregator_service.store.base import Lock, LostRace, Store
from flasc_core.errors import Reason, Refusal
from flasc_core.methods import Flasc
from flasc_core.server_update import Sgd
from tests.builders import NOW, SECOND, a_config, a_task, stored


def test_a_stored_task_is_read_back_as_it_was(store: Store) -> None:
    policy = RoundPolicy(goal=7, quorum=2, window=timedelta(days=3, microseconds=1))
    config = a_config(
        method=Flasc(download_density=0.1, upload_density=0.3, head_density=1.0, decay=0.9),
        optimizer=Sgd(learning_rate=0.7, momentum=0.1),
        policy=policy,
        ending=Ending(rounds=9, target_accuracy=0.875, final_evaluation=False),
        fold_shards=4,
    )
    task = a_task(config=config, spec=bytes(range(256)), created_at=NOW + timedelta(microseconds=1))

    stored(store, task)

    assert store.read("get", lambda tx: tx.tasks.get(task.id)) == task
    assert store.read("get", lambda tx: tx.tasks.get_by_name(task.name)) == task


def test_an_unknown_task_is_none(store: Store) -> None:
    assert store.read("get", lambda tx: tx.tasks.get(uuid4())) is None
    assert store.read("get", lambda tx: tx.tasks.get_by_name("nobody")) is None


@pytest.mark.parametrize("lock", Lock)
def test_a_locked_read_gives_the_same_task(store: Store, lock: Lock) -> None:
    task = a_task()
    stored(store, task)

    assert store.run("get", lambda tx: tx.tasks.get(task.id, lock)) == task


def test_a_name_is_taken_once(store: Store) -> None:
    task = a_task(name="once")
    stored(store, task)

    with pytest.raises(Refusal) as refused:
        stored(store, a_task(name="once"))

    assert refused.value.reason is Reason.NAME_TAKEN
    assert store.read("page", lambda tx: tx.tasks.page(limit=9, after=None)) == [task]


def test_saving_raises_the_revision(store: Store) -> None:
    task = a_task()
    stored(store, task)

    paused = task.move_to(TaskState.PAUSED)
    store.run("save", lambda tx: tx.tasks.save(paused))

    read = store.read("get", lambda tx: tx.tasks.get(task.id))
    assert read is not None
    assert (read.state, read.revision) == (TaskState.PAUSED, 1)


def test_saving_an_old_revision_loses_the_race(store: Store) -> None:
    task = a_task()
    stored(store, task)
    store.run("save", lambda tx: tx.tasks.save(task.move_to(TaskState.PAUSED)))

    with pytest.raises(LostRace):
        store.run("save", lambda tx: tx.tasks.save(task.move_to(TaskState.CANCELLED)))

    read = store.read("get", lambda tx: tx.tasks.get(task.id))
    assert read is not None
    assert read.state is TaskState.PAUSED


def test_tasks_are_found_by_state_oldest_first(store: Store) -> None:
    young = a_task(created_at=NOW + SECOND)
    old = a_task(created_at=NOW)
    paused = a_task(state=TaskState.PAUSED)
    stored(store, young, paused, old)

    assert store.read("find", lambda tx: tx.tasks.in_state(TaskState.RUNNING)) == [old, young]
    assert store.read("find", lambda tx: tx.tasks.in_state(TaskState.CANCELLED)) == []


def test_pages_of_tasks_are_newest_first_and_join_up(store: Store) -> None:
    # Two of them of the same instant: the identifier decides, so that none is lost or repeated.
    tasks = [a_task(created_at=NOW + offset * SECOND) for offset in (0, 1, 1, 2, 3)]
    stored(store, *tasks)
    expected = sorted(tasks, key=lambda task: (task.created_at, task.id), reverse=True)

    first = store.read("page", lambda tx: tx.tasks.page(limit=2, after=None))
    second = store.read("page", lambda tx: tx.tasks.page(limit=2, after=first[-1].id))
    third = store.read("page", lambda tx: tx.tasks.page(limit=2, after=second[-1].id))

    assert [*first, *second, *third] == expected


def test_a_page_after_an_unknown_task_is_empty(store: Store) -> None:
    stored(store, a_task())

    assert store.read("page", lambda tx: tx.tasks.page(limit=2, after=uuid4())) == []
