"""Lower ranks for weaker devices: HetLoRA as FLASC's authors ran it, and as it was published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout
from flasc_core.methods.densities import keep_shares
from flasc_core.methods.plan import (
    HEAD,
    LORA,
    Averaging,
    KeepLargest,
    KeepRanks,
    Method,
    RankOrder,
    RankPenalty,
    RoundPlan,
    TrainRule,
    UploadRule,
    WeightKind,
    WeightRule,
)
from flasc_core.methods.ranks import lora_modules
from flasc_core.methods.settings import Setting, check_settings

__all__ = ["HetLora", "PublishedHetLora"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HetLora(Method):
    """The first `rank` ranks of every LoRA module, the rest zero; the head is whole.

    With `order` "norm" the ranks with the largest L2 norms, of A and of B independently. These are
    `rank` and `rankl1` of FLASC's released code; `PublishedHetLora` is the method of its own paper.
    All of it trains, but a rank whose row of A and column of B are both zero has no gradient and
    stays zero. Refuses CONFIGURATION.
    """

    name: ClassVar[str] = "hetlora"

    rank: Annotated[int, Setting(at_least=1, at_most=2**31 - 1, example=4)]
    order: Annotated[
        str,
        Setting(
            choices=tuple(RankOrder), description="norm: by L2 norm, of A and of B independently."
        ),
    ] = RankOrder.INDEX.value

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        head = keep_shares(layout, [(HEAD, 1.0)])
        ranks = KeepRanks(rank=self.rank, order=RankOrder(self.order))
        # Ranks by norm differ between A and B, and then more of them have a gradient than are kept.
        in_order = ranks.order is RankOrder.INDEX
        count = ranks.count_in(layout) if in_order else layout.size_of(LORA)
        upload = (KeepLargest(roles=LORA, count=count), *head)
        return RoundPlan(download=(ranks, *head), upload=UploadRule(groups=upload))

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        if devices_draw_base:
            raise Refusal(
                Reason.CONFIGURATION,
                "HetLoRA's missing ranks are zero: set the base to zero, since ranks that devices "
                "draw would train",
                field="base",
            )
        if not KeepRanks(rank=self.rank).count_in(layout):
            raise Refusal(Reason.CONFIGURATION, "the layout has no LoRA tensors to take ranks of")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedHetLora(Method):
    """HetLoRA as published (Cho et al., EMNLP 2024, arXiv 2401.06432).

    The first `rank` ranks go down. With a `penalty` the ranks from `prune_to` on cost loss, and a
    device in which they shrink goes on with the task's next tier, which should have that rank:
    rank self-pruning. Updates weigh by the norm of B A in steps of `weight_unit`, and trained
    weights are averaged, zero beyond a device's rank: sparsity-weighted aggregation of padded
    factors. Meant for plain averaging on the server (SGD at rate 1). Refuses CONFIGURATION.
    """

    name: ClassVar[str] = "hetlora_published"

    rank: Annotated[int, Setting(at_least=1, at_most=2**31 - 1, example=16)]
    prune_to: Annotated[
        int | None,
        Setting(
            at_least=1,
            at_most=2**31 - 1,
            example=8,
            description="The next tier's rank; null for no self-pruning.",
        ),
    ] = None
    penalty: Annotated[
        float, Setting(at_least=0, description="Of the ranks beyond `prune_to`.")
    ] = 0.0
    weight_unit: Annotated[float, Setting(above=0, description="Norm per step of weight.")] = 0.01

    def __post_init__(self) -> None:
        check_settings(self)
        if (self.prune_to is None) != (self.penalty == 0):
            raise Refusal(Reason.CONFIGURATION, "prune_to and penalty are set together, or neither")
        if self.prune_to is not None and self.prune_to >= self.rank:
            raise Refusal(Reason.CONFIGURATION, "prune_to must be below rank", field="prune_to")

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        truncated = HetLora(rank=self.rank).plan(layout, round_index)
        penalty = (
            None
            if self.prune_to is None
            else RankPenalty(from_rank=self.prune_to, factor=self.penalty)
        )
        return replace(
            truncated,
            training=TrainRule(rank_penalty=penalty),
            weighing=WeightRule(kind=WeightKind.PRODUCT_NORM, unit=self.weight_unit),
            averaging=Averaging.WEIGHTS,
        )

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        HetLora(rank=self.rank).check(layout, devices_draw_base=devices_draw_base)
        try:
            list(lora_modules(layout))
        except ValueError as error:
            raise Refusal(Reason.CONFIGURATION, str(error)) from error
