"""Figures of results: the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["figure", "inline_svg"]


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


def inline_svg(file: Path) -> str:
    """Return an SVG file's element, without what stands before it and has no place in a page."""
    text = file.read_text(encoding="utf-8")
    return text[text.index("<svg") :]
