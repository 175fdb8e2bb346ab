"""A mask that shrinks from round to round, in the manner of lottery tickets for adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from flasc_core.layout import AdapterLayout
from flasc_core.methods.densities import check_densities, shares_of
from flasc_core.methods.masked import masked_plan
from flasc_core.methods.plan import ALL_ROLES, Method, RoundPlan
from flasc_core.methods.settings import Density, Factor, HeadDensity, Positive

__all__ = ["AdapterLth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterLth(Method):
    """The largest weights of every round, fewer by `decay` every `decay_every` rounds.

    As FLASC's authors compare with Adapter-LTH (Wu and Chen, 2022): magnitude pruning without
    rewinding, and what is pruned does not train. Refuses CONFIGURATION for settings out of range.
    """

    name: ClassVar[str] = "adapter_lth"

    density: Density = 1.0
    decay: Factor = 0.98
    decay_every: Positive = 1
    head_density: HeadDensity = None

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        density = self.density * self.decay ** (round_index // self.decay_every)
        return masked_plan(layout, shares_of(ALL_ROLES, density, self.head_density))

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        check_densities(layout, shares_of(ALL_ROLES, self.density, self.head_density))
