"""Figures of results: the same file for the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks._report import RESULTS

__all__ = ["figure"]


@contextmanager
def figure(name: str, *, width: float = 7, height: float = 4.5) -> Iterator[Figure]:
    """Give an empty figure, sized in inches, and write it to results/NAME.svg afterwards."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    yield drawn
    # Without a fixed salt, ids inside the file are new every time.
    with mpl.rc_context({"svg.hashsalt": "flasc"}):
        drawn.savefig(RESULTS / f"{name}.svg", metadata={"Date": None, "Creator": None})
