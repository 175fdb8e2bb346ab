"""Figures of results: the same file for the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["figure"]


@contextmanager
def figure(file: Path) -> Iterator[Figure]:
    """Give an empty figure, and write it to `file` afterwards."""
    drawn = Figure(figsize=(7, 4.5), layout="constrained")
    yield drawn
    # Without a fixed salt, ids inside the file are new every time.
    with mpl.rc_context({"svg.hashsalt": "flasc"}):
        drawn.savefig(file, metadata={"Date": None, "Creator": None})
