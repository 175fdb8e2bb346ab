"""From an agreed encoding to what writes it, and to what it does to values."""

from __future__ import annotations

from functools import partial

import numpy as np

from flasc_core.sparse import SparseVector
from flasc_core.wire.compact import write_compact
from flasc_core.wire.encoding import Compression, Encoding, ValueEncoding
from flasc_core.wire.plain import PLAIN
from flasc_core.wire.segments import Profile, cut
from flasc_core.wire.values import from_bfloat16, from_pow2, to_bfloat16, to_pow2

__all__ = ["profile_for", "quantize"]


def profile_for(encoding: Encoding) -> Profile:
    if encoding.compression is Compression.NONE:
        return PLAIN
    return Profile(name=encoding.name, write=partial(write_compact, encoding=encoding))


def quantize(vector: SparseVector, encoding: Encoding) -> SparseVector:
    """Return what decoding the encoded vector gives, bit for bit, without the bytes.

    Doing it twice changes nothing more. Refuses NON_FINITE and VALUE_RANGE for values that
    BFLOAT16 or INT8_POW2 cannot hold.
    """
    if encoding.value is ValueEncoding.FLOAT32:
        return vector
    if encoding.value is ValueEncoding.BFLOAT16:
        values = from_bfloat16(to_bfloat16(vector.values))
    else:
        values = np.empty_like(vector.values)
        done = 0
        # A step is chosen for each segment.
        for piece in cut(vector):
            values[done : done + piece.nnz] = from_pow2(to_pow2(piece.values, encoding.bits))
            done += piece.nnz
    return SparseVector(dim=vector.dim, indices=vector.indices, values=values)
