"""Methods that keep some tensors as they are."""

from __future__ import annotations

import numpy as np
import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import Role
from flasc_core.methods import (
    FfaLora,
    HeadOnly,
    KeepLargest,
    Method,
    RoLora,
    TrainRule,
    trainable_mask,
)
from flasc_core.pb.v1 import device_service_pb2
from tests.unit.core.builders import a_layout

LAYOUT = a_layout()
A, B, HEAD = (frozenset({role}) for role in (Role.LORA_A, Role.LORA_B, Role.HEAD))


def test_ffa_never_sends_nor_trains_a() -> None:
    plan = FfaLora().plan(LAYOUT, 7)
    assert plan.download == plan.upload.groups == (KeepLargest(roles=B | HEAD, count=6),)
    assert plan.training == TrainRule(frozen_roles=A)


def test_ffa_needs_a_base_that_devices_draw() -> None:
    FfaLora().check(LAYOUT, devices_draw_base=True)
    with pytest.raises(Refusal, match="base to initial") as caught:
        FfaLora().check(LAYOUT, devices_draw_base=False)
    assert caught.value.reason is Reason.CONFIGURATION


def test_ffa_can_be_sparse_as_well() -> None:
    method = FfaLora(download_density=0.5, upload_density=0.25, head_density=1.0)
    plan = method.plan(LAYOUT, 0)
    head = KeepLargest(roles=HEAD, count=2)
    assert plan.download == (KeepLargest(roles=B, count=2), head)
    assert plan.upload.groups == (KeepLargest(roles=B, count=1), head)


@pytest.mark.parametrize(("round_index", "frozen", "trained"), [(0, A, B), (1, B, A), (4, A, B)])
def test_rolora_trains_b_and_a_in_turn_and_the_head_always(
    round_index: int, frozen: frozenset[Role], trained: frozenset[Role]
) -> None:
    plan = RoLora().plan(LAYOUT, round_index)
    assert plan.training == TrainRule(frozen_roles=frozen)
    assert plan.download == (KeepLargest(roles=A | B | HEAD, count=10),)
    assert plan.upload.groups == (KeepLargest(roles=trained | HEAD, count=6),)


def test_rolora_refuses_a_density_that_keeps_nothing_of_either_half() -> None:
    layout = a_layout(a=40, b=4, head=0)
    RoLora(upload_density=0.25).check(layout, devices_draw_base=False)
    with pytest.raises(Refusal, match="keeps none of 4"):
        RoLora(upload_density=0.1).check(layout, devices_draw_base=False)


def test_the_head_alone_goes_both_ways() -> None:
    plan = HeadOnly().plan(LAYOUT, 0)
    assert plan.download == plan.upload.groups == (KeepLargest(roles=HEAD, count=2),)
    assert plan.training == TrainRule(frozen_roles=A | B)


def test_the_head_alone_needs_a_head() -> None:
    with pytest.raises(Refusal, match="trains no tensor"):
        HeadOnly().check(a_layout(head=0), devices_draw_base=True)


@pytest.mark.parametrize("method", [FfaLora(), RoLora(), HeadOnly()])
def test_what_is_frozen_is_never_taken_back(method: Method) -> None:
    for round_index in (0, 1):
        plan = method.plan(LAYOUT, round_index)
        mask = trainable_mask(LAYOUT, plan.training, [np.arange(LAYOUT.dim)])
        assert mask is not None
        taken = LAYOUT.indices_of(role for group in plan.upload.groups for role in group.roles)
        assert np.array_equal(np.flatnonzero(mask), taken)


@pytest.mark.parametrize(
    "rule", [TrainRule(), TrainRule(frozen_roles=A | HEAD), TrainRule(downloaded_only=True)]
)
def test_a_train_rule_survives_the_wire(rule: TrainRule) -> None:
    assert TrainRule.from_message(rule.to_message()) == rule


@pytest.mark.parametrize(("role", "reason"), [(0, Reason.FIELD_REQUIRED), (9, Reason.UNKNOWN_ENUM)])
def test_a_train_rule_of_unknown_roles_is_refused(role: int, reason: Reason) -> None:
    message = device_service_pb2.TrainRule(frozen_roles=[role])  # type: ignore[list-item]
    with pytest.raises(Refusal) as caught:
        TrainRule.from_message(message)
    assert caught.value.reason is reason
