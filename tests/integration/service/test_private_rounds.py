"""Versions of private tasks: clipped twice, and their noise drawn once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.retract_update import RetractUpdate
from aggregator_service.domain.privacy import Privacy
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import TaskState
from flasc_core.fold import GRID_BITS
from flasc_core.noise import draw_noise
from tests.builders import a_privacy
from tests.support.faults import Died, Moment, Trap
from tests.support.one_task import OneTask, in_memory
from tests.support.oracle import adapters_of
from tests.support.private_task import (
    SMALL,
    WINDOW,
    opened,
    reservation_of,
    take_part_with,
    weights_of,
)

GRID = 2.0**GRID_BITS


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
