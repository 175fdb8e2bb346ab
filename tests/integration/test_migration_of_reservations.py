"""Going down forgets what private tasks have spent, so that none of them goes on."""

from __future__ import annotations

from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import TaskState
from aggregator_service.store import schema
from tests.builders import a_reservation, a_round, a_task, stored
from tests.support.stores import open_patiently

BEFORE = "20261124_tiers"


def test_tasks_that_have_spent_something_are_cancelled_and_others_go_on(sql_url: str) -> None:
    private, plain, done = a_task(), a_task(), a_task(state=TaskState.COMPLETED)
    opened = open_patiently(sql_url)
    rounds = [a_round(task, state=RoundState.PUBLISHED) for task in (private, done)]
    stored(opened, private, plain, done, *rounds, *(a_reservation(one) for one in rounds))
    opened.close()

    schema.downgrade(sql_url, BEFORE)
    schema.upgrade(sql_url)

    again = open_patiently(sql_url)
    tasks = again.read(
        "tasks", lambda tx: [tx.tasks.get(task.id) for task in (private, plain, done)]
    )
    spent = again.read("budget", lambda tx: tx.reservations.budget(private.id))
    again.close()
    assert [task.state for task in tasks if task is not None] == [
        TaskState.CANCELLED,
        TaskState.RUNNING,
        TaskState.COMPLETED,
    ]
    assert spent.rounds_reserved == 0
