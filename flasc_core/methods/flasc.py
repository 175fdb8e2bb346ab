"""FLASC, and dense LoRA as its special case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from flasc_core.layout import AdapterLayout
from flasc_core.methods.densities import (
    Share,
    check_densities,
    keep_shares,
    shares_of,
)
from flasc_core.methods.plan import ALL_ROLES, Method, RoundPlan, UploadRule
from flasc_core.methods.settings import Density, Factor, HeadDensity, Positive, Setting

__all__ = ["Flasc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flasc(Method):
    """Federated LoRA with sparse communication (arXiv 2406.05233); dense LoRA at densities of 1.

    Down go the largest weights, up come the largest changes, each ranked over the whole vector; all
    of it trains. With a `head_density` the head is ranked alone at that density, both ways and in
    every round; without one it is ranked with the rest. `upload_ranks_head` has it ranked with the
    rest on the way up all the same, as the authors' script for tiers does. Other densities fall by
    `decay` every `decay_every` rounds, those of uploads by an `upload_decay` where there is one,
    and never keep less than one coordinate. Refuses CONFIGURATION for settings out of range.
    """

    name: ClassVar[str] = "flasc"

    download_density: Density
    upload_density: Density
    head_density: HeadDensity = None
    upload_ranks_head: Annotated[
        bool, Setting(description="The head is ranked with the rest on the way up all the same.")
    ] = False
    decay: Factor = 1.0
    upload_decay: Annotated[
        float | None,
        Setting(
            above=0,
            at_most=1,
            description="What upload densities fall by; null: by decay, as downloads do.",
        ),
    ] = None
    decay_every: Positive = 1
    clip_norm: Annotated[float, Setting(at_least=0, description="0: no clipping.")] = 0.0

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        steps = round_index // self.decay_every
        upload_decay = self.decay if self.upload_decay is None else self.upload_decay
        return RoundPlan(
            download=keep_shares(layout, self._download(self.decay**steps)),
            upload=UploadRule(
                groups=keep_shares(layout, self._upload(upload_decay**steps)),
                clip_norm=self.clip_norm,
            ),
        )

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        for shares in (self._download(), self._upload()):
            check_densities(layout, shares)

    def _download(self, decay: float = 1.0) -> list[Share]:
        return shares_of(ALL_ROLES, self.download_density * decay, self.head_density)

    def _upload(self, decay: float = 1.0) -> list[Share]:
        head_density = None if self.upload_ranks_head else self.head_density
        return shares_of(ALL_ROLES, self.upload_density * decay, head_density)
