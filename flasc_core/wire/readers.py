"""Which reader understands a segment: the one table that a further profile is entered in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import sparse_update_pb2
from flasc_core.wire.plain import (
    read_dense_indices,
    read_float32_values,
    read_gap_indices,
)
from flasc_core.wire.segments import Segment

__all__ = ["read_segment"]

_INDEX_READERS: Final[Mapping[int, Callable[[Segment], NDArray[np.int64]]]] = MappingProxyType(
    {
        sparse_update_pb2.INDEX_ENCODING_DENSE: read_dense_indices,
        sparse_update_pb2.INDEX_ENCODING_GAPS: read_gap_indices,
    }
)
_VALUE_READERS: Final[Mapping[int, Callable[[Segment], NDArray[np.float32]]]] = MappingProxyType(
    {sparse_update_pb2.VALUE_ENCODING_FLOAT32: read_float32_values}
)
_COMPACT_FIELDS: Final = (
    "index_compression",
    "gap_shift",
    "gap_high",
    "gap_low",
    "value_compression",
    "value_data",
    "block_size",
    "block_exponents",
)


def read_segment(segment: Segment) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the segment's indices and values, as many as it claims.

    Refuses VALUE_FORMAT for what only the compact profile uses, and whatever the readers refuse.
    """
    value_reader = _VALUE_READERS.get(segment.envelope.value_encoding)
    compact = [field for field in _COMPACT_FIELDS if getattr(segment.packed, field)]
    if value_reader is None or compact:
        raise Refusal(
            Reason.VALUE_FORMAT,
            "only the plain profile is read: float32 values, no compact fields",
            value_encoding=segment.envelope.value_encoding,
        )
    # Values first: their bytes bound what a dense segment's indices may allocate.
    values = value_reader(segment)
    return _INDEX_READERS[segment.envelope.index_encoding](segment), values
