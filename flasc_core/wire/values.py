"""Values in fewer bits than a float32: bfloat16, and small integers times powers of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal

__all__ = [
    "BLOCK_SIZE",
    "MAX_EXPONENT",
    "Pow2Blocks",
    "from_bfloat16",
    "from_pow2",
    "to_bfloat16",
    "to_pow2",
    "written_bits",
]

BLOCK_SIZE: Final = 64
# From the grid of the exact sums up to what no adapter reaches.
MAX_EXPONENT: Final = 40
_INT8_BITS: Final = 8
# What even the faintest block of a segment keeps.
_FEWEST_BITS: Final = 3
_LARGEST_BFLOAT16: Final = float.fromhex("0x1.fep127")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pow2Blocks:
    """numbers[i] * 2**exponents[i // block_size], both int8; the last block may be short."""

    numbers: NDArray[np.int8]
    exponents: NDArray[np.int8]
    block_size: int


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the upper halves, rounded to nearest even. Refuses NON_FINITE and VALUE_RANGE."""
    _check_finite(values)
    bits = values.view(np.uint32)
    halves = ((bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    if values.size and int((halves & 0x7FFF).max()) >= 0x7F80:
        raise Refusal(
            Reason.VALUE_RANGE,
            f"a value rounds beyond {_LARGEST_BFLOAT16}, the largest bfloat16",
            max_abs_value=_LARGEST_BFLOAT16,
        )
    return halves


def from_bfloat16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (halves.astype(np.uint32) << 16).view(np.float32)


def to_pow2(values: NDArray[np.float32], bits: int) -> Pow2Blocks:
    """Return one segment's values as blocks of int8; rounding the result again changes nothing.

    All blocks share one step, under which half of them need at most `bits` bits; entropy coding
    makes that cheaper than a step of its own for each. A loud block has the finest coarser step
    that int8 allows, and a faint one a finer step that leaves it 3 bits, so that a small tensor
    among large ones does not vanish. Refuses NON_FINITE and VALUE_RANGE.
    """
    maxima = np.maximum.reduceat(np.abs(values), np.arange(0, values.size, BLOCK_SIZE))
    _check_finite(maxima)
    exponents = _choose_exponents(maxima, bits)
    if int(exponents.max()) > MAX_EXPONENT:
        raise Refusal(Reason.VALUE_RANGE, f"a value needs a step above 2**{MAX_EXPONENT}")
    one_step = bool((exponents == exponents[0]).all())
    blocks = Pow2Blocks(
        numbers=np.empty(values.size, dtype=np.int8),
        exponents=(exponents[:1] if one_step else exponents).astype(np.int8),
        block_size=values.size if one_step else BLOCK_SIZE,
    )
    np.rint(values * _scale(blocks, -1), out=blocks.numbers, casting="unsafe")
    return blocks


def from_pow2(blocks: Pow2Blocks) -> NDArray[np.float32]:
    """Return the values; exact for every exponent of -40 to 40."""
    return blocks.numbers * _scale(blocks, 1)


def written_bits(blocks: Pow2Blocks) -> int:
    """Return the fewest `bits` of `to_pow2` under which numbers as large as these may stand.

    That is what the lower median takes of runs of 64 values which are not all zero, since half of
    them lie under the step. Whoever chooses larger blocks, or one step for all, needs no more.
    """
    numbers = blocks.numbers
    runs = np.arange(0, numbers.size, BLOCK_SIZE)
    # As int64, since the magnitude of -128 is none of int8.
    highest = np.maximum.reduceat(numbers, runs).astype(np.int64)
    lowest = np.minimum.reduceat(numbers, runs).astype(np.int64)
    loudest = np.maximum(highest, -lowest)
    loudest = np.sort(loudest[loudest > 0])
    if not loudest.size:
        return _FEWEST_BITS
    median = int(loudest[(loudest.size - 1) // 2])
    return min(max(median.bit_length() + 1, _FEWEST_BITS), _INT8_BITS)


def _scale(blocks: Pow2Blocks, sign: int) -> NDArray[np.float32]:
    """Two to each value's exponent times `sign`, or once where it is the same for all."""
    powers = np.ldexp(np.float32(1), sign * blocks.exponents.astype(np.int32))
    if powers.size == 1:
        return powers
    return np.repeat(powers, blocks.block_size)[: blocks.numbers.size]


def _choose_exponents(maxima: NDArray[np.float32], bits: int) -> NDArray[np.int32]:
    # Blocks that round to nothing have no say, or they would move the step when rounded again.
    heard = maxima > 2.0 ** (-MAX_EXPONENT - 1)
    if not heard.any():
        # The finest there is, which no limit on values refuses.
        return np.full(maxima.size, -MAX_EXPONENT, dtype=np.int32)
    fraction, exponent = np.frexp(maxima)

    def finest(bits: int) -> NDArray[np.int32]:
        """The least e, from -40, with rint(maximum / 2**e) <= 2**(bits - 1) - 1."""
        # The quotient must stay below 2**(bits - 1) - 1/2: (1 - 2**-bits) * 2**(bits - 1).
        least = exponent - (bits - 1) + (fraction >= np.float32(1 - 2.0**-bits))
        held: NDArray[np.int32] = np.maximum(least, -MAX_EXPONENT).astype(np.int32)
        return held

    # With so many ties, sorting is quicker than partitioning.
    own = np.sort(finest(bits)[heard])
    step = own[(own.size - 1) // 2]
    faintest = np.where(maxima > 0, finest(_FEWEST_BITS), step)
    chosen: NDArray[np.int32] = np.maximum(np.minimum(step, faintest), finest(_INT8_BITS))
    return chosen


def _check_finite(values: NDArray[np.float32]) -> None:
    if not np.isfinite(values).all():
        raise Refusal(Reason.NON_FINITE, "a value is not a finite number")
