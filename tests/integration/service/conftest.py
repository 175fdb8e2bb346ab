"""The live service on SQLite, worlds on SQLite, and a clock that stands still."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from aggregator_service.store.memory import MemoryBlobs
from aggregator_service.store.open import open_blobs, open_store
from aggregator_service.store.schema import upgrade
from tests.builders import NOW, a_policy
from tests.support.bad_requests import TASK
from tests.support.faults import Trap
from tests.support.live import LiveService, live_service
from tests.support.one_task import OneTask, in_memory


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return open_blobs(str(tmp_path / "blobs"))


@pytest.fixture
def live(sqlite_store: Store, blobs: BlobStore) -> Iterator[LiveService]:
    with live_service(sqlite_store, blobs) as running:
        yield running


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service of a whole file of tests, whose one round has room for the devices of all."""
    folder = tmp_path_factory.mktemp("roomy")
    url = f"sqlite:///{folder}/flasc.db"
    upgrade(url)
    store = open_store(url)
    with live_service(store, open_blobs(str(folder / "blobs"))) as running:
        running.create_task(TASK, policy=a_policy(goal=100, quorum=1, over_selection=10.0))
        yield running
    store.close()


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the system has such a folder: no machine stops here, only processes."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def on_disk(sqlite_template: Path, memory_folder: Path) -> Iterator[Callable[..., OneTask]]:
    """Makes an empty world on SQLite, a new one at every call, with traps or without."""
    numbers = count()
    with ExitStack() as worlds:

        def make(traps: Iterable[Trap] = ()) -> OneTask:
            path = memory_folder / f"{next(numbers)}.db"
            shutil.copyfile(sqlite_template, path)
            world = OneTask(
                reopen=lambda: open_store(f"sqlite:///{path}", pool_size=1),
                blobs=MemoryBlobs(),
                traps=iter(traps),
            )
            worlds.callback(world.close)
            return world

        yield make


@pytest.fixture(params=["memory", "sqlite"])
def worlds(request: pytest.FixtureRequest) -> Callable[..., OneTask]:
    """Makes an empty world, a new one at every call, with traps or without."""
    if request.param == "memory":
        return in_memory
    on_disk: Callable[..., OneTask] = request.getfixturevalue("on_disk")
    return on_disk


@dataclass(slots=True)
class Clock:
    """Stands still until it is moved."""

    at: datetime = NOW

    def __call__(self) -> datetime:
        return self.at

    def move(self, span: timedelta) -> None:
        self.at += span


@pytest.fixture
def clock() -> Clock:
    return Clock()
