"""What a task's devices get of an adapter version, as values and as bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import TaskConfig
from flasc_core.sparse import SparseVector
from flasc_core.wire import encode, profile_for, quantize

__all__ = [
    "count_download",
    "device_weights",
    "downloads_alike",
    "encode_download",
    "select_download",
]


def count_download(config: TaskConfig, round_index: int) -> int:
    """How many values go down, whatever the weights; rounds are from 0."""
    groups = config.method.download_groups(config.layout, round_index)
    return sum(group.count for group in groups)


def downloads_alike(config: TaskConfig, one: Round, other: Round) -> bool:
    """Whether the two rounds' devices get the same bytes."""
    groups = config.method.download_groups
    return one.base_version == other.base_version and groups(config.layout, one.index) == groups(
        config.layout, other.index
    )


def select_download(
    config: TaskConfig, weights: NDArray[np.float32], round_index: int
) -> SparseVector:
    """Return the part of the master `weights`, shape (dim,), that goes down; rounds are from 0."""
    differences = config.base.differences(config.layout, weights)
    return config.method.select_download(config.layout, differences, round_index)


def encode_download(config: TaskConfig, selected: SparseVector) -> bytes:
    return encode(selected, profile_for(config.encodings.download))


def device_weights(
    config: TaskConfig, weights: NDArray[np.float32], round_index: int
) -> NDArray[np.float32]:
    """Return what devices start from once they have decoded the download, shape (dim,)."""
    selected = select_download(config, weights, round_index)
    decoded = quantize(selected, config.encodings.download)
    return config.base.start_from(config.layout, decoded)
