"""From an agreed encoding to what writes it, and to what it does to values."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from flasc_core.sparse import SparseVector
from flasc_core.wire.compact import write_compact
from flasc_core.wire.encoding import Compression, Encoding, ValueEncoding
from flasc_core.wire.plain import PLAIN
from flasc_core.wire.segments import Profile, cut
from flasc_core.wire.values import from_bfloat16, from_pow2, to_bfloat16, to_pow2

__all__ = ["largest_written", "profile_for", "quantize"]


def profile_for(encoding: Encoding) -> Profile:
    if encoding.compression is Compression.NONE:
        return PLAIN
    return Profile(name=encoding.name, write=partial(write_compact, encoding=encoding))


def quantize(vector: SparseVector, encoding: Encoding) -> SparseVector:
    """Return what decoding the encoded vector gives, bit for bit, without the bytes.

    Doing it twice changes nothing more. Refuses NON_FINITE and VALUE_RANGE for values that
    BFLOAT16 or INT8_POW2 cannot hold.
    """
    values = np.empty_like(vector.values)
    done = 0
    for rounded in _rounded(vector, encoding):
        values[done : done + rounded.size] = rounded
        done += rounded.size
    return SparseVector(dim=vector.dim, indices=vector.indices, values=values)


def largest_written(vector: SparseVector, encoding: Encoding) -> float:
    """Return the largest magnitude of `quantize`, holding one segment's values at a time.

    0.0 where the vector has no values. Refuses what `quantize` refuses.
    """
    return max((float(np.abs(one).max()) for one in _rounded(vector, encoding)), default=0.0)


def _rounded(vector: SparseVector, encoding: Encoding) -> Iterator[NDArray[np.float32]]:
    """Yield the values of each segment, for which a step is chosen."""
    for piece in cut(vector):
        match encoding.value:
            case ValueEncoding.FLOAT32:
                yield piece.values
            case ValueEncoding.BFLOAT16:
                yield from_bfloat16(to_bfloat16(piece.values))
            case _:
                yield from_pow2(to_pow2(piece.values, encoding.bits))
