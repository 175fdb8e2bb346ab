"""Exact sums of sparse updates on an integer grid: any order and any partition give one result."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flasc_core.clip import Norm, Shrink
from flasc_core.errors import Reason, Refusal

__all__ = ["GRID_BITS", "HEADROOM", "Accumulator", "Parts", "check_headroom", "to_grid"]

# Values are counted in steps of 2**-40: every int8 encoding lies on the grid, so does a bfloat16 of
# 2**-33 or more, and anything else is rounded to it once.
GRID_BITS: Final = 40
# |sum of weight * value| stays below this, so that int64 cannot overflow.
HEADROOM: Final = 2.0 ** (63 - GRID_BITS)
# Weights travel as uint32, and no more devices than that are counted.
_LARGEST_COUNT: Final = 2**32 - 1

# A vector's ascending indices and values piece by piece, from the start at every call.
Parts: TypeAlias = Callable[[], Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]]

# Sums in a line of the processor's cache, and how many values are added while their lines are near.
_LINE: Final = 8
_NEAR: Final = 4_096
# Where values lie further apart than this on the average, most lines would be fetched for nothing.
_SWEPT_GAP: Final = 20
_GRID: Final = 2.0**GRID_BITS
_WHOLE: Final = Shrink()
_MAGIC: Final = b"FLSC"
_VERSION: Final = 1
# magic, version, grid bits, dim, count, weight sum, id xor; then the sums and a CRC-32 of it all.
_HEADER: Final = struct.Struct("<4sHHQQQ32s")
_CRC: Final = struct.Struct("<I")


def check_headroom(max_weight: int, max_abs_value: float, largest_cohort: int) -> None:
    """Refuse (CONFIGURATION) a task whose largest possible sum leaves the grid.

    Each factor must be positive, and a number that its field can hold.
    """
    for name, count in (("max_weight", max_weight), ("largest_cohort", largest_cohort)):
        if not 1 <= count <= _LARGEST_COUNT:
            raise Refusal(
                Reason.CONFIGURATION, f"{name} must lie between 1 and 2**32 - 1", field=name
            )
    # Written so that NaN is refused too.
    if not 0 < max_abs_value < math.inf:
        raise Refusal(
            Reason.CONFIGURATION,
            "max_abs_value must be above 0 and finite",
            field="max_abs_value",
        )
    if max_weight * max_abs_value * largest_cohort >= HEADROOM:
        raise Refusal(
            Reason.CONFIGURATION,
            "max_weight * max_abs_value * largest_cohort must be below 2**23; lower one of them",
            max_weight=max_weight,
            max_abs_value=max_abs_value,
            largest_cohort=largest_cohort,
        )


def to_grid(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return values in grid steps, rounded half to even; exact scaling, one rounding."""
    steps = values.astype(np.float64)
    steps *= _GRID
    return np.rint(steps, out=steps).astype(np.int64)


@dataclass(slots=True, kw_only=True, eq=False)
class Accumulator:
    """A running weighted sum that knows what it holds.

    `sums` is int64 of shape (dim,) in grid steps. `count`, `weight_sum` and `id_xor` (the XOR of
    the SHA-256 of every update id) let a ledger prove that exactly its updates are inside.
    Adding and subtracting the same update restores every bit; two accumulators are equal if all of
    it is equal.
    """

    sums: NDArray[np.int64]
    count: int = 0
    weight_sum: int = 0
    id_xor: bytes = bytes(32)

    @classmethod
    def zeros(cls, dim: int) -> Accumulator:
        return cls(sums=np.zeros(dim, dtype=np.int64))

    @property
    def dim(self) -> int:
        return self.sums.size

    def add_parts(
        self, parts: Parts, weight: int, update_id: bytes, clip_norm: float = 0.0
    ) -> None:
        """Add weight * the vector that `parts()` yields piece by piece, holding one at a time.

        A vector with a norm above a `clip_norm` other than 0 is measured first, which reads it
        once more, and scaled down: what the sums take of it has that norm at most, exactly, and is
        a pure function of the vector. If a piece cannot be held or the iterator raises, those
        before it are read again and taken back, and the exception goes on: nothing has changed.
        """
        self._shift_parts(parts, 1, weight, _shrink(parts, clip_norm))
        self._count(1, weight, update_id)

    def subtract_parts(
        self, parts: Parts, weight: int, update_id: bytes, clip_norm: float = 0.0
    ) -> None:
        """Take back an earlier `add_parts` with the same arguments, bit for bit."""
        self._check_holds(weight)
        self._shift_parts(parts, -1, weight, _shrink(parts, clip_norm))
        self._count(-1, weight, update_id)

    def merge(self, other: Accumulator) -> None:
        """Add everything that `other` holds."""
        if other.dim != self.dim:
            raise ValueError(f"cannot merge {other.dim} coordinates into {self.dim}")
        self.sums += other.sums
        self.count += other.count
        self.weight_sum += other.weight_sum
        self.id_xor = _xor(self.id_xor, other.id_xor)

    def mean(self, divisor: int) -> NDArray[np.float64]:
        """Return sums / divisor in value units; every coordinate has the same divisor.

        The divisor is the cohort, never the number of updates that happen to hold a coordinate.
        """
        if divisor < 1:
            raise ValueError(f"the divisor must be at least 1, not {divisor}")
        return self.sums.astype(np.float64) / (_GRID * divisor)

    def to_bytes(self) -> bytes:
        header = _HEADER.pack(
            _MAGIC, _VERSION, GRID_BITS, self.dim, self.count, self.weight_sum, self.id_xor
        )
        body = self.sums.astype("<i8", copy=False).tobytes()
        return b"".join((header, body, _CRC.pack(zlib.crc32(body, zlib.crc32(header)))))

    @classmethod
    def from_bytes(cls, data: bytes) -> Accumulator:
        """Read what `to_bytes` wrote; ValueError if it is damaged or of another version."""
        if len(data) < _HEADER.size + _CRC.size:
            raise ValueError("the accumulator is cut short")
        magic, version, grid_bits, dim, count, weight_sum, id_xor = _HEADER.unpack_from(data)
        if (magic, version, grid_bits) != (_MAGIC, _VERSION, GRID_BITS):
            raise ValueError("not an accumulator of this version")
        if len(data) != _HEADER.size + 8 * dim + _CRC.size:
            raise ValueError("the accumulator does not have the length that it claims")
        if _CRC.unpack_from(data, len(data) - _CRC.size)[0] != zlib.crc32(data[: -_CRC.size]):
            raise ValueError("the accumulator's checksum differs")
        sums = np.frombuffer(data, dtype="<i8", count=dim, offset=_HEADER.size).astype(np.int64)
        return cls(sums=sums, count=count, weight_sum=weight_sum, id_xor=id_xor)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Accumulator):
            return NotImplemented
        mine = (self.count, self.weight_sum, self.id_xor)
        theirs = (other.count, other.weight_sum, other.id_xor)
        return mine == theirs and np.array_equal(self.sums, other.sums)

    __hash__ = None  # type: ignore[assignment]

    def _check_part(
        self, indices: NDArray[np.int64], values: NDArray[np.float32], weight: int
    ) -> None:
        if indices.size and not 0 <= indices[0] <= indices[-1] < self.dim:
            raise ValueError(f"an index lies outside [0, {self.dim})")
        _check_weighted(values, weight)

    def _check_holds(self, weight: int) -> None:
        if self.count < 1 or self.weight_sum < weight:
            raise ValueError("cannot take back more than was added")

    def _shift_parts(self, parts: Parts, sign: int, weight: int, shrink: Shrink) -> None:
        done = 0
        try:
            for indices, values in parts():
                self._check_part(indices, values, weight)
                self._shift(indices, values, sign * weight, shrink)
                done += 1
                # Or they are held while the next ones are read.
                del indices, values
        except BaseException:
            for indices, values in islice(parts(), done):
                self._shift(indices, values, -sign * weight, shrink)
            raise

    def _shift(
        self,
        indices: NDArray[np.int64],
        values: NDArray[np.float32],
        weight: int,
        shrink: Shrink,
    ) -> None:
        for first in range(0, indices.size, _NEAR):
            near = slice(first, first + _NEAR)
            steps = _weighted(values[near], weight, shrink)
            self._fetch(indices[near])
            # Of all ways to add the quickest, cold sums or warm, and the one without a copy.
            np.add.at(self.sums, indices[near], steps)

    def _fetch(self, indices: NDArray[np.int64]) -> None:
        """Read the lines that ascending indices lie in: one sweep beats a miss for each value."""
        span = slice(int(indices[0]), int(indices[-1]) + 1, _LINE)
        if span.stop - span.start <= _SWEPT_GAP * indices.size:
            self.sums[span].max()

    def _count(self, sign: int, weight: int, update_id: bytes) -> None:
        self.count += sign
        self.weight_sum += sign * weight
        self.id_xor = _xor(self.id_xor, hashlib.sha256(update_id).digest())


def _check_weighted(values: NDArray[np.float32], weight: int) -> None:
    if weight < 1:
        raise ValueError(f"the weight must be at least 1, not {weight}")
    if not values.size:
        return
    # A lone update beyond the headroom wraps around; written so that NaN fails too.
    largest = max(float(values.max()), -float(values.min()))
    if not largest * weight < HEADROOM:
        raise ValueError("a value leaves the grid")


def _shrink(parts: Parts, clip_norm: float) -> Shrink:
    if clip_norm == 0:
        return _WHOLE
    norm = Norm()
    for _, values in parts():
        _check_weighted(values, 1)
        for first in range(0, values.size, _NEAR):
            norm.add(to_grid(values[first : first + _NEAR]))
        # Or they are held while the next ones are read.
        del _, values
    return norm.shrink_to(int(clip_norm * _GRID))


def _weighted(values: NDArray[np.float32], weight: int, shrink: Shrink) -> NDArray[np.int64]:
    steps = shrink.apply(to_grid(values))
    if weight != 1:
        steps *= weight
    return steps


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(32, "big")
