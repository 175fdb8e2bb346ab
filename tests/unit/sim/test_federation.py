"""A task's rounds in process, where the live service's tests do not reach."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator_service.domain.tasks import Encodings, Tier, UpdateLimits
from client_sdk import TrainingFailed
from client_sdk.peft_trainer import PeftTrainer, adapter_layout, adapter_weights
from flasc_core.base import ZeroBase
from flasc_core.methods import Flasc, PublishedHetLora, SparseAdapter
from flasc_core.server_update import Sgd
from flasc_core.sparse import top_k
from flasc_core.wire import DecodeLimits, Encoding, decode
from flasc_sim.device_work import DeviceUpdate, TierWork
from flasc_sim.federation import Federation, Participation
from tests.builders import a_config, a_layout
from tests.support.device import encoded_vector
from tests.support.tiny_model import Examples, a_peft_model
from tests.support.vector_trainer import VectorTrainer

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


def test_a_device_leaves_the_ranks_that_a_round_without_its_tier_has_zeroed() -> None:
    model = a_peft_model(rank=2)
    trainer = PeftTrainer(model, Examples(8))
    config = a_config(
        layout=adapter_layout(model),
        base=ZeroBase(),
        # So small a penalty that what the ranks are good for prevails.
        method=PublishedHetLora(rank=2, prune_to=1, penalty=1e-9),
        tiers=(Tier(name="low", method=PublishedHetLora(rank=1)),),
        optimizer=Sgd(learning_rate=1.0),
        limits=UpdateLimits(max_weight=10_000, max_abs_value=8.0, largest_cohort=100),
    )
    federation = Federation(config, adapter_weights(model))

    def high_device_steps_down() -> bool:
        return TierWork(config, federation.open("")).do(trainer, seed=1).steps_down

    # B is zero as yet, and grows.
    assert not high_device_steps_down()
    federation.run_round([Participation(trainer=trainer, seed=2, tier="low")])
    assert high_device_steps_down()


def test_an_update_that_rounding_takes_past_the_limit_fails_as_on_a_device() -> None:
    trainer = VectorTrainer(scale=1.25)
    start = np.ones(trainer.layout.dim, dtype=np.float32)

    def work(largest: float) -> TierWork:
        limits = UpdateLimits(max_weight=1, max_abs_value=largest, largest_cohort=100)
        int3 = Encodings(updates=(Encoding.parse("int3"),))
        dense = Flasc(download_density=1.0, upload_density=1.0)
        config = a_config(layout=trainer.layout, method=dense, encodings=int3, limits=limits)
        return TierWork(config, Federation(config, start).open(""))

    payload = work(100.0).do(VectorTrainer(scale=1.25), seed=1).payload
    rounded = np.abs(decode(payload, DecodeLimits.of_download(trainer.layout.dim)).values).max()
    noise = 1.25 * np.random.default_rng((1, 1)).standard_normal(trainer.layout.dim)
    assert np.abs(noise).max() < rounded - 0.01
    with pytest.raises(TrainingFailed, match=f"the largest change is {rounded:g}; training"):
        work(float(rounded) - 0.01).do(VectorTrainer(scale=1.25), seed=1)
    work(float(rounded)).do(VectorTrainer(scale=1.25), seed=1)
