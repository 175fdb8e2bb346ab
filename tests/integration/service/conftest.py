"""The live service on SQLite, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from aggregator_service.store.open import open_blobs
from tests.builders import NOW
from tests.support.live import LiveService, live_service


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return open_blobs(str(tmp_path / "blobs"))


@pytest.fixture
def live(sqlite_store: Store, blobs: BlobStore) -> Iterator[LiveService]:
    with live_service(sqlite_store, blobs) as running:
        yield running


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
