"""What the server's optimizer is given where tiers average weights."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator_service.domain.downloads import Masters, mean_update
from aggregator_service.domain.tasks import Tier
from flasc_core.layout import Role
from flasc_core.methods import PublishedHetLora
from tests.builders import a_config, a_layout

LAYOUT = a_layout()


def test_padded_weights_are_averaged_by_each_tier_s_part_of_all_weight() -> None:
    """Three quarters of the weight hold both ranks at 2, a quarter has zeros for the second."""
    config = a_config(
        method=PublishedHetLora(rank=2), tiers=(Tier(name="low", method=PublishedHetLora(rank=1)),)
    )
    weights = np.full(LAYOUT.dim, 2, dtype=np.float32)

    def masters_of(tier: str) -> Masters:
        return Masters(weights=weights, plan=config.plan(0, tier))

    moved = mean_update(config, np.full(LAYOUT.dim, 0.25), masters_of, {"": 6, "low": 2})

    # Of A the second row, of B the second column.
    second_rank = [4, 5, 6, 7, 9, 11, 13, 15]
    assert set(second_rank) < set(LAYOUT.indices_of([Role.LORA_A, Role.LORA_B]).tolist())
    expected = np.full(LAYOUT.dim, 0.25)
    # From 2 to 3/4 of 2, beside what devices learned.
    expected[second_rank] -= 0.5
    assert moved == pytest.approx(expected)
