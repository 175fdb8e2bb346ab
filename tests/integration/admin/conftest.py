"""An operator on each store that needs no server."""

from __future__ import annotations

import pytest

from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from aggregator_service.store.memory import MemoryBlobs
from tests.support.operator import Operator


@pytest.fixture
def blobs() -> BlobStore:
    return MemoryBlobs()


@pytest.fixture(params=["memory_store", "sqlite_store"])
def operator(request: pytest.FixtureRequest, blobs: BlobStore) -> Operator:
    store: Store = request.getfixturevalue(request.param)
    return Operator(store, blobs)
