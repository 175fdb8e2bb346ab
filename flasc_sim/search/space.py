"""What a search may choose of a run, and a choice as settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

from flasc_core.wire import Encoding

__all__ = ["Candidate", "SearchSpace"]

_BASES = ("initial", "zero")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One choice; both directions share `density` and `encoding`.

    A `head_density` of 0 ranks the head with the rest, as the command's does.
    """

    rank: int
    density: float
    head_density: float
    encoding: str
    base: str

    @property
    def name(self) -> str:
        """What tells it from every other, and names its run."""
        head = f"{self.head_density:.12g}" if self.head_density else "ranked"
        return f"r{self.rank}-d{self.density:.12g}-head-{head}-{self.encoding}-{self.base}"

    def apply_to(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Return a run's settings with this choice in them; all else stays as it was."""
        changed: dict[str, Any] = json.loads(json.dumps(dict(table)))
        changed["adapter"] = {**changed.get("adapter", {}), "rank": self.rank}
        changed["method"] = {
            "name": "flasc",
            "download_density": self.density,
            "upload_density": self.density,
        }
        if self.head_density:
            changed["method"]["head_density"] = self.head_density
        changed["encodings"] = {"download": self.encoding, "updates": [self.encoding]}
        changed["base"] = {"name": self.base}
        return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """Every combination of these is a candidate; ranks and densities rise."""

    ranks: tuple[int, ...] = (1, 4, 16)
    densities: tuple[float, ...] = (1 / 64, 1 / 16, 1 / 4, 1.0)
    head_densities: tuple[float, ...] = (1.0,)
    encodings: tuple[str, ...] = ("int6", "int8", "int4")
    bases: tuple[str, ...] = _BASES

    def __post_init__(self) -> None:
        _check_rising("ranks", self.ranks)
        _check_rising("densities", self.densities)
        if self.ranks[0] < 1:
            raise ValueError("search.ranks are at least 1")
        if not (self.densities[0] > 0 and self.densities[-1] <= 1):
            raise ValueError("search.densities are in (0, 1]")
        if not all(0 <= density <= 1 for density in self.head_densities):
            raise ValueError("search.head_densities are in [0, 1]; 0 ranks the head with the rest")
        _check_known("head_densities", self.head_densities, self.head_densities)
        _check_known("encodings", self.encodings, Encoding.names())
        _check_known("bases", self.bases, _BASES)

    @property
    def candidates(self) -> list[Candidate]:
        """All of them, once each."""
        made = (
            self.candidate(
                rank=rank, density=density, head_density=head, encoding=encoding, base=base
            )
            for rank, density, head, encoding, base in product(
                self.ranks, self.densities, self.head_densities, self.encodings, self.bases
            )
        )
        return list(dict.fromkeys(made))

    @property
    def smallest(self) -> Candidate:
        """Where a search that grows starts: all but rank and density as they are named first."""
        return self.candidate(
            rank=self.ranks[0],
            density=self.densities[0],
            head_density=self.head_densities[0],
            encoding=self.encodings[0],
            base=self.bases[0],
        )

    def candidate(
        self, *, rank: int, density: float, head_density: float, encoding: str, base: str
    ) -> Candidate:
        """A head that is ranked with a rest which is sent whole is sent whole too."""
        return Candidate(
            rank=rank,
            density=density,
            head_density=1.0 if density == 1 and not head_density else head_density,
            encoding=encoding,
            base=base,
        )


def _check_rising(name: str, values: tuple[float, ...]) -> None:
    if not values or any(low >= high for low, high in pairwise(values)):
        raise ValueError(f"search.{name} must be a list that rises, not {list(values)}")


def _check_known(
    name: str, values: tuple[str, ...] | tuple[float, ...], known: tuple[object, ...]
) -> None:
    unknown = [value for value in values if value not in known]
    if unknown:
        choices = ", ".join(map(str, known))
        raise ValueError(f"search.{name} has {unknown[0]!r}; there are {choices}")
    if not values or len(set(values)) < len(values):
        raise ValueError(f"search.{name} must name at least one, and each once")
