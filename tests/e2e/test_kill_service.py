"""kill -9 of the service under load: no acknowledged update is lost, and none counts twice.

Every part of the service is a process of its own, started by the real command. What is published
is decoded to the exact set of devices and compared with the receipts that devices hold.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from aggregator_service.store.open import open_blobs
from tests.support.load import OneHotLoad
from tests.support.scene import a_scene
from tests.support.service_process import ServiceProcess
from tests.support.stores import open_patiently


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
        store = open_patiently(sql_url)
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
                kill_and_restart(rng.choice([parts, parts[:1], parts[1:]]))
                # Only kills under load count.
                load.wait_for("acknowledged", 1)
            # The round that was killed last is completed too.
            load.wait_for_round_after(load.latest_round)
        published = scene.check_conservation(load.receipts)
        assert sum(part.starts for part in parts) >= kills + len(parts)
    print(f"{kills} kills, {published} rounds published, {dict(load.counts)}")


def kill_and_restart(parts: list[ServiceProcess]) -> None:
    for part in parts:
        part.kill()
    for part in parts:
        part.begin()
    for part in parts:
        part.wait_until_ready()
