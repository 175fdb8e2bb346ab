"""The one-hot oracle: device i sends 1.0 at coordinate i, so a published version tells who is in.

With SGD at a learning rate of 1 the difference between two versions is the mean update; times its
divisor it counts every device: 0 is absent, 1 is counted, 2 would be counted twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator_service.app.adapter_files import load_weights
from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.rounds import RoundPolicy
from aggregator_service.domain.tasks import Ending, TaskConfig
from aggregator_service.store.blobs import BlobStore
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.server_update import Sgd
from flasc_core.sparse import SparseVector
from flasc_core.wire import encode
from tests.builders import a_config

__all__ = ["DIM", "contributions", "one_hot", "one_hot_config"]

# Just so large that a payload with every coordinate is kept as a blob, not in its row.
DIM = 16_600


def one_hot(device: int, *, as_blob: bool = False) -> bytes:
    """An update of 1.0 at `device`; `as_blob` sends all the zeros too."""
    if as_blob:
        values = np.zeros(DIM, dtype=np.float32)
        values[device] = 1.0
        indices = np.arange(DIM, dtype=np.int64)
        return encode(SparseVector(dim=DIM, indices=indices, values=values))
    one = np.array([device], dtype=np.int64)
    return encode(SparseVector(dim=DIM, indices=one, values=np.ones(1, dtype=np.float32)))


def one_hot_config(
    policy: RoundPolicy, *, rounds: int, final_evaluation: bool = False, **changes: Any
) -> TaskConfig:
    layout = AdapterLayout(
        tensors=(TensorSpec(name="head", shape=(DIM,), role=Role.HEAD),),
    )
    return a_config(
        layout=layout,
        method=Flasc(download_density=0.01, upload_density=1.0),
        optimizer=Sgd(learning_rate=1.0),
        policy=policy,
        ending=Ending(rounds=rounds, final_evaluation=final_evaluation),
        **changes,
    )


def eager_policy(**changes: Any) -> RoundPolicy:
    """Devices without work come back at once, so that tests wait for nothing."""
    settings: dict[str, Any] = {
        "quorum": 1,
        "window": timedelta(days=1),
        "retry_min": timedelta(0),
        "retry_max": timedelta(0),
    }
    return RoundPolicy(**(settings | changes))


def contributions(blobs: BlobStore, before: Adapter, after: Adapter) -> Mapping[int, int]:
    """How often each device is in `after`; devices that are not in it are left out."""
    difference = load_weights(blobs, after).astype(np.float64) - load_weights(blobs, before)
    counts: NDArray[np.float64] = difference * after.divisor
    whole = np.rint(counts).astype(np.int64)
    # Far from a whole number is neither absent nor counted.
    np.testing.assert_allclose(counts, whole, atol=0.01)
    return {int(device): int(whole[device]) for device in np.flatnonzero(whole)}
