"""The real service in the test's own process: aggregator on loopback, driver step by step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from aggregator_service.app.create_task import CreateTask
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.clock import utc_now
from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import Task
from aggregator_service.driver import Driver
from aggregator_service.server import Aggregator
from aggregator_service.settings import ServiceSettings
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from tests.builders import a_config
from tests.support.device import SyntheticDevice
from tests.support.patience import PATIENCE_SECONDS


@dataclass(slots=True)
class LiveService:
    store: Store
    blobs: BlobStore
    port: int
    driver: Driver
    aggregator: Aggregator
    loop: asyncio.AbstractEventLoop
    _channels: list[grpc.Channel] = field(default_factory=list)
    _count: int = 0

    def create_task(
        self, name: str = "a-task", weights: NDArray[np.float32] | None = None, **changes: Any
    ) -> Task:
        config = a_config(**changes)
        if weights is None:
            weights = np.linspace(-1.0, 1.0, config.layout.dim, dtype=np.float32)
        task = CreateTask(store=self.store, blobs=self.blobs, now=utc_now)(name, config, weights)
        self.settle()
        return task

    def device(self) -> SyntheticDevice:
        """A newly enrolled device with a connection of its own."""
        self._count += 1
        _, credential = EnrollDevice(store=self.store, now=utc_now)(f"device-{self._count}")
        return SyntheticDevice(self.channel(), credential)

    def channel(self) -> grpc.Channel:
        # Connections are shared per target unless a channel has options of its own.
        options = (("grpc.use_local_subchannel_pool", 1),)
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options=options)
        self._channels.append(channel)
        return channel

    def settle(self) -> None:
        """Lets the driver do everything that can be done now."""
        for _ in range(1_000):
            if not self.driver.step():
                return
        raise AssertionError("the driver finds no end")

    def booked(self) -> None:
        """Waits for the book-keeping that goes on after an answer: bytes sent, refusals counted."""
        asyncio.run_coroutine_threadsafe(self.aggregator._calls.settle(), self.loop).result(
            PATIENCE_SECONDS
        )

    def stop(self) -> None:
        """Drains and stops the aggregator, as SIGTERM does. Repeating is harmless."""
        asyncio.run_coroutine_threadsafe(self.aggregator.stop(), self.loop).result(PATIENCE_SECONDS)

    def latest_round(self, task: Task) -> Round:
        found = self.store.read("test", lambda tx: tx.rounds.latest(task.id))
        assert found is not None
        return found

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


@contextmanager
def live_service(store: Store, blobs: BlobStore, **settings: Any) -> Iterator[LiveService]:
    given: dict[str, Any] = {"grpc_port": 0, "insecure_dev": True, "drain_seconds": 1}
    options = ServiceSettings(**(given | settings))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def started() -> tuple[Aggregator, int]:
        aggregator = Aggregator(options, store, blobs)
        return aggregator, await aggregator.start()

    aggregator, port = asyncio.run_coroutine_threadsafe(started(), loop).result(PATIENCE_SECONDS)
    driver = Driver(store=store, blobs=blobs, now=utc_now, interval=timedelta(seconds=0.1))
    service = LiveService(
        store=store, blobs=blobs, port=port, driver=driver, aggregator=aggregator, loop=loop
    )
    try:
        yield service
    finally:
        service.close()
        service.stop()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_SECONDS)
        loop.close()
