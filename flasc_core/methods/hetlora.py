"""Lower ranks for weaker devices, as FLASC's authors ran HetLoRA."""

from __future__ import annotations

from dataclasses import dataclass

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue
from flasc_core.layout import AdapterLayout
from flasc_core.methods.densities import keep_shares, write_settings
from flasc_core.methods.plan import (
    HEAD,
    LORA,
    KeepLargest,
    KeepRanks,
    RankOrder,
    RoundPlan,
    UploadRule,
)

__all__ = ["HetLora"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HetLora:
    """The first `rank` ranks of every LoRA module, the rest zero; the head is whole.

    With `order` "norm" the ranks with the largest L2 norms, of A and of B independently. These are
    `rank` and `rankl1` of FLASC's released code; the published HetLoRA (Cho et al., EMNLP 2024)
    prunes ranks and weighs updates as well. All of it trains, but a rank whose row of A and column
    of B are both zero has no gradient and stays zero. Refuses CONFIGURATION.
    """

    rank: int
    order: str = RankOrder.INDEX.value

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise Refusal(Reason.CONFIGURATION, "rank must be at least 1", field="rank")
        if self.order not in list(RankOrder):
            raise Refusal(
                Reason.CONFIGURATION,
                f"order is one of {', '.join(RankOrder)}, not {self.order!r}",
                field="order",
            )

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        head = keep_shares(layout, [(HEAD, 1.0)])
        ranks = KeepRanks(rank=self.rank, order=RankOrder(self.order))
        # Ranks by norm differ between A and B, and then more of them have a gradient than are kept.
        in_order = ranks.order is RankOrder.INDEX
        count = ranks.count_in(layout) if in_order else layout.size_of(LORA)
        upload = (KeepLargest(roles=LORA, count=count), *head)
        return RoundPlan(download=(ranks, *head), upload=UploadRule(groups=upload))

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        if not KeepRanks(rank=self.rank).count_in(layout):
            raise Refusal(Reason.CONFIGURATION, "the layout has no LoRA tensors to take ranks of")

    def to_json(self) -> dict[str, JsonValue]:
        return write_settings("hetlora", self)
