"""A task's rounds in process, where the live service's tests do not reach."""

from __future__ import annotations

import numpy as np

from aggregator_service.domain.tasks import Tier
from flasc_core.methods import Flasc, SparseAdapter
from flasc_core.server_update import Sgd
from flasc_core.sparse import top_k
from flasc_core.wire import DecodeLimits, decode
from flasc_sim.device_work import DeviceUpdate
from flasc_sim.federation import Federation
from tests.builders import a_config, a_layout
from tests.support.device import encoded_vector

DIM = a_layout().dim


def an_update(changes: dict[int, float]) -> DeviceUpdate:
    payload = encoded_vector(DIM, changes)
    return DeviceUpdate(tier="", payload=payload, mask={}, examples=1, loss_mean=0.0, weight=1)


def test_a_mask_that_stays_is_of_the_version_before_a_tier_s_first_device() -> None:
    late = Tier(name="late", method=SparseAdapter(density=0.25))
    dense = Flasc(download_density=1.0, upload_density=1.0)
    config = a_config(method=dense, tiers=(late,), optimizer=Sgd(learning_rate=1.0))
    federation = Federation(config, np.linspace(0, 1, DIM, dtype=np.float32))

    federation.open("")
    federation.close([an_update({0: 9.0, 5: 8.0})])
    version_one = federation.weights
    federation.open("")
    federation.close([an_update({1: 40.0, 2: 40.0, 3: 40.0, 4: 40.0, 6: 40.0, 7: 40.0})])

    download = decode(federation.open("late").download, DecodeLimits.of_download(DIM))
    assert download.indices.tolist() == top_k(version_one, DIM // 4).tolist()
