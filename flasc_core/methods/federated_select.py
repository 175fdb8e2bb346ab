"""Devices that train a slice of the adapter, in the manner of Federated Select."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from flasc_core.layout import AdapterLayout
from flasc_core.methods.densities import check_densities, shares_of
from flasc_core.methods.masked import masked_plan
from flasc_core.methods.plan import ALL_ROLES, Method, RoundPlan
from flasc_core.methods.settings import Density, HeadDensity

__all__ = ["FederatedSelect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedSelect(Method):
    """The largest weights of every round, and nothing else trains.

    In Federated Select (Charles et al., 2022) devices choose slices by keys of their own; among
    adapters without such keys the server's choice by magnitude comes nearest, and the same for all.
    Refuses CONFIGURATION for settings out of range.
    """

    name: ClassVar[str] = "federated_select"

    density: Density
    head_density: HeadDensity = None

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        return masked_plan(layout, shares_of(ALL_ROLES, self.density, self.head_density))

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        check_densities(layout, shares_of(ALL_ROLES, self.density, self.head_density))
