"""Labelled texts with owners, and how they are divided among devices without mixing owners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DeviceExamples", "Examples", "LabelledTexts", "divide", "held_out_examples"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTexts:
    """A whole data set; row i is `texts[i]`, and all rows of one owner stay on one device."""

    name: str
    label_names: tuple[str, ...]
    texts: Sequence[str]
    labels: NDArray[np.int64]
    owners: NDArray[np.int64]
    held_out: NDArray[np.bool_]

    def __post_init__(self) -> None:
        columns = (self.labels, self.owners, self.held_out)
        if not self.texts or any(column.shape != (len(self.texts),) for column in columns):
            raise ValueError(f"data set {self.name!r}: columns must be filled and equally long")
        if self.labels.min() < 0 or self.labels.max() >= len(self.label_names):
            raise ValueError(f"data set {self.name!r}: a label has no name")

    def take(self, rows: NDArray[np.int64]) -> Examples:
        return Examples(
            texts=tuple(self.texts[row] for row in rows.tolist()),
            labels=tuple(self.labels[rows].tolist()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceExamples:
    """One device's own data: what it trains on, and what it only ever scores."""

    train: Examples
    held_out: Examples


def divide(
    table: LabelledTexts, device: int, devices: int, *, held_out_limit: int, seed: int
) -> DeviceExamples:
    """Return the share of `device` among `devices`: the owners whose number modulo `devices` is it.

    Held-out rows are a seeded draw of at most `held_out_limit`; training rows are all there are.
    ValueError where either part is empty.
    """
    if not 0 <= device < devices:
        raise ValueError(f"there is no device {device} among {devices}")
    own = table.owners % devices == device
    train = np.flatnonzero(own & ~table.held_out)
    held_out = _draw(np.flatnonzero(own & table.held_out), held_out_limit, seed)
    if not train.size or not held_out.size:
        raise ValueError(
            f"{table.name!r} leaves device {device} of {devices} without training or held-out "
            "examples; use fewer devices"
        )
    return DeviceExamples(train=table.take(train), held_out=table.take(held_out))


def held_out_examples(table: LabelledTexts, *, limit: int, seed: int) -> Examples:
    """Return a seeded draw of at most `limit` held-out rows, whoever owns them."""
    return table.take(_draw(np.flatnonzero(table.held_out), limit, seed))


def _draw(rows: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(rows)[:limit])
