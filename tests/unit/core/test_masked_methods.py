"""Methods that train under a mask: what goes down, what trains and what comes back."""

from __future__ import annotations

import numpy as np
import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import Role
from flasc_core.methods import (
    AdapterLth,
    FederatedSelect,
    KeepLargest,
    Method,
    SparseAdapter,
    TrainRule,
    trainable_mask,
)
from tests.unit.core.builders import a_layout, selected_by

EVERYTHING = frozenset(Role)
LAYOUT = a_layout()
UNDER_THE_MASK = TrainRule(downloaded_only=True)


def keep(count: int) -> tuple[KeepLargest, ...]:
    return (KeepLargest(roles=EVERYTHING, count=count),)


def test_sparse_adapter_begins_with_one_dense_round() -> None:
    plan = SparseAdapter(density=0.3).plan(LAYOUT, 0)
    assert plan.download == plan.upload.groups == keep(10)
    assert plan.training == TrainRule()
    assert plan.ranked_by is None


@pytest.mark.parametrize("round_index", [1, 2, 100])
def test_sparse_adapter_then_keeps_the_mask_of_that_round_s_result(round_index: int) -> None:
    plan = SparseAdapter(density=0.3).plan(LAYOUT, round_index)
    assert plan.download == plan.upload.groups == keep(3)
    assert plan.training == UNDER_THE_MASK
    assert plan.ranked_by == 1


def test_adapter_lth_prunes_in_steps() -> None:
    method = AdapterLth(density=0.8, decay=0.5, decay_every=2)
    plans = [method.plan(LAYOUT, number) for number in range(6)]
    assert [plan.download for plan in plans] == [keep(n) for n in (8, 8, 4, 4, 2, 2)]
    assert all(plan.upload.groups == plan.download for plan in plans)
    assert {plan.training for plan in plans} == {UNDER_THE_MASK}
    assert {plan.ranked_by for plan in plans} == {None}


def test_federated_select_chooses_anew_in_every_round() -> None:
    method = FederatedSelect(density=0.2)
    plans = {method.plan(LAYOUT, number) for number in (0, 1, 50)}
    (plan,) = plans
    assert plan.download == plan.upload.groups == keep(2)
    assert (plan.training, plan.ranked_by) == (UNDER_THE_MASK, None)


@pytest.mark.parametrize(
    "method",
    [
        SparseAdapter(density=0.25, head_density=0.5),
        AdapterLth(density=0.25, head_density=0.5),
        FederatedSelect(density=0.25, head_density=0.5),
    ],
)
def test_the_head_may_have_a_density_of_its_own(method: Method) -> None:
    plan = method.plan(LAYOUT, 1)
    (head,) = (group for group in plan.upload.groups if Role.HEAD in group.roles)
    assert (head.roles, head.count) == (frozenset({Role.HEAD}), 1)
    assert plan.count_download(LAYOUT) <= 3


@pytest.mark.parametrize(
    "method",
    [SparseAdapter(density=0.05), AdapterLth(density=0.05), FederatedSelect(density=0.05)],
)
def test_a_mask_of_nothing_is_refused(method: Method) -> None:
    with pytest.raises(Refusal) as caught:
        method.check(LAYOUT, devices_draw_base=True)
    assert caught.value.reason is Reason.CONFIGURATION


@pytest.mark.parametrize("density", [0.0, -1.0, 1.1, float("nan")])
def test_a_density_out_of_range_is_refused(density: float) -> None:
    for kind in (SparseAdapter, AdapterLth, FederatedSelect):
        with pytest.raises(Refusal):
            kind(density=density)
        with pytest.raises(Refusal):
            kind(density=1.0, head_density=density)


def test_a_mask_trains_the_zeros_that_it_holds_and_nothing_outside() -> None:
    weights = np.zeros(10, dtype=np.float32)
    weights[7] = 1
    download = selected_by(FederatedSelect(density=0.3), LAYOUT, weights)
    mask = trainable_mask(LAYOUT, UNDER_THE_MASK, [download.indices])
    assert mask is not None
    # By magnitude, and then by index.
    assert np.flatnonzero(mask).tolist() == [0, 1, 7]


def test_all_of_it_trains_where_no_rule_says_otherwise() -> None:
    assert trainable_mask(LAYOUT, TrainRule(), [np.arange(3)]) is None
