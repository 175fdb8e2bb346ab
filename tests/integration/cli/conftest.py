"""The command against the real admin API on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from aggregator_service.app.create_task import CreateTask
from aggregator_service.clock import utc_now
from aggregator_service.domain.tasks import Task
from aggregator_service.driver import Driver
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from aggregator_service.store.memory import MemoryBlobs
from flasc_cli.main import app
from tests.builders import a_config
from tests.support.operator import create_key, live_admin

__all__ = ["Terminal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """A shell with FLASC_API and FLASC_API_KEY set; `store` and `blobs` are the service's."""

    store: Store
    blobs: BlobStore
    address: str
    environment: dict[str, str]

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, words, env=self.environment)

    def ask(self, *words: str) -> Any:
        """Run with --json; return what it printed."""
        done = self.run(*words, "--json")
        if done.exception is not None:
            raise done.exception
        return json.loads(done.stdout)

    def make_task(self, name: str = "a-task", **changes: Any) -> Task:
        """A task whose first round is open."""
        config = a_config(**changes)
        weights = np.linspace(-1, 1, config.layout.dim, dtype=np.float32)
        create = CreateTask(store=self.store, blobs=self.blobs, now=utc_now)
        task = create(name, config, weights)
        driver = Driver(
            store=self.store, blobs=self.blobs, now=utc_now, interval=timedelta(seconds=1)
        )
        while driver.step():
            pass
        return task


@pytest.fixture
def terminal(sqlite_store: Store) -> Iterator[Terminal]:
    blobs = MemoryBlobs()
    key = create_key(sqlite_store, utc_now())
    # The service's log would come between the lines of the command: here they share a process.
    with capture_logs(), live_admin(sqlite_store, blobs) as address:
        yield Terminal(
            store=sqlite_store,
            blobs=blobs,
            address=address,
            environment={"FLASC_API": address, "FLASC_API_KEY": key},
        )
