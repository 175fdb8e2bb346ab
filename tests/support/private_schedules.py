"""Random lives of private tasks: devices, operators, deaths and time, and an oracle beside them.

The oracle knows nothing of reservations. It looks at what was published and at the receipts that
devices got, and reckons what that cost: by the closed form for the device that was in most of it,
or for as many drawn rounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from math import sqrt
from random import Random
from typing import Final

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.retract_update import RetractUpdate
from aggregator_service.app.steer_task import SteerTask
from aggregator_service.domain.accounting import gaussian_epsilon
from aggregator_service.domain.privacy import Privacy, PrivacyMode
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import TaskState
from flasc_core.errors import Refusal
from tests.builders import a_privacy
from tests.support.faults import Moment, Trap, die
from tests.support.one_task import OneTask
from tests.support.private_task import (
    a_drawn_privacy,
    budget_of,
    private_config,
    reservation_of,
    take_part_with,
)

__all__ = ["play_and_check"]

DEVICES: Final = 4
STEPS: Final = 30
WINDOW: Final = timedelta(days=1)
Action = Callable[[OneTask, Random], None]


def play_and_check(seed: int, make_world: Callable[[], OneTask]) -> int:
    """Plays one schedule and checks the budget after every step; returns how often it died."""
    random = Random(seed)
    mode = random.choices(list(PrivacyMode), [4, 1, 1])[0]
    # One goal for drawn cohorts, whose bounds take a while and are kept.
    goal = 2 if mode.draws else random.randint(1, 3)
    privacy = _a_privacy(random, mode, goal)
    world = make_world()
    world.enroll(DEVICES)
    # Devices are drawn from those that were there before.
    world.clock.advance(timedelta(seconds=1))
    traps = [_a_trap(random) for _ in range(random.randint(0, 6))]
    world.traps = iter(traps)
    with world.trapped():
        config = private_config(
            privacy,
            rounds=random.randint(1, 6),
            final_evaluation=random.random() < 0.2,
            goal=goal,
        )
        config = replace(config, fold_shards=random.randint(1, 2))
        world.do(lambda process: process.create_task(config))
        for _ in range(STEPS):
            actions, weights = zip(*_ACTIONS.items(), strict=True)
            with suppress(Refusal):
                random.choices(actions, weights)[0](world, random)
            check_budget(world, privacy, goal)
    world.settle()
    check_budget(world, privacy, goal)
    return sum(trap.has_sprung for trap in traps)


def check_budget(world: OneTask, privacy: Privacy, goal: int) -> None:
    """What the oracle reckons is what the ledger says or less, and within the budget."""
    rounds = world.rounds
    published = {one.id for one in rounds if one.state is RoundState.PUBLISHED}
    held = [one for one in rounds if one.opened_at and one.state is not RoundState.ABORTED]
    times = Counter(
        number
        for round_id, receipts in world.receipts.items()
        if round_id in published
        for number in receipts
    )
    if privacy.max_participations is None:
        spent = privacy.epsilon_after(len(published), goal)
    else:
        most = max(times.values(), default=0)
        spent = gaussian_epsilon(noise=privacy.noise_multiplier, times=most, delta=privacy.delta)
        assert most <= privacy.max_participations
    budget = budget_of(world)
    assert spent <= budget.epsilon_spent <= budget.epsilon_reserved <= privacy.epsilon
    assert budget.rounds_published == len(published) == len(world.published) - 1
    training = [one for one in held if one.state is not RoundState.EVALUATED]
    assert budget.rounds_reserved <= len(training)
    # No secret outlives its round.
    ended = [reservation_of(world, one) for one in rounds if one.state.is_final]
    assert all(kept is None or (kept.noise_seed, kept.draw) == (None, None) for kept in ended)


def _a_privacy(random: Random, mode: PrivacyMode, goal: int) -> Privacy:
    """A budget for some of the rounds: on a boundary, just below one, or anywhere."""
    if mode.draws:
        privacy = a_drawn_privacy(mode, DEVICES, noise_multiplier=4.0)
    else:
        noise = random.choice([0.5, 1.0, 4.0])
        privacy = a_privacy(max_participations=random.randint(1, 4), noise_multiplier=noise)
    cost = privacy.epsilon_after(random.randint(1, 4), goal)
    first = privacy.epsilon_after(1, goal)
    budget = random.choice([cost, cost * (1 - 1e-9), cost * random.uniform(1, sqrt(2))])
    return replace(privacy, epsilon=max(budget, first))


def _a_trap(random: Random) -> Trap:
    return Trap(at=random.randint(1, 40), moment=random.choice(list(Moment)), action=die)


def _take_part(world: OneTask, random: Random) -> None:
    take_part_with(world, random.randrange(DEVICES), random.uniform(-3, 3))


def _settle(world: OneTask, random: Random) -> None:
    world.settle()


def _abort(world: OneTask, random: Random) -> None:
    current = world.rounds[-1].id
    world.do(lambda process: AbortRound(store=process.store, now=process.clock)(current))


def _retract(world: OneTask, random: Random) -> None:
    current, number = world.rounds[-1].id, random.randrange(DEVICES)
    device = world.devices[number]
    world.do(
        lambda process: RetractUpdate(store=process.store, blobs=process.blobs, now=process.clock)(
            current, device, "asked for"
        )
    )
    world.receipts[current].pop(number, None)


def _steer(world: OneTask, random: Random) -> None:
    state = TaskState.PAUSED if world.task.state is TaskState.RUNNING else TaskState.RUNNING
    task_id = world.task.id
    world.do(lambda process: SteerTask(store=process.store, now=process.clock)(task_id, state))


def _wait(world: OneTask, random: Random) -> None:
    world.clock.advance(WINDOW)


_ACTIONS: Final[dict[Action, int]] = {
    _take_part: 10,
    _settle: 6,
    _abort: 1,
    _retract: 1,
    _steer: 1,
    _wait: 1,
}
