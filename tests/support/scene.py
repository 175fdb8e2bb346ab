"""A one-hot task with rounds without end, and the devices for it, on any store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.create_task import CreateTask
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.clock import utc_now
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from tests.support.one_hot import DIM, eager_policy, one_hot_config
from tests.support.oracle import Receipts, check_conservation, rounds_of

__all__ = ["Scene", "a_scene"]

DEVICES: Final = 16
GOAL: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    store: Store
    blobs: BlobStore
    task: Task
    credentials: Sequence[str]

    def check_conservation(self, receipts: Receipts) -> int:
        """Ends the round that nobody works on any more; returns how many were published."""
        rounds = rounds_of(self.store, self.task.id)
        AbortRound(store=self.store, now=utc_now)(rounds[-1].id)
        check_conservation(self.store, self.blobs, self.task.id, receipts)
        return sum(one.state is RoundState.PUBLISHED for one in rounds)


def a_scene(store: Store, blobs: BlobStore) -> Scene:
    policy = eager_policy(
        goal=GOAL,
        over_selection=DEVICES / GOAL,
        retry_min=timedelta(milliseconds=10),
        retry_max=timedelta(milliseconds=30),
    )
    config = one_hot_config(policy, rounds=1_000_000, fold_shards=2)
    create = CreateTask(store=store, blobs=blobs, now=utc_now)
    enroll = EnrollDevice(store=store, now=utc_now)
    return Scene(
        store=store,
        blobs=blobs,
        task=create("a-task", config, np.zeros(DIM, dtype=np.float32)),
        credentials=[enroll(f"device-{number}")[1] for number in range(DEVICES)],
    )
