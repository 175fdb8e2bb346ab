"""FLASC, and dense LoRA as its special case."""

from __future__ import annotations

from dataclasses import dataclass

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue
from flasc_core.layout import AdapterLayout
from flasc_core.methods.densities import (
    Share,
    check_clip_norm,
    check_densities,
    check_density,
    keep_shares,
    shares_of,
    write_settings,
)
from flasc_core.methods.plan import ALL_ROLES, RoundPlan, UploadRule

__all__ = ["Flasc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flasc:
    """Federated LoRA with sparse communication (arXiv 2406.05233); dense LoRA at densities of 1.

    Down go the largest weights, up come the largest changes, each ranked over the whole vector; all
    of it trains. With a `head_density` the head is ranked alone at that density, both ways and in
    every round; without one it is ranked with the rest. `upload_ranks_head` has it ranked with the
    rest on the way up all the same, as the authors' script for tiers does. Other densities fall by
    `decay` every `decay_every` rounds and never keep less than one coordinate. Refuses
    CONFIGURATION for settings out of range.
    """

    download_density: float
    upload_density: float
    head_density: float | None = None
    upload_ranks_head: bool = False
    decay: float = 1.0
    decay_every: int = 1
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        check_density("download_density", self.download_density)
        check_density("upload_density", self.upload_density)
        check_density("head_density", self.head_density)
        check_density("decay", self.decay)
        if self.decay_every < 1:
            raise Refusal(Reason.CONFIGURATION, "decay_every must be at least 1")
        check_clip_norm(self.clip_norm)

    def plan(self, layout: AdapterLayout, round_index: int) -> RoundPlan:
        decay = self.decay ** (round_index // self.decay_every)
        return RoundPlan(
            download=keep_shares(layout, self._download(decay)),
            upload=UploadRule(
                groups=keep_shares(layout, self._upload(decay)), clip_norm=self.clip_norm
            ),
        )

    def check(self, layout: AdapterLayout, *, devices_draw_base: bool) -> None:
        for shares in (self._download(), self._upload()):
            check_densities(layout, shares)

    def to_json(self) -> dict[str, JsonValue]:
        return write_settings("flasc", self)

    def _download(self, decay: float = 1.0) -> list[Share]:
        return shares_of(ALL_ROLES, self.download_density * decay, self.head_density)

    def _upload(self, decay: float = 1.0) -> list[Share]:
        head_density = None if self.upload_ranks_head else self.head_density
        return shares_of(ALL_ROLES, self.upload_density * decay, head_density)
