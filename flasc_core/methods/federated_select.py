"""Devices that train a slice of the adapter, in the manner of Federated Select."""

from __future__ import annotations

from dataclasses import dataclass

from flasc_core.json_value import JsonValue
from flasc_core.layout import AdapterLayout
from flasc_core.methods.densities import check_densities, check_density, shares_of, write_settings
from flasc_core.methods.masked import masked_plan
from flasc_core.methods.plan import ALL_ROLES, RoundPlan

__all__ = ["FederatedSelect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedSelect:
    """The largest weights of every round, and nothing else trains.

    In Federated Select (Charles et al., 2022) devices choose slices by keys of their own; among
    adapters without such keys the server's choice by magnitude comes nearest, and the same for all.
    Refuses CONFIGURATION for settings out of range.
    """

    density: float
    head_density: float | None = None

    def __post_init__(self) -> None:
        check_density("density", self.density)
        check_density("head_density", self.head_density)

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        return masked_plan(layout, shares_of(ALL_ROLES, self.density, self.head_density))

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        check_densities(layout, shares_of(ALL_ROLES, self.density, self.head_density))

    def to_json(self) -> dict[str, JsonValue]:
        return write_settings("federated_select", self)
