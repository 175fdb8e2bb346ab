"""HetLoRA as FLASC's authors ran it: ranks by index, and ranks by norm."""

from __future__ import annotations

import numpy as np
import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import HetLora, KeepRanks, RankOrder, TrainRule, select
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
    with pytest.raises(Refusal, match="order is one of"):
        HetLora(rank=1, order="l1")
