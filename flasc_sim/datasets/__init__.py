"""Data sets by name, divided among devices by who owns the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from flasc_sim.datasets.examples import (
    DeviceExamples,
    Examples,
    LabelledTexts,
    divide,
    held_out_examples,
)

__all__ = [
    "DEBIAN_SECTIONS",
    "DeviceExamples",
    "Examples",
    "LabelledTexts",
    "divide",
    "held_out_examples",
    "load_texts",
]

DEBIAN_SECTIONS: Final = Path(__file__).parents[1] / "data" / "debian_sections.parquet"


def load_texts(name: str, *, data: Path | None = None) -> LabelledTexts:
    """Load a data set: `data` where it is given, else what `name` stands for.

    "debian-sections" comes with the package, "20newsgroups" through scikit-learn, any other name
    from a hub. Raises OSError, ValueError or ModuleNotFoundError that say what to do.
    """
    # Each source has requirements of its own, which only its users need to have installed.
    if data is not None or name == "debian-sections":
        from flasc_sim.datasets.parquet import read_parquet

        return read_parquet(data or DEBIAN_SECTIONS, name=name)
    if name == "20newsgroups":
        from flasc_sim.datasets.newsgroups import fetch_newsgroups

        return fetch_newsgroups()
    from flasc_sim.datasets.hub import fetch_from_hub

    return fetch_from_hub(name)
