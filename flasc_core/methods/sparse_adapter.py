"""A mask that is chosen once, in the manner of SparseAdapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from flasc_core.layout import AdapterLayout
from flasc_core.methods.densities import (
    Share,
    check_densities,
    keep_shares,
    shares_of,
)
from flasc_core.methods.masked import masked_plan
from flasc_core.methods.plan import ALL_ROLES, Method, RoundPlan, UploadRule
from flasc_core.methods.settings import Density, HeadDensity

__all__ = ["SparseAdapter"]

# The version whose weights choose the mask: the result of one dense round.
_CHOSEN_AT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseAdapter(Method):
    """One dense round, then for ever the mask of the weights that were largest after it.

    As FLASC's authors compare with SparseAdapter (arXiv 2210.04284): what is outside the mask is
    zero and stays it. At low densities the mask holds next to nothing of LoRA's B factors, which
    begin at zero, and LoRA learns nothing. Refuses CONFIGURATION for settings out of range.
    """

    name: ClassVar[str] = "sparse_adapter"

    density: Density
    head_density: HeadDensity = None

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        if round_index < _CHOSEN_AT:
            everything = keep_shares(layout, [(ALL_ROLES, 1.0)])
            return RoundPlan(download=everything, upload=UploadRule(groups=everything))
        return masked_plan(layout, self._shares(), ranked_by=_CHOSEN_AT)

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        check_densities(layout, self._shares())

    def _shares(self) -> list[Share]:
        return shares_of(ALL_ROLES, self.density, self.head_density)
