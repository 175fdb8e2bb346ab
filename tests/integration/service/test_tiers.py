"""Devices of several tiers in one round: each its own download and rules, one adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import grpc
import numpy as np
import pytest

from aggregator_service.app.retract_update import RetractUpdate
from aggregator_service.app.set_tier import SetTier
from aggregator_service.clock import utc_now
from aggregator_service.domain.assignments import Evaluation
from aggregator_service.domain.tasks import Tier
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import Role
from flasc_core.methods import Flasc, PublishedHetLora, mask_composition
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.wire import DecodeLimits, decode
from tests.builders import a_config, a_policy, a_privacy
from tests.support.device import SyntheticDevice, encoded_vector, reason_of
from tests.support.live import LiveService
from tests.support.seen import device_id_of, figures_of
from tests.support.vector_trainer import a_layout

LIMITS = DecodeLimits(dim=24, max_nnz=24, max_abs_value=64.0)


def flasc(density: float) -> Flasc:
    return Flasc(download_density=density, upload_density=density)


# Of 24 coordinates: 24, 6 and 3.
SETTINGS: Final[Mapping[str, Any]] = {
    "method": flasc(1.0),
    "tiers": (Tier(name="laptop", method=flasc(0.25)), Tier(name="phone", method=flasc(0.125))),
}
COUNTS = {"": 24, "laptop": 6, "phone": 3}


def a_device(live: LiveService, tier: str) -> SyntheticDevice:
    device = live.device()
    SetTier(store=live.store)(device_id_of(device), tier)
    return device


def test_each_tier_downloads_and_sends_what_its_method_says(live: LiveService) -> None:
    live.create_task(**SETTINGS)
    for tier, count in COUNTS.items():
        device = a_device(live, tier)
        given = device.assignment("a-task")
        assert decode(device.download(given), LIMITS).nnz == count
        assert [group.count for group in given.upload_rule.groups] == [count]


def test_an_update_is_held_to_its_own_tier_s_rule(live: LiveService) -> None:
    live.create_task(**SETTINGS)
    four = encoded_vector(24, dict.fromkeys(range(4), 1.0))
    laptop, phone = a_device(live, "laptop"), a_device(live, "phone")
    laptop.submit(laptop.assignment("a-task"), four)
    with pytest.raises(grpc.RpcError) as caught:
        phone.submit(phone.assignment("a-task"), four)
    assert reason_of(caught.value) is Reason.K_BUDGET


def test_a_round_tells_what_each_download_s_mask_holds(live: LiveService) -> None:
    task = live.create_task(**SETTINGS)
    layout = task.config.layout
    for tier, file in live.latest_round(task).downloads.items():
        device = a_device(live, tier)
        download = decode(device.download(device.assignment("a-task")), LIMITS)
        assert file.values_by_role == mask_composition(layout, download.indices)
        assert sum(file.values_by_role.values()) == file.nnz == COUNTS[tier]


def test_a_tier_that_the_task_does_not_name_is_none(live: LiveService) -> None:
    task = live.create_task(**SETTINGS)
    device = a_device(live, "watch")
    assert decode(device.download(device.assignment("a-task")), LIMITS).nnz == 24
    assert set(figures_of(live.store, live.latest_round(task)).tiers) == {""}


def test_an_assignment_keeps_the_tier_that_it_was_given_in(live: LiveService) -> None:
    task = live.create_task(**SETTINGS)
    device = a_device(live, "phone")
    given = device.assignment("a-task")
    SetTier(store=live.store)(device_id_of(device), "")
    again = device.assignment("a-task")
    assert again == given
    assert decode(device.download(again), LIMITS).nnz == 3
    assert set(figures_of(live.store, live.latest_round(task)).tiers) == {"phone"}


def test_bytes_and_devices_are_told_by_tier(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=4, quorum=4), **SETTINGS)
    sizes = {}
    for tier in ("", "laptop", "laptop", "phone"):
        device = a_device(live, tier)
        given = device.assignment("a-task")
        device.download(given)
        sizes[tier] = given.download.size_bytes
        if tier != "phone":
            device.submit(given, encoded_vector(24, {1: 1.0}))
    live.booked()
    figures = figures_of(live.store, live.latest_round(task))
    assert list(figures.tiers) == ["", "laptop", "phone"]
    assert {tier: part.assigned for tier, part in figures.tiers.items()} == {
        "": 1,
        "laptop": 2,
        "phone": 1,
    }
    assert {tier: part.bytes.down for tier, part in figures.tiers.items()} == {
        "": sizes[""],
        "laptop": 2 * sizes["laptop"],
        "phone": sizes["phone"],
    }
    assert [part.bytes.updates_accepted for part in figures.tiers.values()] == [1, 2, 0]


def test_masks_and_held_out_scores_are_told_by_tier(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=4, quorum=4), **SETTINGS)
    layout = task.config.layout
    sent: dict[str, list[int]] = {"laptop": [0, 9, 23], "phone": [1, 22]}
    for right, (tier, indices) in enumerate(sent.items(), start=1):
        for _ in range(2):
            device = a_device(live, tier)
            counts = pb.Evaluation(correct=right, total=4, loss_sum=2.5)
            payload = encoded_vector(24, dict.fromkeys(indices, 1.0))
            device.submit(device.assignment("a-task"), payload, evaluation=counts)
    tiers = figures_of(live.store, live.latest_round(task)).tiers
    for right, (tier, indices) in enumerate(sent.items(), start=1):
        composition = mask_composition(layout, np.array(indices, dtype=np.int64))
        assert tiers[tier].values_by_role == {r: 2 * composition.get(r, 0) for r in Role}
        score = tiers[tier].evaluation
        assert score == Evaluation(correct=2 * right, total=8, loss_sum=5.0)


def test_what_a_retracted_update_held_counts_no_more(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=4, quorum=4), **SETTINGS)
    device = a_device(live, "laptop")
    device.submit(device.assignment("a-task"), encoded_vector(24, {1: 1.0}))
    retract = RetractUpdate(store=live.store, blobs=live.blobs, now=utc_now)
    retract(live.latest_round(task).id, device_id_of(device), "mistaken")
    tiers = figures_of(live.store, live.latest_round(task)).tiers
    assert not any(tiers["laptop"].values_by_role.values())


def test_the_next_version_is_the_mean_over_all_tiers(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=2, quorum=2), **SETTINGS)
    for tier in ("laptop", "phone"):
        device = a_device(live, tier)
        device.submit(device.assignment("a-task"), encoded_vector(24, {1: 1.0}))
    live.settle()
    newest = live.store.read("test", lambda tx: tx.adapters.latest(task.id))
    assert newest is not None
    assert (newest.version, newest.divisor, newest.mask_nnz) == (1, 2, 24)


@pytest.mark.parametrize("names", [("phone", "phone"), ("",), ("Phone",), ("a b",)])
def test_tiers_need_names_of_their_own(names: tuple[str, ...]) -> None:
    tiers = tuple(Tier(name=name, method=flasc(0.5)) for name in names)
    with pytest.raises(Refusal) as caught:
        a_config(tiers=tiers).check()
    assert caught.value.reason is Reason.CONFIGURATION


def test_a_tier_s_method_is_checked_like_the_task_s() -> None:
    with pytest.raises(Refusal, match="keeps none"):
        a_config(tiers=(Tier(name="phone", method=flasc(0.01)),)).check()


def test_methods_that_average_differently_make_no_one_adapter() -> None:
    tiers = (Tier(name="phone", method=PublishedHetLora(rank=1)),)
    with pytest.raises(Refusal, match="weigh and average alike"):
        a_config(layout=a_layout(), method=flasc(1.0), tiers=tiers).check()


def test_a_private_task_does_not_average_trained_weights() -> None:
    config = a_config(
        layout=a_layout(), method=PublishedHetLora(rank=1), privacy=a_privacy(), policy=a_policy()
    )
    with pytest.raises(Refusal, match="averages updates"):
        config.check()


def test_an_unknown_device_has_no_tier_to_set(live: LiveService) -> None:
    with pytest.raises(Refusal) as caught:
        SetTier(store=live.store)(UUID(int=1), "phone")
    assert caught.value.reason is Reason.DEVICE_UNKNOWN
    device = live.device()
    with pytest.raises(Refusal, match="tier name"):
        SetTier(store=live.store)(device_id_of(device), "Phone")
