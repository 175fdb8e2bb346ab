"""Clipping of integer vectors to a norm, exactly and alike on every machine.

No float takes part: the norm is an integer, the factor a binary fraction that is rounded down, and
products are rounded towards zero, so that the clipped norm is never above the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Norm", "Shrink"]

# Three limbs hold the magnitude of an int64; sums of 2**20 products of two fit in one.
_LIMB_BITS: Final = 21
_LIMB: Final = (1 << _LIMB_BITS) - 1
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrink:
    """Multiplication by factor / 2**bits, which is at most 1."""

    factor: int = 1
    bits: int = 0

    def apply(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the products of the vector that was measured, rounded towards zero."""
        if self.factor >> self.bits:
            return steps
        shrunk: NDArray[np.int64] = np.abs(steps)
        shrunk *= self.factor
        shrunk >>= self.bits
        return np.negative(shrunk, out=shrunk, where=steps < 0)


@dataclass(slots=True, kw_only=True)
class Norm:
    """The Euclidean norm of an int64 vector that arrives piece by piece; no element is -2**63."""

    square: int = 0
    largest: int = 0

    def add(self, steps: NDArray[np.int64]) -> None:
        for start in range(0, steps.size, _CHUNK):
            magnitudes = np.abs(steps[start : start + _CHUNK])
            self.largest = max(self.largest, int(magnitudes.max()))
            limbs = [(magnitudes >> (_LIMB_BITS * place)) & _LIMB for place in range(3)]
            for i, left in enumerate(limbs):
                self.square += int(np.dot(left, left)) << (_LIMB_BITS * 2 * i)
                for j, right in enumerate(limbs[:i]):
                    self.square += int(np.dot(left, right)) << (_LIMB_BITS * (i + j) + 1)

    def shrink_to(self, bound: int) -> Shrink:
        """Return what brings the vector to a norm of `bound` or just below; nothing if it is."""
        if self.square <= bound * bound:
            return Shrink()
        # As many bits of the factor as the largest product leaves room for.
        room = 63 - self.largest.bit_length()
        excess = isqrt(self.square // (bound * bound)).bit_length() - 1
        bits = min(room + excess, 63)
        return Shrink(factor=isqrt((bound * bound << 2 * bits) // self.square), bits=bits)
