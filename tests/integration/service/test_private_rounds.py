"""Rounds of private tasks: clipped twice, noise drawn once, and never beyond the budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.adapter_files import load_weights
from aggregator_service.app.check_in import Assigned, CheckIn, Query, RetryLater
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.app.open_round import OpenRound
from aggregator_service.app.retract_update import RetractUpdate
from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.privacy import Privacy, PrivacyMode
from aggregator_service.domain.rounds import Round, RoundKind, RoundState
from aggregator_service.domain.tasks import TaskState
from aggregator_service.store.base import Rounds
from flasc_core.errors import Reason, Refusal
from flasc_core.fold import GRID_BITS
from flasc_core.noise import draw_noise
from tests.builders import NOW, a_privacy, a_round, an_assignment, stored
from tests.support.faults import Died, Moment, Trap
from tests.support.interposed import Interposed, InterposedStore
from tests.support.one_task import OneTask, in_memory
from tests.support.oracle import adapters_of
from tests.support.private_task import (
    SMALL,
    a_drawn_privacy,
    an_update_of,
    asked,
    budget_of,
    private_config,
    reservation_of,
    take_part_with,
)

GRID = 2.0**GRID_BITS
WINDOW = timedelta(days=1)


@pytest.fixture(params=["memory", "sqlite"])
def worlds(request: pytest.FixtureRequest) -> Callable[[], OneTask]:
    """Makes an empty world, a new one at every call."""
    if request.param == "memory":
        return in_memory
    on_disk: Callable[[], OneTask] = request.getfixturevalue("on_disk")
    return on_disk


def opened(world: OneTask, privacy: Privacy, *, devices: int = 4, **settings: Any) -> OneTask:
    """A private task whose first round collects."""
    world.enroll(devices)
    # Devices are drawn from those that were there before.
    world.clock.advance(timedelta(seconds=1))
    world.untrapped.create_task(private_config(privacy, **settings))
    world.settle()
    return world


def close(world: OneTask) -> bytes:
    """Lets a driver close the round and die; returns the seed that it fixed."""
    trap = Trap(at="begin_folding", moment=Moment.BEFORE)
    dying = replace(world)
    dying.traps = iter([trap])
    with pytest.raises(Died), dying.trapped():
        dying.process.settle()
    dying.close()
    assert world.rounds[-1].state is RoundState.CLOSING
    reserved = reservation_of(world, world.rounds[-1])
    assert reserved is not None
    assert reserved.noise_seed is not None
    return reserved.noise_seed


def weights_of(world: OneTask, version: int) -> NDArray[np.float32]:
    adapters = adapters_of(world.untrapped.store, world.task.id)
    return load_weights(world.blobs, adapters[version])


def published_sum(world: OneTask, seed: bytes, privacy: Privacy) -> NDArray[np.float64]:
    """What the first version would be without its noise, times its divisor."""
    noise = draw_noise(seed, SMALL, privacy.deviation) / GRID
    adapters = adapters_of(world.untrapped.store, world.task.id)
    return weights_of(world, 1).astype(np.float64) * adapters[1].divisor - noise


def test_a_version_is_the_clipped_sum_and_its_noise_over_the_goal(
    worlds: Callable[[], OneTask],
) -> None:
    privacy = a_privacy(clip_norm=0.5)
    world = opened(worlds(), privacy, quorum=2, goal=3)
    assert take_part_with(world, 0, 0.25)
    # Twice the clip norm, which no honest device sends.
    assert take_part_with(world, 1, 0.0, 0.8, 0.6)
    world.clock.advance(WINDOW)
    seed = close(world)
    world.settle()

    total = published_sum(world, seed, privacy)
    np.testing.assert_allclose(total[:3], [0.25, 0.4, 0.3], atol=1e-5)
    np.testing.assert_allclose(total[3:], 0, atol=1e-6)
    # The goal divides, not the two that came.
    assert adapters_of(world.untrapped.store, world.task.id)[1].divisor == 3


def test_every_coordinate_of_a_version_moves_though_nobody_sent_it(
    worlds: Callable[[], OneTask],
) -> None:
    world = opened(worlds(), a_privacy())
    for number in range(3):
        take_part_with(world, number, 0.1)
    world.settle()
    assert (weights_of(world, 1) != 0).all()


def test_the_same_bytes_are_published_whichever_step_a_driver_dies_in_after_closing(
    worlds: Callable[[], OneTask],
) -> None:
    privacy = a_privacy()
    deaths = 0
    for at in count(1):
        for moment in (Moment.INSIDE, Moment.AFTER):
            trap = Trap(at=at, moment=moment, effects_only=True)
            world = opened(worlds(), privacy, rounds=1)
            for number in range(3):
                take_part_with(world, number, 0.1 * number)
            seed = close(world)
            world.traps = iter([trap])
            with world.trapped():
                world.settle()
            total = published_sum(world, seed, privacy)
            np.testing.assert_allclose(total, [0.3, *[0] * (SMALL - 1)], atol=1e-6)
            # Whoever died had written the same blobs, if any: these are named by what is in them.
            assert len(list(world.blobs.keys(f"tasks/{world.task.id}/weights/"))) == 2
            assert world.task.state is TaskState.COMPLETED
            deaths += trap.has_sprung
        if not trap.has_sprung:
            break
    assert deaths >= 6


def test_two_rounds_and_two_tasks_draw_noise_of_their_own() -> None:
    seeds = []
    for _ in range(2):
        world = opened(in_memory(), a_privacy())
        for _ in range(2):
            for number in range(3):
                take_part_with(world, number, 0.1)
            seeds.append(close(world))
            world.settle()
    assert len(set(seeds)) == 4


def test_secrets_are_gone_once_a_round_is_published_or_aborted(
    worlds: Callable[[], OneTask],
) -> None:
    world = opened(worlds(), a_privacy())
    for number in range(3):
        take_part_with(world, number, 0.1)
    close(world)
    closing = world.rounds[-1]
    world.settle()
    AbortRound(store=world.untrapped.store, now=world.clock)(world.rounds[-1].id)
    for one in (closing, world.rounds[-1]):
        reserved = reservation_of(world, one)
        assert reserved is not None
        assert (reserved.noise_seed, reserved.draw) == (None, None)
    assert [one.state for one in world.rounds] == [RoundState.PUBLISHED, RoundState.ABORTED]


def test_a_retracted_update_is_out_to_the_last_bit_though_it_was_clipped(
    worlds: Callable[[], OneTask],
) -> None:
    privacy = a_privacy()
    world = opened(worlds(), privacy, devices=20, goal=20, quorum=1)
    for number in range(16):
        take_part_with(world, number, 0.01 * number, 0.7)
    # Folded while the round collects.
    world.settle()
    process = world.untrapped
    retract = RetractUpdate(store=process.store, blobs=process.blobs, now=process.clock)
    for number in range(1, 16):
        retract(world.rounds[-1].id, world.devices[number], "asked for")
    world.clock.advance(WINDOW)
    seed = close(world)
    world.settle()
    total = published_sum(world, seed, privacy)
    np.testing.assert_allclose(total, [0, 0.5, *[0] * 6], atol=1e-5)


# -- the budget


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


# -- who takes part


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
