"""Methods that keep some of an adapter's tensors as they are: FFA-LoRA, RoLoRA, the head alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout, Role
from flasc_core.methods.densities import (
    check_densities,
    keep_shares,
    shares_of,
)
from flasc_core.methods.plan import (
    ALL_ROLES,
    HEAD,
    LORA,
    Method,
    RoundPlan,
    TrainRule,
    UploadRule,
)
from flasc_core.methods.settings import Density, HeadDensity

__all__ = ["FfaLora", "HeadOnly", "RoLora"]

_A: Final = frozenset({Role.LORA_A})
_B: Final = frozenset({Role.LORA_B})


@dataclass(frozen=True, slots=True, kw_only=True)
class FfaLora(Method):
    """LoRA's A factors stay as they were drawn (Sun et al., ICLR 2024); B and the head train.

    Averages of updates are then averages of the products, and half the traffic is gone. Needs a
    base that devices draw, or A would have to be sent in every round. Densities as in `Flasc`,
    over B and the head. Refuses CONFIGURATION for settings out of range.
    """

    name: ClassVar[str] = "ffa_lora"

    download_density: Density = 1.0
    upload_density: Density = 1.0
    head_density: HeadDensity = None

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        down = shares_of(ALL_ROLES - _A, self.download_density, self.head_density)
        up = shares_of(ALL_ROLES - _A, self.upload_density, self.head_density)
        return RoundPlan(
            download=keep_shares(layout, down),
            upload=UploadRule(groups=keep_shares(layout, up)),
            training=TrainRule(frozen_roles=_A),
        )

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        if not devices_draw_base:
            raise Refusal(
                Reason.CONFIGURATION,
                "FFA-LoRA never sends LoRA's A factors: set the base to initial, from which "
                "devices draw them",
                field="base",
            )
        for density in (self.download_density, self.upload_density):
            check_densities(layout, shares_of(ALL_ROLES - _A, density, self.head_density))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoLora(Method):
    """A and B take turns (RoLoRA, NeurIPS 2025): B trains in even rounds, A in odd ones.

    The head trains in all of them. Everything goes down, since a device may have missed any round;
    what was frozen does not come back. Densities as in `Flasc`, the upload's over what trains.
    Refuses CONFIGURATION for settings out of range.
    """

    name: ClassVar[str] = "rolora"

    download_density: Density = 1.0
    upload_density: Density = 1.0
    head_density: HeadDensity = None

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        frozen = _B if round_index % 2 else _A
        down = shares_of(ALL_ROLES, self.download_density, self.head_density)
        up = shares_of(ALL_ROLES - frozen, self.upload_density, self.head_density)
        return RoundPlan(
            download=keep_shares(layout, down),
            upload=UploadRule(groups=keep_shares(layout, up)),
            training=TrainRule(frozen_roles=frozen),
        )

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        check_densities(layout, shares_of(ALL_ROLES, self.download_density, self.head_density))
        for frozen in (_A, _B):
            roles = ALL_ROLES - frozen
            check_densities(layout, shares_of(roles, self.upload_density, self.head_density))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadOnly(Method):
    """Nothing but the head goes down, trains or comes back: what LoRA has to be better than."""

    name: ClassVar[str] = "head_only"

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        head = keep_shares(layout, [(HEAD, 1.0)])
        return RoundPlan(
            download=head,
            upload=UploadRule(groups=head),
            training=TrainRule(frozen_roles=LORA),
        )

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        check_densities(layout, [(HEAD, 1.0)])
