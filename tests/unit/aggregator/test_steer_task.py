"""A task is cancelled with its round, whichever that is by then."""

from __future__ import annotations

from uuid import UUID

from aggregator_service.app.steer_task import SteerTask
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import TaskState
from aggregator_service.store.base import Lock, Rounds
from aggregator_service.store.memory import MemoryStore
from tests.builders import NOW, a_round, a_task, stored
from tests.support.interposed import Interposed, InterposedStore


def test_a_round_that_was_added_while_the_one_before_was_waited_for_ends_too() -> None:
    store, task = MemoryStore(), a_task()
    first = a_round(task, state=RoundState.PENDING)
    second = a_round(task, state=RoundState.PENDING, number=2)
    stored(store, task, first)

    class Waiting(Interposed):
        """Whoever held the first round had added the second by the time that it is locked."""

        def __init__(self, inner: Rounds) -> None:
            super().__init__(inner)
            self._rounds = inner

        def get(self, round_id: UUID, lock: Lock = Lock.NONE) -> Round | None:
            if (round_id, lock) == (first.id, Lock.EXCLUSIVE):
                self._rounds.add(second)
            return self._rounds.get(round_id, lock)

    steer = SteerTask(store=InterposedStore(store, Waiting), now=lambda: NOW)
    steer(task.id, TaskState.CANCELLED)

    latest = store.read("test", lambda tx: tx.rounds.latest(task.id))
    assert latest is not None
    assert (latest.id, latest.state) == (second.id, RoundState.ABORTED)
