"""What methods that train under a mask have in common."""

from __future__ import annotations

from collections.abc import Sequence

from flasc_core.layout import AdapterLayout
from flasc_core.methods.densities import Share, keep_shares
from flasc_core.methods.plan import RoundPlan, TrainRule, UploadRule

__all__ = ["masked_plan"]


def masked_plan(
    layout: AdapterLayout, shares: Sequence[Share], *, ranked_by: int | None = None
) -> RoundPlan:
    """Down go the largest weights, and nothing else trains or comes back."""
    groups = keep_shares(layout, shares)
    return RoundPlan(
        download=groups,
        upload=UploadRule(groups=groups),
        training=TrainRule(downloaded_only=True),
        ranked_by=ranked_by,
    )
