"""What a task's devices get of an adapter version, as values and as bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator_service.domain.tasks import TaskConfig
from flasc_core.methods import RoundPlan, select
from flasc_core.sparse import SparseVector
from flasc_core.wire import encode, profile_for, quantize

__all__ = ["Masters", "device_weights", "encode_download", "select_download"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Masters:
    """What a tier's download is made of: master weights of shape (dim,), float32.

    `ranked` are those of the version that the plan is `ranked_by`, None where it ranks `weights`.
    """

    weights: NDArray[np.float32]
    plan: RoundPlan
    ranked: NDArray[np.float32] | None = None


def select_download(config: TaskConfig, masters: Masters) -> SparseVector:
    """Return what goes down, differences where the task has a base.

    A zero under the mask is an explicit zero.
    """
    layout = config.layout
    values = config.base.differences(layout, masters.weights)
    ranked = values if masters.ranked is None else config.base.differences(layout, masters.ranked)
    indices = select(layout, ranked, masters.plan.download)
    return SparseVector(dim=layout.dim, indices=indices, values=values[indices])


def encode_download(config: TaskConfig, selected: SparseVector) -> bytes:
    return encode(selected, profile_for(config.encodings.download))


def device_weights(config: TaskConfig, masters: Masters) -> NDArray[np.float32]:
    """Return what devices start from once they have decoded the download, shape (dim,)."""
    decoded = quantize(select_download(config, masters), config.encodings.download)
    return config.base.start_from(config.layout, decoded)
