"""Private tasks so small that thousands of them can be played, and what their ledger says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from aggregator_service.app.adapter_files import load_weights
from aggregator_service.app.check_in import Assigned, CheckIn, CheckInResult, Query
from aggregator_service.domain.privacy import Budget, Privacy, PrivacyMode, Reservation
from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import Ending, TaskConfig, UpdateLimits
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.server_update import Sgd
from flasc_core.sparse import SparseVector
from flasc_core.wire import encode
from tests.builders import a_config, a_privacy
from tests.support.one_hot import eager_policy
from tests.support.one_task import OneTask
from tests.support.oracle import adapters_of

__all__ = [
    "SMALL",
    "WINDOW",
    "a_drawn_privacy",
    "an_update_of",
    "asked",
    "budget_of",
    "opened",
    "private_config",
    "reservation_of",
    "take_part_with",
    "weights_of",
]

SMALL: Final = 8
WINDOW: Final = timedelta(days=1)


def a_drawn_privacy(mode: PrivacyMode, population: int, **changes: Any) -> Privacy:
    settings = {"mode": mode, "population": population, "max_participations": None}
    return replace(a_privacy(), **{**settings, **changes})


def private_config(
    privacy: Privacy, *, rounds: int = 3, final_evaluation: bool = False, **policy: Any
) -> TaskConfig:
    """SGD at a rate of 1 from zeros, so that weights are sums of means; 8 coordinates of a head."""
    return a_config(
        layout=AdapterLayout(tensors=(TensorSpec(name="head", shape=(SMALL,), role=Role.HEAD),)),
        method=Flasc(download_density=1.0, upload_density=1.0),
        optimizer=Sgd(learning_rate=1.0),
        policy=eager_policy(**{"goal": 3, **policy}),
        ending=Ending(rounds=rounds, final_evaluation=final_evaluation),
        limits=UpdateLimits(largest_cohort=1000),
        privacy=privacy,
    )


def opened(world: OneTask, privacy: Privacy, *, devices: int = 4, **settings: Any) -> OneTask:
    """A private task whose first round collects."""
    world.enroll(devices)
    # Devices are drawn from those that were there before.
    world.clock.advance(timedelta(seconds=1))
    world.untrapped.create_task(private_config(privacy, **settings))
    world.settle()
    return world


def an_update_of(*values: float) -> bytes:
    dense = np.zeros(SMALL, dtype=np.float32)
    dense[: len(values)] = values
    indices = np.arange(SMALL, dtype=np.int64)
    return encode(SparseVector(dim=SMALL, indices=indices, values=dense))


def asked(world: OneTask, number: int) -> CheckInResult:
    """The answer to a device that asks for work."""
    process = world.untrapped
    check_in = CheckIn(store=process.store, now=process.clock)
    return check_in(world.devices[number], Query(task_name="a-task"))


def take_part_with(world: OneTask, number: int, *values: float) -> bool:
    """One device's whole round; False where there is no work for it."""
    answer = asked(world, number)
    if not isinstance(answer, Assigned):
        return False
    world.hand_in(number, answer, an_update_of(*values))
    return True


def budget_of(world: OneTask) -> Budget:
    task_id = world.task.id
    return world.untrapped.store.read("test", lambda tx: tx.reservations.budget(task_id))


def reservation_of(world: OneTask, one: Round | UUID) -> Reservation | None:
    round_id = one.id if isinstance(one, Round) else one
    return world.untrapped.store.read("test", lambda tx: tx.reservations.get(round_id))


def weights_of(world: OneTask, version: int) -> NDArray[np.float32]:
    adapters = adapters_of(world.untrapped.store, world.task.id)
    return load_weights(world.blobs, adapters[version])
