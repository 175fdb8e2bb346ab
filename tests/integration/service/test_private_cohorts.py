"""Who takes part in rounds of private tasks: as often as the cap says, or as drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import numpy as np
import pytest

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.check_in import Assigned, CheckIn, Query, RetryLater
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.app.retract_update import RetractUpdate
from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.privacy import PrivacyMode
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import TaskState
from aggregator_service.store.base import Rounds
from flasc_core.errors import Reason, Refusal
from tests.builders import NOW, a_privacy, a_round, an_assignment, stored
from tests.support.interposed import Interposed, InterposedStore
from tests.support.one_task import OneTask
from tests.support.private_task import (
    WINDOW,
    a_drawn_privacy,
    an_update_of,
    asked,
    budget_of,
    opened,
    reservation_of,
    take_part_with,
    weights_of,
)


def test_a_device_takes_part_as_often_as_the_cap_says_and_others_go_on(
    worlds: Callable[[], OneTask],
) -> None:
    world = opened(worlds(), a_privacy(max_participations=1), rounds=9)
    assert all(take_part_with(world, number, 0.1) for number in range(3))
    world.settle()
    for number in range(3):
        assert isinstance(asked(world, number), RetryLater)
    assert take_part_with(world, 3, 0.1)


def test_an_update_beyond_the_cap_is_refused_even_to_one_who_was_let_in(
    worlds: Callable[[], OneTask],
) -> None:
    world = opened(worlds(), a_privacy(max_participations=1))
    answer = asked(world, 0)
    assert isinstance(answer, Assigned)
    earlier = a_round(world.task, state=RoundState.PUBLISHED, number=99, base_version=7)
    accepted = replace(
        an_assignment(earlier, state=AssignmentState.ACCEPTED), device_id=world.devices[0]
    )
    stored(world.untrapped.store, earlier, accepted)
    with pytest.raises(Refusal, match="as often as") as caught:
        world.hand_in(0, answer, an_update_of(0.1))
    assert caught.value.reason is Reason.ASSIGNMENT_EXPIRED
    current = answer.round.id
    assert world.untrapped.store.read("count", lambda tx: tx.updates.count(current)) == 0


def test_what_was_aborted_or_retracted_is_no_participation(
    worlds: Callable[[], OneTask],
) -> None:
    world = opened(worlds(), a_privacy(max_participations=1), rounds=9)
    process = world.untrapped
    take_part_with(world, 0, 0.1)
    AbortRound(store=process.store, now=world.clock)(world.rounds[-1].id)
    world.settle()
    assert take_part_with(world, 0, 0.1)
    retract = RetractUpdate(store=process.store, blobs=process.blobs, now=process.clock)
    retract(world.rounds[-1].id, world.devices[0], "asked for")
    for number in range(1, 4):
        take_part_with(world, number, 0.1)
    world.settle()
    assert take_part_with(world, 0, 0.1)


@pytest.mark.parametrize("mode", [PrivacyMode.POISSON, PrivacyMode.FIXED_SIZE])
def test_none_but_drawn_devices_get_work_and_the_round_waits_for_all_of_them(
    worlds: Callable[[], OneTask], mode: PrivacyMode
) -> None:
    privacy = a_drawn_privacy(mode, 30, epsilon=200.0)
    world = opened(worlds(), privacy, devices=30, goal=10)
    reserved = reservation_of(world, world.rounds[-1])
    assert reserved is not None
    assert reserved.draw is not None
    working = [number for number in range(30) if isinstance(asked(world, number), Assigned)]
    takes = reserved.draw.takes
    assert working == [number for number in range(30) if takes(world.devices[number], NOW)]
    assert len(working) == reserved.draw.devices
    if mode is PrivacyMode.FIXED_SIZE:
        assert len(working) == 10
    for number in working[:-1]:
        take_part_with(world, number, 0.1)
    world.settle()
    assert world.rounds[-1].state is RoundState.COLLECTING or not working
    for number in working[-1:]:
        take_part_with(world, number, 0.1)
    world.settle()
    assert len(world.published) >= 2


def test_a_device_is_held_to_the_draw_of_the_round_that_it_gets(
    worlds: Callable[[], OneTask],
) -> None:
    world = opened(worlds(), a_drawn_privacy(PrivacyMode.FIXED_SIZE, 9, epsilon=200.0), devices=9)
    current = world.rounds[-1]
    # Without a draw of its own it takes every device.
    before = replace(current, id=uuid4(), number=current.number - 1)

    class Lagging(Interposed):
        """The first look of a transaction still finds the round before."""

        def __init__(self, inner: Rounds) -> None:
            super().__init__(inner)
            self._found = iter([before])

        def latest(self, _: UUID) -> Round:
            return next(self._found, current)

    reserved = reservation_of(world, current)
    assert reserved is not None
    assert reserved.draw is not None
    out = next(n for n in range(9) if not reserved.draw.takes(world.devices[n], NOW))
    store = InterposedStore(world.untrapped.store, Lagging)
    check_in = CheckIn(store=store, now=world.clock)
    assert isinstance(check_in(world.devices[out], Query(task_name="a-task")), RetryLater)


@pytest.mark.parametrize("mode", [PrivacyMode.POISSON, PrivacyMode.FIXED_SIZE])
def test_a_drawn_round_is_published_even_if_nobody_comes(
    worlds: Callable[[], OneTask], mode: PrivacyMode
) -> None:
    privacy = a_drawn_privacy(mode, 4, epsilon=200.0)
    # A rate of 3/4 for each of four: somebody is drawn, and the round waits.
    world = opened(worlds(), privacy, devices=4, rounds=1)
    world.clock.advance(WINDOW)
    world.settle()
    assert world.task.state is TaskState.COMPLETED
    assert world.rounds[0].accepted_updates == 0
    spread = float(np.abs(weights_of(world, 1)).max())
    assert 0 < spread < 6 * privacy.deviation / 3


@pytest.mark.parametrize("mode", [PrivacyMode.POISSON, PrivacyMode.FIXED_SIZE])
def test_a_drawn_cohort_waits_for_its_population(
    worlds: Callable[[], OneTask], mode: PrivacyMode
) -> None:
    privacy = a_drawn_privacy(mode, 5, epsilon=200.0)
    world = opened(worlds(), privacy, devices=4)
    assert [one.state for one in world.rounds] == [RoundState.PENDING]
    assert budget_of(world).rounds_reserved == 0
    EnrollDevice(store=world.untrapped.store, now=world.clock)("a-fifth")
    world.clock.advance(timedelta(seconds=1))
    world.settle()
    # It collects, or it is published already: one draw in a hundred by Poisson takes nobody.
    assert world.rounds[0].state in (RoundState.COLLECTING, RoundState.PUBLISHED)
