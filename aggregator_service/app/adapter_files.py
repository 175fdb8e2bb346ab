"""Adapters and optimizer states as blobs named by what they hold."""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from aggregator_service.domain.adapters import Adapter
from aggregator_service.store.blobs import BlobStore
from flasc_core.server_update import OptimizerState

__all__ = ["load_state", "load_weights", "put_state", "put_weights"]


def put_weights(blobs: BlobStore, task_id: UUID, weights: NDArray[np.float32]) -> tuple[str, bytes]:
    """Makes the weights durable; returns their key and SHA-256."""
    return _put(blobs, f"tasks/{task_id}/weights", weights.astype("<f4").tobytes())


def load_weights(blobs: BlobStore, adapter: Adapter) -> NDArray[np.float32]:
    """The float32 master weights, shape (dim,), in layout order."""
    return np.frombuffer(blobs.get(adapter.weights_key), dtype="<f4").astype(np.float32)


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
