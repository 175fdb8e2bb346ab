"""A task is cancelled with its round, whichever that is by then."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import pytest

from aggregator_service.app import steer_task
from aggregator_service.app.abort_round import abort_open_round
from aggregator_service.app.steer_task import SteerTask
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import TaskState
from aggregator_service.store.base import Transaction
from aggregator_service.store.memory import MemoryStore
from tests.builders import NOW, a_round, a_task, stored


def test_a_round_that_was_added_while_the_one_before_was_waited_for_ends_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, task = MemoryStore(), a_task()
    first = a_round(task, state=RoundState.PENDING)
    second = a_round(task, state=RoundState.PENDING, number=2)
    stored(store, task)
    stored(store, first)

    def abort(tx: Transaction, round_id: UUID, now: datetime) -> None:
        abort_open_round(tx, round_id, now)
        if round_id == first.id:
            tx.rounds.add(second)

    monkeypatch.setattr(steer_task, "abort_open_round", abort)
    SteerTask(store=store, now=lambda: NOW)(task.id, TaskState.CANCELLED)

    latest = store.read("test", lambda tx: tx.rounds.latest(task.id))
    assert latest is not None
    assert (latest.id, latest.state) == (second.id, RoundState.ABORTED)
