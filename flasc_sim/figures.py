"""Figures of results: the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["figure"]


@contextmanager
def figure(*files: Path) -> Iterator[Figure]:
    """Give an empty figure, and write it to `files` afterwards, each in its suffix's format."""
    drawn = Figure(figsize=(7, 4.5), layout="constrained")
    yield drawn
    # Without a fixed salt, ids inside an SVG are new every time.
    with mpl.rc_context({"svg.hashsalt": "flasc"}):
        for file in files:
            unsaid = ("Date", "Creator") if file.suffix == ".svg" else ("Software",)
            drawn.savefig(file, dpi=150, metadata=dict.fromkeys(unsaid))
