"""A corpus of four easy groups, in the columns that 20 Newsgroups comes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["write_corpus"]

_WORDS = ("rocket orbit moon", "goal puck ice", "engine gear brake", "faith church prayer")


def write_corpus(file: Path, rows: int) -> None:
    """Write a parquet file: the first four fifths train, and forty authors have rows in turn."""
    draw = np.random.default_rng(0)
    labels = np.arange(rows) % len(_WORDS)
    texts = [
        f"{_WORDS[label]} {draw.choice(_WORDS[label].split())} {row}"
        for row, label in enumerate(labels.tolist())
    ]
    split = ["train" if row < rows * 4 // 5 else "test" for row in range(rows)]
    authors = np.arange(rows) % 40
    pq.write_table(
        pa.table({"text": texts, "label": labels, "split": split, "author": authors}), file
    )
