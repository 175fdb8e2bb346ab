"""A mask that shrinks from round to round, in the manner of lottery tickets for adapters."""

from __future__ import annotations

from dataclasses import dataclass

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue
from flasc_core.layout import AdapterLayout
from flasc_core.methods.densities import check_densities, check_density, shares_of, write_settings
from flasc_core.methods.masked import masked_plan
from flasc_core.methods.plan import ALL_ROLES, RoundPlan

__all__ = ["AdapterLth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterLth:
    """The largest weights of every round, fewer by `decay` every `decay_every` rounds.

    As FLASC's authors compare with Adapter-LTH (Wu and Chen, 2022): magnitude pruning without
    rewinding, and what is pruned does not train. Refuses CONFIGURATION for settings out of range.
    """

    density: float = 1.0
    decay: float = 0.98
    decay_every: int = 1
    head_density: float | None = None

    def __post_init__(self) -> None:
        check_density("density", self.density)
        check_density("decay", self.decay)
        check_density("head_density", self.head_density)
        if self.decay_every < 1:
            raise Refusal(Reason.CONFIGURATION, "decay_every must be at least 1")

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        density = self.density * self.decay ** (round_index // self.decay_every)
        return masked_plan(layout, shares_of(ALL_ROLES, density, self.head_density))

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        check_densities(layout, shares_of(ALL_ROLES, self.density, self.head_density))

    def to_json(self) -> dict[str, JsonValue]:
        return write_settings("adapter_lth", self)
