"""Retractions in a world of one task, and the run in which the device never took part."""

from __future__ import annotations

from functools import cache
from typing import Final

from aggregator_service.app.advance_task import EAGER_BATCH
from aggregator_service.app.retract_update import RetractUpdate
from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.tasks import TaskState
from aggregator_service.domain.updates import UpdateState
from tests.support.one_hot import eager_policy, one_hot_config
from tests.support.one_task import OneTask, Process, in_memory

__all__ = [
    "FOLDED",
    "GOAL",
    "check_as_if_absent",
    "collecting",
    "finish",
    "published_without",
    "retract",
]

FOLDED: Final = EAGER_BATCH
GOAL: Final = FOLDED + 2


def collecting(world: OneTask, *, without: int | None = None, as_blob: bool = False) -> None:
    """A round with EAGER_BATCH updates waiting for a driver: device 0's, unless left out.

    One device more than that has enrolled for every place that retractions free.
    """
    world.enroll(GOAL + 2)
    config = one_hot_config(eager_policy(goal=GOAL), rounds=1, fold_shards=2)
    world.untrapped.create_task(config)
    world.untrapped.settle()
    for number in range(FOLDED):
        if number != without:
            world.take_part(number, as_blob=as_blob and number == 0)


def retract(world: OneTask, number: int, process: Process | None = None) -> None:
    """Takes the update of one device out of the first round."""
    current, asked = world.rounds[0], process or world.untrapped
    use_case = RetractUpdate(store=asked.store, blobs=asked.blobs, now=world.clock)
    use_case(current.id, world.devices[number], "consent withdrawn")
    world.receipts[current.id].pop(number, None)


def finish(world: OneTask, *, absent: int) -> None:
    """Everybody else takes part, in the places that were left."""
    present = world.receipts[world.rounds[0].id]
    others = [n for n in range(GOAL + 1) if n != absent and n not in present]
    for number in others:
        world.take_part(number)
    world.settle()


@cache
def published_without(number: int) -> tuple[bytes, ...]:
    """What is published where this device never took part."""
    world = in_memory()
    collecting(world, without=number)
    world.untrapped.settle()
    finish(world, absent=number)
    assert world.task.state is TaskState.COMPLETED
    return tuple(world.published)


def check_as_if_absent(world: OneTask, number: int) -> None:
    """All is as if the device had never taken part, but for what says that it did."""
    assert world.task.state is TaskState.COMPLETED
    assert tuple(world.published) == published_without(number)
    world.check_conservation()
    world.check_transitions()
    world.check_swept()
    (only,) = world.rounds
    store, device_id = world.untrapped.store, world.devices[number]
    update = store.read("test", lambda tx: tx.updates.get(only.id, device_id))
    part = store.read("test", lambda tx: tx.assignments.of_device(only.id, device_id))
    assert update is not None
    assert part is not None
    assert (update.state, update.payload) == (UpdateState.RETRACTED, None)
    assert (part.state, part.detail) == (AssignmentState.RETRACTED, "consent withdrawn")
