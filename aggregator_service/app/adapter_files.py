"""Adapters and optimizer states as blobs named by what they hold."""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.downloads import Masters
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from flasc_core.server_update import OptimizerState

__all__ = ["load_masters", "load_state", "load_weights", "put_state", "put_weights"]


def put_weights(blobs: BlobStore, task_id: UUID, weights: NDArray[np.float32]) -> tuple[str, bytes]:
    """Makes the weights durable; returns their key and SHA-256."""
    return _put(blobs, f"tasks/{task_id}/weights", weights.astype("<f4").tobytes())


def load_weights(blobs: BlobStore, adapter: Adapter) -> NDArray[np.float32]:
    """The float32 master weights, shape (dim,), in layout order."""
    return np.frombuffer(blobs.get(adapter.weights_key), dtype="<f4").astype(np.float32)


def load_masters(
    store: Store, blobs: BlobStore, task: Task, version: int, tier: str = ""
) -> Masters:
    """What devices of `tier` in a round that starts from `version` are sent a part of."""
    plan = task.config.plan(version, tier)
    versions = [version] if plan.ranked_by is None else [version, plan.ranked_by]
    found = store.read(
        "find_masters", lambda tx: [tx.adapters.get(task.id, number) for number in versions]
    )
    weights = [load_weights(blobs, adapter) for adapter in found if adapter is not None]
    if len(weights) < len(versions):
        raise AssertionError("a version is there before a round or a download needs it")
    return Masters(weights=weights[0], plan=plan, ranked=weights[1] if weights[1:] else None)


def put_state(blobs: BlobStore, task_id: UUID, state: OptimizerState) -> str:
    """Makes the slot arrays durable; returns their key. The step belongs in the database."""
    key, _ = _put(blobs, f"tasks/{task_id}/optimizer", save(dict(state.slots)))
    return key


def load_state(blobs: BlobStore, adapter: Adapter) -> OptimizerState:
    return OptimizerState(step=adapter.optimizer_step, slots=load(blobs.get(adapter.optimizer_key)))


def _put(blobs: BlobStore, folder: str, data: bytes) -> tuple[str, bytes]:
    digest = sha256(data).digest()
    key = f"{folder}/{digest.hex()}"
    blobs.put(key, data)
    return key, digest
