"""What a task's devices get of an adapter version, as values and as bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator_service.domain.tasks import TaskConfig
from flasc_core.methods import Averaging, RoundPlan, select
from flasc_core.sparse import SparseVector
from flasc_core.wire import encode, profile_for, quantize

__all__ = ["Masters", "device_weights", "encode_download", "mean_update", "select_download"]


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


def mean_update(
    config: TaskConfig,
    mean: NDArray[np.float64],
    masters_of: Callable[[str], Masters],
    weights_by_tier: Mapping[str, int],
) -> NDArray[np.float64]:
    """Return what the server optimizer is given: `mean` of the updates, by the plans' averaging.

    Masters and the sums of updates' weights are by tier. Where weights are averaged, a coordinate
    that a tier was not sent goes to the base by that tier's part of all weight.
    """
    own = masters_of("")
    if own.plan.averaging is Averaging.UPDATES:
        return mean
    everything = sum(weights_by_tier.values())
    absent = np.zeros(config.layout.dim)
    # In the task's own order, so that every sum is made of the same terms in the same order.
    for tier in config.tier_names:
        if weight := weights_by_tier.get(tier, 0):
            missing = np.ones(config.layout.dim)
            missing[select_download(config, masters_of(tier)).indices] = 0
            absent += missing * (weight / everything)
    return mean - absent * config.base.differences(config.layout, own.weights)


def encode_download(config: TaskConfig, selected: SparseVector) -> bytes:
    return encode(selected, profile_for(config.encodings.download))


def device_weights(config: TaskConfig, masters: Masters) -> NDArray[np.float32]:
    """Return what devices start from once they have decoded the download, shape (dim,)."""
    decoded = quantize(select_download(config, masters), config.encodings.download)
    return config.base.start_from(config.layout, [(decoded.indices, decoded.values)])
