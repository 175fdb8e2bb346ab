"""What rounds of private tasks reserve, spend and give back of their budget, and never exceed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.check_in import Assigned
from aggregator_service.app.open_round import OpenRound
from aggregator_service.domain.rounds import RoundKind, RoundState
from aggregator_service.domain.tasks import TaskState
from tests.builders import a_privacy
from tests.support.one_task import OneTask
from tests.support.private_task import (
    WINDOW,
    asked,
    budget_of,
    opened,
    private_config,
    take_part_with,
)


def test_a_round_reserves_its_part_as_it_opens_and_spends_it_as_it_is_published(
    worlds: Callable[[], OneTask],
) -> None:
    privacy = a_privacy(max_participations=2)
    world = opened(worlds(), privacy)
    one, two = (privacy.epsilon_after(rounds, 3) for rounds in (1, 2))
    held = budget_of(world)
    assert (held.rounds_reserved, held.epsilon_reserved, held.epsilon_spent) == (1, one, 0)
    for number in range(3):
        take_part_with(world, number, 0.1)
    world.settle()
    held = budget_of(world)
    assert (held.epsilon_reserved, held.epsilon_spent) == (two, one)


@pytest.mark.parametrize("final_evaluation", [False, True])
def test_a_task_ends_where_its_budget_does(
    worlds: Callable[[], OneTask], final_evaluation: bool
) -> None:
    privacy = a_privacy(max_participations=5)
    privacy = replace(privacy, epsilon=privacy.epsilon_after(2, 3))
    world = opened(worlds(), privacy, rounds=9, final_evaluation=final_evaluation)
    for _ in range(2):
        for number in range(3):
            assert take_part_with(world, number, 0.1)
        world.settle()
    if final_evaluation:
        assert world.rounds[-1].kind is RoundKind.EVALUATION
        # A cap is on updates: everybody may score the last version.
        assert isinstance(asked(world, 0), Assigned)
        world.clock.advance(WINDOW)
        world.settle()
    assert world.task.state is TaskState.COMPLETED
    assert len(world.published) == 3
    assert budget_of(world).epsilon_spent == privacy.epsilon


def test_an_aborted_round_gives_back_what_it_held(worlds: Callable[[], OneTask]) -> None:
    privacy = a_privacy(max_participations=5)
    privacy = replace(privacy, epsilon=privacy.epsilon_after(1, 3))
    world = opened(worlds(), privacy, rounds=9)
    for _ in range(3):
        take_part_with(world, 0, 0.1)
        AbortRound(store=world.untrapped.store, now=world.clock)(world.rounds[-1].id)
        assert budget_of(world).epsilon_reserved == 0
        world.settle()
        assert budget_of(world).epsilon_reserved == privacy.epsilon
    for number in range(3):
        take_part_with(world, number, 0.1)
    world.settle()
    assert world.task.state is TaskState.COMPLETED
    assert len(world.published) == 2


def test_no_round_opens_beyond_the_budget_whatever_was_planned(
    worlds: Callable[[], OneTask],
) -> None:
    world = worlds()
    world.enroll(1)
    world.untrapped.create_task(private_config(a_privacy()))
    process, task = world.untrapped, world.task
    # As if a new version of the accountant had found that rounds cost more.
    poorer = replace(task, config=private_config(a_privacy(epsilon=0.1)))
    open_round = OpenRound(store=process.store, blobs=process.blobs, now=process.clock)
    assert open_round(poorer, world.rounds[-1])
    assert world.rounds[-1].state is RoundState.PENDING
    assert world.task.state is TaskState.PAUSED
    assert budget_of(world).rounds_reserved == 0
