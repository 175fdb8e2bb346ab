"""Numbers of a few bits, packed without gaps, least significant bit first."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["pack_bits", "packed_size", "unpack_bits"]

# Eight numbers of s bits fill s bytes exactly, so that eight strided passes serve any s.
_GROUP: Final = 8
_WORD: Final = np.dtype("<u4")


def packed_size(count: int, width: int) -> int:
    """Bytes that `count` numbers of `width` bits take."""
    return (count * width + 7) // 8


def pack_bits(numbers: NDArray[np.int64], width: int) -> bytes:
    """Return the lowest `width` bits, 0 to 24, of every number; unused last bits are zero."""
    if width == 1:
        return np.packbits(numbers & 1, bitorder="little").tobytes()
    groups = -(-numbers.size // _GROUP)
    padded = np.zeros((groups, _GROUP), dtype=np.uint32)
    padded.reshape(-1)[: numbers.size] = numbers & ((1 << width) - 1)
    out = np.zeros((groups, width), dtype=np.uint8)
    for member in range(_GROUP):
        first, offset = divmod(member * width, 8)
        shifted = padded[:, member] << np.uint32(offset)
        for byte in range(first, -(-(member + 1) * width // 8)):
            out[:, byte] |= (shifted >> np.uint32(8 * (byte - first))).astype(np.uint8)
    return out.tobytes()[: packed_size(numbers.size, width)]


def unpack_bits(
    payload: bytes | memoryview, count: int, width: int
) -> NDArray[np.uint32] | NDArray[np.uint8]:
    """Return the `count` numbers that `pack_bits` wrote, from as many bytes as it wrote."""
    if width == 1:
        # As gaps have at a density of 1/16, in a tenth of the time.
        return np.unpackbits(np.frombuffer(payload, np.uint8), count=count, bitorder="little")
    groups = -(-count // _GROUP)
    # A word is read at the byte where a number begins, which may reach past the last group.
    padded = b"".join((payload, bytes(groups * width - len(payload) + _WORD.itemsize)))
    out = np.empty((groups, _GROUP), dtype=np.uint32)
    mask = np.uint32((1 << width) - 1)
    for member in range(_GROUP):
        first, offset = divmod(member * width, 8)
        words: NDArray[np.uint32] = np.ndarray(
            (groups,), dtype=_WORD, buffer=padded, offset=first, strides=(width,)
        )
        out[:, member] = (words >> np.uint32(offset)) & mask
    return out.reshape(-1)[:count]
