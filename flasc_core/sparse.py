"""Sparse vectors, and the exact choice of the largest coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal

__all__ = ["SparseVector", "count_kept", "top_k"]

_SAMPLE_SIZE: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SparseVector:
    """Values at strictly ascending coordinates of `dim`; every other coordinate is exactly zero.

    `indices` is int64 and `values` float32, both of shape (nnz,); a value may itself be zero. Two
    vectors are equal if they are so bit for bit. ValueError if the arrays break any of this.
    """

    dim: int
    indices: NDArray[np.int64]
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        indices, values = self.indices, self.values
        if indices.dtype != np.int64 or values.dtype != np.float32:
            raise ValueError(f"need int64 and float32, not {indices.dtype} and {values.dtype}")
        if indices.ndim != 1 or indices.shape != values.shape:
            raise ValueError(f"shapes {indices.shape} and {values.shape} make no sparse vector")
        if indices.size and (indices[0] < 0 or indices[-1] >= self.dim):
            raise ValueError(f"an index lies outside [0, {self.dim})")
        if not (indices[1:] > indices[:-1]).all():
            raise ValueError("indices must strictly ascend")

    @property
    def nnz(self) -> int:
        return self.indices.size

    def to_dense(self) -> NDArray[np.float32]:
        dense = np.zeros(self.dim, dtype=np.float32)
        dense[self.indices] = self.values
        return dense

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseVector):
            return NotImplemented
        return (
            self.dim == other.dim
            and np.array_equal(self.indices, other.indices)
            and self.values.tobytes() == other.values.tobytes()
        )

    __hash__ = None  # type: ignore[assignment]


def count_kept(size: int, density: float) -> int:
    """Return the floor of the float64 product, as the method's authors count: 100 * 0.29 is 28."""
    return int(size * density)


def top_k(x: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the coordinates of the k largest magnitudes, ascending; the lower index wins a tie.

    Exactly k are returned. Refuses NON_FINITE; ValueError unless 0 <= k <= x.size.
    """
    if not 0 <= k <= x.size:
        raise ValueError(f"cannot keep {k} of {x.size} coordinates")
    magnitudes = np.abs(x)
    # The largest of all is NaN or infinite if any magnitude is.
    if x.size and not np.isfinite(magnitudes.max()):
        raise Refusal(Reason.NON_FINITE, "a value is not a finite number")
    if k in (0, x.size):
        del magnitudes
        return np.arange(k, dtype=np.int64)
    floor, ceiling = _likely_band(magnitudes, k)
    candidates = np.flatnonzero(magnitudes >= floor)
    if candidates.size < k:
        candidates = np.arange(x.size)
    contenders = magnitudes.take(candidates)
    threshold = _kth_largest(contenders, k, ceiling)
    kept = np.flatnonzero(contenders >= threshold)
    surplus = kept.size - k
    if surplus:
        ties = np.flatnonzero(contenders.take(kept) == threshold)
        kept = np.delete(kept, ties[-surplus:])
    return candidates.take(kept).astype(np.int64, copy=False)


def _kth_largest(magnitudes: NDArray[np.float32], k: int, ceiling: np.float32) -> np.float32:
    """Return the k-th largest; quickest if fewer than k reach the ceiling, and nearly as many."""
    below = magnitudes.take(np.flatnonzero(magnitudes < ceiling))
    wanted = k - (magnitudes.size - below.size)
    if wanted < 1:
        below, wanted = magnitudes, k
    return np.float32(np.partition(below, below.size - wanted)[below.size - wanted])


def _likely_band(magnitudes: NDArray[np.float32], k: int) -> tuple[np.float32, np.float32]:
    """Return a floor and a ceiling between which the k-th largest most likely lies.

    From a sample of every so many. They only save time: partitioning everything takes several times
    as long as partitioning what is in between, and bounds that are wrong are noticed.
    """
    sample = magnitudes[:: max(1, magnitudes.size // _SAMPLE_SIZE)]
    expected = k / magnitudes.size * sample.size
    # Four standard deviations more than expected, and as many less.
    spread = 4 * math.sqrt(expected)
    low, high = int(expected + spread) + 1, int(expected - spread)
    if sample.size == magnitudes.size or low >= sample.size:
        return np.float32(0), np.float32(np.inf)
    if high < 1:
        return np.float32(np.partition(sample, -low)[-low]), np.float32(np.inf)
    sample = np.partition(sample, (-low, -high))
    return np.float32(sample[-low]), np.float32(sample[-high])
