"""A round with so many updates that drivers fold some of them while it still collects."""

from __future__ import annotations

from functools import cache
from typing import Final

from aggregator_service.app.advance_task import EAGER_BATCH
from aggregator_service.domain.tasks import TaskState
from tests.support.one_hot import eager_policy, one_hot_config
from tests.support.one_task import OneTask, in_memory

__all__ = ["CROWD", "SHARDS", "check_crowd", "crowded", "fold_and_publish"]

CROWD: Final = EAGER_BATCH + 2
SHARDS: Final = 2


def crowded(world: OneTask) -> None:
    """A round whose updates are waiting, all but the last of them, for the first driver."""
    world.enroll(CROWD)
    policy = eager_policy(goal=CROWD)
    config = one_hot_config(policy, rounds=1, fold_shards=SHARDS)
    world.untrapped.create_task(config)
    world.untrapped.settle()
    for number in range(CROWD - 1):
        world.take_part(number, as_blob=number == 0)


def fold_and_publish(world: OneTask) -> None:
    with world.trapped():
        world.settle()
        world.take_part(CROWD - 1)
        world.settle()


@cache
def published_undisturbed() -> tuple[bytes, ...]:
    """What everybody must arrive at."""
    world = in_memory()
    crowded(world)
    fold_and_publish(world)
    return tuple(world.published)


def check_crowd(world: OneTask) -> None:
    assert world.task.state is TaskState.COMPLETED
    assert tuple(world.published) == published_undisturbed()
    assert len(world.receipts[world.rounds[0].id]) == CROWD
    world.check_conservation()
    world.check_transitions()
    world.check_swept()
