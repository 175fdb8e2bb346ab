"""HetLoRA as FLASC's authors ran it, by index and by norm, and as it was published."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import (
    Averaging,
    HetLora,
    KeepRanks,
    Method,
    PublishedHetLora,
    RankOrder,
    RankPenalty,
    TrainRule,
    WeightKind,
    WeightRule,
    product_norm,
    select,
    steps_down,
    weigh,
)
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.unit.core.builders import a_layout, selected_by

# A has 4 ranks of 3 values, B 2 rows of 4 ranks; the head has 2 values.
LAYOUT = AdapterLayout(
    tensors=(
        TensorSpec(name="a", shape=(4, 3), role=Role.LORA_A),
        TensorSpec(name="b", shape=(2, 4), role=Role.LORA_B),
        TensorSpec(name="head", shape=(2,), role=Role.HEAD),
    )
)
WEIGHTS = np.arange(1, 23, dtype=np.float32)


def test_the_first_ranks_are_rows_of_a_and_columns_of_b() -> None:
    download = selected_by(HetLora(rank=2), LAYOUT, WEIGHTS)
    # Rows 0 and 1 of A; columns 0 and 1 of both rows of B; the head.
    assert download.indices.tolist() == [*range(6), 12, 13, 16, 17, 20, 21]


def test_ranks_by_norm_are_chosen_in_a_and_in_b_independently() -> None:
    weights = WEIGHTS.copy()
    weights[0:3] = -100
    weights[[12, 16]] = 0
    download = selected_by(HetLora(rank=1, order="norm"), LAYOUT, weights)
    # Row 0 of A is the largest, and the last column of B.
    assert download.indices.tolist() == [0, 1, 2, 15, 19, 20, 21]


def test_of_equal_norms_the_lower_rank_is_kept() -> None:
    kept = select(LAYOUT, np.ones(22, dtype=np.float32), [KeepRanks(rank=1, order=RankOrder.NORM)])
    assert kept.tolist() == [0, 1, 2, 12, 16]


def test_a_device_sends_at_most_its_own_ranks() -> None:
    plan = HetLora(rank=1).plan(LAYOUT, 0)
    assert [group.count for group in plan.upload.groups] == [5, 2]
    assert plan.training == TrainRule()


def test_ranks_by_norm_may_all_have_a_gradient() -> None:
    # A row of A learns if the column of B with its number was kept, whether or not it was.
    plan = HetLora(rank=1, order="norm").plan(LAYOUT, 0)
    assert [group.count for group in plan.upload.groups] == [20, 2]


def test_all_ranks_are_everything() -> None:
    assert selected_by(HetLora(rank=4), LAYOUT, WEIGHTS).nnz == LAYOUT.dim


@pytest.mark.parametrize(("rank", "refused"), [(4, False), (5, True)])
def test_a_rank_above_the_adapter_s_is_refused(rank: int, refused: bool) -> None:
    method = HetLora(rank=rank)
    if not refused:
        method.check(LAYOUT, devices_draw_base=False)
        return
    with pytest.raises(Refusal, match="above the 4 of 'a'") as caught:
        method.check(LAYOUT, devices_draw_base=False)
    assert caught.value.reason is Reason.CONFIGURATION


def test_layouts_without_ranks_are_refused() -> None:
    with pytest.raises(Refusal, match="no axis of ranks"):
        HetLora(rank=1).check(a_layout(), devices_draw_base=False)
    with pytest.raises(Refusal, match="no LoRA tensors"):
        HetLora(rank=1).check(a_layout(a=0, b=0), devices_draw_base=False)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(Refusal, match="rank must be"):
        HetLora(rank=0)
    with pytest.raises(Refusal, match="order must be one of index, norm, not"):
        HetLora(rank=1, order="l1")


# -- as published


def test_published_ranks_are_truncated_weighed_by_norm_and_averaged_as_weights() -> None:
    plan = PublishedHetLora(rank=2, weight_unit=0.5).plan(LAYOUT, 3)
    truncated = HetLora(rank=2).plan(LAYOUT, 3)
    assert (plan.download, plan.upload) == (truncated.download, truncated.upload)
    assert plan.training == TrainRule()
    assert plan.weighing == WeightRule(kind=WeightKind.PRODUCT_NORM, unit=0.5)
    assert plan.averaging is Averaging.WEIGHTS


def test_self_pruning_penalises_the_ranks_that_the_next_tier_lacks() -> None:
    plan = PublishedHetLora(rank=4, prune_to=2, penalty=0.1).plan(LAYOUT, 0)
    assert plan.training == TrainRule(rank_penalty=RankPenalty(from_rank=2, factor=0.1))


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 0},
        {"rank": 2, "prune_to": 1},
        {"rank": 2, "penalty": 0.1},
        {"rank": 2, "prune_to": 2, "penalty": 0.1},
        {"rank": 2, "prune_to": 0, "penalty": 0.1},
        {"rank": 2, "prune_to": 1, "penalty": float("inf")},
        {"rank": 2, "weight_unit": 0.0},
    ],
)
def test_published_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        PublishedHetLora(**settings)
    assert caught.value.reason is Reason.CONFIGURATION


@pytest.mark.parametrize("method", [HetLora(rank=1), PublishedHetLora(rank=1)])
def test_ranks_that_devices_would_draw_are_refused(method: Method) -> None:
    method.check(LAYOUT, devices_draw_base=False)
    with pytest.raises(Refusal, match="base to zero"):
        method.check(LAYOUT, devices_draw_base=True)


def test_the_product_s_norm_is_that_of_the_matrix() -> None:
    a, b = WEIGHTS[:12].reshape(4, 3), WEIGHTS[12:20].reshape(2, 4)
    assert product_norm(LAYOUT, WEIGHTS) == pytest.approx(np.linalg.norm(b @ a))


def test_norms_add_up_over_modules_of_any_kind() -> None:
    layout = AdapterLayout(
        tensors=(
            TensorSpec(name="conv.a", shape=(2, 3, 2, 2), role=Role.LORA_A),
            TensorSpec(name="conv.b", shape=(4, 2, 1, 1), role=Role.LORA_B),
            TensorSpec(name="head", shape=(2,), role=Role.HEAD),
            TensorSpec(name="a", shape=(1, 3), role=Role.LORA_A),
            TensorSpec(name="b", shape=(2, 1), role=Role.LORA_B),
        )
    )
    weights = np.random.default_rng(0).standard_normal(layout.dim).astype(np.float32)
    parts = layout.split(weights)
    first = parts["conv.b"].reshape(4, 2) @ parts["conv.a"].reshape(2, 12)
    second = parts["b"] @ parts["a"]
    expected = np.sqrt(np.square(first).sum() + np.square(second).sum())
    assert product_norm(layout, weights) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("unit", "max_weight", "weight"), [(1.0, 100, 20), (8.0, 100, 2), (50.0, 100, 1), (1.0, 15, 15)]
)
def test_examples_weigh_in_units_within_bounds(unit: float, max_weight: int, weight: int) -> None:
    rule = WeightRule(unit=unit)
    assert weigh(rule, LAYOUT, WEIGHTS, examples=20, max_weight=max_weight) == weight


def test_a_norm_weighs_in_units() -> None:
    rule = WeightRule(kind=WeightKind.PRODUCT_NORM, unit=0.25)
    weight = weigh(rule, LAYOUT, WEIGHTS, examples=1, max_weight=10**6)
    assert weight == round(product_norm(LAYOUT, WEIGHTS) / 0.25)


@pytest.mark.parametrize(("factor", "expected"), [(0.5, True), (1.0, False), (2.0, False)])
def test_a_device_steps_down_once_its_last_ranks_have_shrunk(factor: float, expected: bool) -> None:
    rule = TrainRule(rank_penalty=RankPenalty(from_rank=2, factor=0.1))
    trained = WEIGHTS.copy()
    # Rows 2 and 3 of A; the first ranks may do what they like.
    trained[6:12] *= factor
    trained[0:6] *= 10
    assert steps_down(rule, LAYOUT, WEIGHTS, trained) is expected
    assert not steps_down(TrainRule(), LAYOUT, WEIGHTS, trained)


@pytest.mark.parametrize(
    ("zeros", "expected"),
    [
        # Rows 2 and 3 of A, and columns 2 and 3 of B.
        ([*range(6, 12), 14, 15, 18, 19], True),
        # B alone, as in the first round: A gives it a gradient yet.
        ([14, 15, 18, 19], False),
        ([*range(6, 12)], False),
    ],
)
def test_a_device_steps_down_from_last_ranks_that_are_dead(
    zeros: list[int], expected: bool
) -> None:
    rule = TrainRule(rank_penalty=RankPenalty(from_rank=2, factor=0.1))
    start = WEIGHTS.copy()
    start[zeros] = 0
    trained = start.copy()
    trained[0:6] *= 10
    assert steps_down(rule, LAYOUT, start, trained) is expected


def test_a_zero_product_that_grows_is_no_reason_to_step_down() -> None:
    rule = TrainRule(rank_penalty=RankPenalty(from_rank=2, factor=0.1))
    start = WEIGHTS.copy()
    start[[14, 15, 18, 19]] = 0
    assert not steps_down(rule, LAYOUT, start, WEIGHTS)


@pytest.mark.parametrize(
    "rule", [WeightRule(), WeightRule(kind=WeightKind.PRODUCT_NORM, unit=0.125)]
)
def test_a_weight_rule_survives_the_wire(rule: WeightRule) -> None:
    assert WeightRule.from_message(rule.to_message()) == rule


@pytest.mark.parametrize(
    ("kind", "unit", "reason"),
    [
        (0, 1.0, Reason.FIELD_REQUIRED),
        (9, 1.0, Reason.UNKNOWN_ENUM),
        (1, 0.0, Reason.FIELD_RANGE),
        (1, float("nan"), Reason.FIELD_RANGE),
    ],
)
def test_a_weight_rule_that_says_nothing_is_refused(kind: int, unit: float, reason: Reason) -> None:
    message = pb.WeightRule(kind=kind, unit=unit)  # type: ignore[arg-type]
    with pytest.raises(Refusal) as caught:
        WeightRule.from_message(message)
    assert caught.value.reason is reason


def test_a_penalty_survives_the_wire_and_a_senseless_one_is_refused() -> None:
    rule = TrainRule(rank_penalty=RankPenalty(from_rank=2, factor=0.1))
    assert TrainRule.from_message(rule.to_message()) == rule
    message = pb.TrainRule(rank_penalty=pb.RankPenalty(from_rank=2, factor=0.0))
    with pytest.raises(Refusal) as caught:
        TrainRule.from_message(message)
    assert caught.value.reason is Reason.FIELD_RANGE


def test_factors_without_partners_are_refused() -> None:
    lone = AdapterLayout(tensors=LAYOUT.tensors[:1])
    with pytest.raises(Refusal, match="has no B"):
        PublishedHetLora(rank=1).check(lone, devices_draw_base=False)
