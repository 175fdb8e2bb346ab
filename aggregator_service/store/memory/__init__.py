"""The store in memory: for tests and trials, held to the same contract as SQL."""

from aggregator_service.store.memory.blobs import MemoryBlobs
from aggregator_service.store.memory.store import MemoryStore

__all__ = ["MemoryBlobs", "MemoryStore"]
