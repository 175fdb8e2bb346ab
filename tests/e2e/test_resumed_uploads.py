"""A streamed upload in whose middle either end is killed goes on with the rest alone.

The service and the device are processes of their own; what crosses the wire is counted by a
forwarder between them, by the service's ledger and by the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from aggregator_service.app.create_task import CreateTask
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.app.receive_upload import PIECE_BYTES
from aggregator_service.app.task_spec import MAX_UNARY_PAYLOAD_BYTES
from aggregator_service.clock import utc_now
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import Ending, Task
from aggregator_service.driver import Driver
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from aggregator_service.store.open import open_blobs
from flasc_core.methods import Flasc
from tests.builders import a_config
from tests.support.holding_forwarder import Hold, HoldingForwarder, Way
from tests.support.mortal_device import MortalDevice, flat_layout
from tests.support.one_hot import eager_policy
from tests.support.oracle import rounds_of
from tests.support.patience import PATIENCE_SECONDS, until
from tests.support.seen import figures_of, updates_of
from tests.support.service_process import ServiceProcess

# Every coordinate is sent, with 4 bytes each: five pieces and a part of one.
DIM = (MAX_UNARY_PAYLOAD_BYTES + PIECE_BYTES) // 4 + 10_000
# After check-in and download; three pieces pass, and half of the fourth.
MIDDLE = Hold(way=Way.REQUEST, call=3, after_bytes=3 * PIECE_BYTES + PIECE_BYTES // 2)
DURABLE = 3 * PIECE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    store: Store
    blobs: BlobStore
    task: Task
    service: ServiceProcess
    device: MortalDevice

    def wait_for_pieces(self) -> None:
        """Until all that passed is durable."""
        until(lambda: self._durable_pieces() == 3, "three durable pieces")

    def _durable_pieces(self) -> int:
        return sum("/uploads/" in key for key in self.blobs.keys("rounds/"))

    @property
    def ledger_bytes(self) -> int:
        return figures_of(self.store, rounds_of(self.store, self.task.id)[0]).tiers[""].bytes.up

    def check_published(self) -> int:
        """How large the one update was."""
        settle(self.store, self.blobs)
        [ended] = rounds_of(self.store, self.task.id)
        assert ended.state is RoundState.PUBLISHED
        assert ended.accepted_updates == 1
        assert list(self.blobs.keys("rounds/")) == []
        assert self.device.trainings == ["begun", "ended"]
        [update] = updates_of(self.store, ended)
        return update.payload_bytes


def settle(store: Store, blobs: BlobStore) -> None:
    driver = Driver(store=store, blobs=blobs, now=utc_now, interval=timedelta(seconds=1))
    while driver.step():
        pass


@pytest.fixture
def world(sqlite_url: str, sqlite_store: Store, tmp_path: Path) -> Iterator[World]:
    blobs = open_blobs(str(tmp_path / "blobs"))
    config = a_config(
        layout=flat_layout(DIM),
        method=Flasc(download_density=0.001, upload_density=1.0),
        policy=eager_policy(goal=1),
        ending=Ending(rounds=1, final_evaluation=False),
    )
    create = CreateTask(store=sqlite_store, blobs=blobs, now=utc_now)
    task = create("a-task", config, np.zeros(DIM, dtype=np.float32))
    settle(sqlite_store, blobs)
    _, credential = EnrollDevice(store=sqlite_store, now=utc_now)("mortal")
    folder = tmp_path / "device"
    folder.mkdir()
    with ServiceProcess(
        "aggregator",
        database_url=sqlite_url,
        blobs=tmp_path / "blobs",
        log=tmp_path / "aggregator.log",
    ) as service:
        device = MortalDevice(
            port=service.port, task=task.name, credential=credential, dim=DIM, folder=folder
        )
        yield World(store=sqlite_store, blobs=blobs, task=task, service=service, device=device)


def test_a_service_that_is_killed_in_the_middle_of_an_upload_gets_the_rest_alone(
    world: World,
) -> None:
    with ExitStack() as stack:
        forwarder = stack.enter_context(HoldingForwarder(world.service.port, MIDDLE))
        process = stack.enter_context(world.device.through(forwarder.port).start())
        forwarder.wait_until_held()
        world.wait_for_pieces()
        with forwarder.without_service():
            world.service.kill()
            world.service.begin()
            world.service.wait_until_ready()
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, output
        passed = forwarder.request_bytes
    size = world.check_published()
    # The piece that was cut in two is all that was begun twice.
    assert world.ledger_bytes == size
    assert size < passed < size + PIECE_BYTES


def test_a_device_that_is_killed_in_the_middle_of_an_upload_sends_the_rest_alone(
    world: World,
) -> None:
    with HoldingForwarder(world.service.port, MIDDLE) as forwarder:
        world.device.through(forwarder.port).run_until(lambda _: forwarder.wait_until_held())
        world.wait_for_pieces()
    nothing = Hold(way=Way.REQUEST, call=10)
    with HoldingForwarder(world.service.port, nothing) as forwarder:
        summary = world.device.through(forwarder.port).run()
        passed = forwarder.request_bytes
    size = world.check_published()
    assert world.ledger_bytes == size
    assert size - DURABLE < passed < size - DURABLE + PIECE_BYTES
    # What was under way as it died is its own to count: up to all that was not durable yet.
    assert size <= summary["payload_bytes_sent"] <= size + (size - DURABLE) + PIECE_BYTES
