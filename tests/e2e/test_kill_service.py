"""kill -9 of the service under load: no acknowledged update is lost, and none counts twice.

Every part of the service is a process of its own, started by the real command. What is published
is decoded to the exact set of devices and compared with the receipts that devices hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random

import numpy as np
import pytest

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.create_task import CreateTask
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import Task
from aggregator_service.server import utc_now
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from aggregator_service.store.open import open_blobs, open_store
from tests.support.load import OneHotLoad
from tests.support.one_hot import DIM, eager_policy, one_hot_config
from tests.support.oracle import check_conservation, rounds_of
from tests.support.service_process import ServiceProcess

DEVICES = 16
GOAL = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    store: Store
    blobs: BlobStore
    task: Task
    credentials: Sequence[str]


def a_scene(store: Store, blobs: BlobStore) -> Scene:
    """A task with rounds without end, and the devices for it."""
    policy = eager_policy(
        goal=GOAL,
        over_selection=1.6,
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


@pytest.mark.parametrize(
    "kills",
    [4, pytest.param(25, marks=[pytest.mark.slow, pytest.mark.timeout(1_200)])],
)
def test_no_acknowledged_update_is_lost_or_counted_twice_though_the_service_is_killed(
    sql_url: str, tmp_path: Path, kills: int
) -> None:
    rng = Random(kills)
    folder = tmp_path / "blobs"
    with ExitStack() as stack:
        store = open_store(sql_url, pool_size=2, check_durability=False)
        stack.callback(store.close)
        scene = a_scene(store, open_blobs(str(folder)))
        parts = [
            stack.enter_context(
                ServiceProcess(
                    role, database_url=sql_url, blobs=folder, log=tmp_path / f"{role}.log"
                )
            )
            for role in ("aggregator", "driver")
        ]
        with OneHotLoad([parts[0].port], scene.credentials, scene.task.name) as load:
            for _ in range(kills):
                # Some die as an upload begins, some as it is acknowledged, some in between.
                load.wait_for(rng.choice(["begun", "acknowledged", "answered"]), rng.randint(1, 30))
                victims = rng.choice([parts, parts[:1], parts[1:]])
                for part in victims:
                    part.kill()
                for part in victims:
                    part.begin()
                for part in victims:
                    part.wait_until_ready()
                # Only kills under load count.
                load.wait_for("acknowledged", 1)
            load.wait_for_round_after(load.latest_round)
        abort = AbortRound(store=store, now=utc_now)
        rounds = rounds_of(store, scene.task.id)
        abort(rounds[-1].id)
        check_conservation(store, scene.blobs, scene.task.id, load.receipts)
        assert sum(part.starts for part in parts) > kills
    published = sum(one.state is RoundState.PUBLISHED for one in rounds)
    print(f"{kills} kills, {published} rounds published, {dict(load.counts)}")
