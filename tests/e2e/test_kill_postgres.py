"""kill -9 of PostgreSQL under load: the service waits for it, and nothing acknowledged is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from aggregator_service.store import schema
from aggregator_service.store.open import open_blobs, open_store
from tests.support.load import OneHotLoad
from tests.support.postgres import PostgresCluster, PostgresServer, find_binaries
from tests.support.scene import a_scene
from tests.support.service_process import ServiceProcess

KILLS = 20


@pytest.fixture
def cluster() -> Iterator[PostgresCluster]:
    """One of the test's own, which keeps what it has committed."""
    running = PostgresCluster(find_binaries(), durable=True)
    try:
        running.start()
        yield running
    finally:
        running.close()


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_no_acknowledged_update_is_lost_though_the_database_is_killed(
    cluster: PostgresCluster, tmp_path: Path
) -> None:
    rng = Random(KILLS)
    folder = tmp_path / "blobs"
    url = PostgresServer(cluster.url).create_database()
    schema.upgrade(url)
    with ExitStack() as stack:
        store = open_store(url, pool_size=2)
        stack.callback(store.close)
        scene = a_scene(store, open_blobs(str(folder)))
        aggregator, _ = [
            stack.enter_context(
                ServiceProcess(
                    role,
                    database_url=url,
                    blobs=folder,
                    log=tmp_path / f"{role}.log",
                    check_postgres_durability=True,
                )
            )
            for role in ("aggregator", "driver")
        ]
        with OneHotLoad([aggregator.port], scene.credentials, scene.task.name) as load:
            for _ in range(KILLS):
                load.wait_for(rng.choice(["begun", "acknowledged", "answered"]), rng.randint(1, 30))
                cluster.kill()
                # Devices are told so, and stay.
                load.wait_for("disturbed", 1)
                cluster.start()
                load.wait_for("acknowledged", 1)
            load.wait_for_round_after(load.latest_round)
        published = scene.check_conservation(load.receipts)
    print(f"{KILLS} kills, {published} rounds published, {dict(load.counts)}")
