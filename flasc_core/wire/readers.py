"""Which reader understands a segment: the one table that a further profile is entered in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import sparse_update_pb2 as pb
from flasc_core.wire.compact_readers import (
    read_bfloat16_values,
    read_compact_float32_values,
    read_compact_gap_indices,
    read_pow2_values,
)
from flasc_core.wire.encoding import Compression, Encoding, ValueEncoding
from flasc_core.wire.limits import DecodeLimits
from flasc_core.wire.plain import read_dense_indices, read_float32_values, read_gap_indices
from flasc_core.wire.segments import Segment

__all__ = ["read_segment"]

_IndexReader: TypeAlias = Callable[[Segment], NDArray[np.int64]]
_ValueReader: TypeAlias = Callable[[Segment, DecodeLimits], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Indices:
    read: _IndexReader
    fields: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Values:
    read: _ValueReader
    fields: frozenset[str]


_INDEX_FIELDS: Final = frozenset(
    {"gaps", "index_compression", "gap_shift", "gap_high", "gap_low"},
)
_VALUE_FIELDS: Final = frozenset(
    {"values", "value_compression", "value_data", "block_size", "block_exponents"},
)
_NUMBERS: Final = frozenset({"value_compression", "value_data"})

# By encoding, and whether the segment names a compression, as the compact profile always does.
_INDICES: Final[Mapping[tuple[int, bool], _Indices]] = MappingProxyType(
    {
        (pb.INDEX_ENCODING_DENSE, False): _Indices(
            # Its reader refuses gaps, as one of several counts that disagree.
            read=read_dense_indices,
            fields=frozenset({"gaps"}),
        ),
        (pb.INDEX_ENCODING_GAPS, False): _Indices(
            read=read_gap_indices, fields=frozenset({"gaps"})
        ),
        (pb.INDEX_ENCODING_GAPS, True): _Indices(
            read=read_compact_gap_indices, fields=_INDEX_FIELDS - {"gaps"}
        ),
    }
)
_VALUES: Final[Mapping[tuple[int, bool], _Values]] = MappingProxyType(
    {
        (pb.VALUE_ENCODING_FLOAT32, False): _Values(
            read=read_float32_values, fields=frozenset({"values"})
        ),
        (pb.VALUE_ENCODING_FLOAT32, True): _Values(
            read=read_compact_float32_values, fields=_NUMBERS
        ),
        (pb.VALUE_ENCODING_BFLOAT16, True): _Values(read=read_bfloat16_values, fields=_NUMBERS),
        (pb.VALUE_ENCODING_INT8_POW2, True): _Values(
            read=read_pow2_values, fields=_VALUE_FIELDS - {"values"}
        ),
    }
)


def read_segment(
    segment: Segment, limits: DecodeLimits
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the segment's indices and values, as many as it claims.

    Refuses VALUE_FORMAT for an encoding that `limits` leaves out and for fields that do not go
    together, and whatever the readers refuse.
    """
    envelope, numbers = segment.envelope, segment.numbers
    indices = _INDICES.get((envelope.index_encoding, numbers.index_compression != 0))
    values = _VALUES.get((envelope.value_encoding, numbers.value_compression != 0))
    if indices is None or values is None:
        raise _mixed("a compression where none belongs, or none where one does")
    stray = segment.set_fields & (_INDEX_FIELDS | _VALUE_FIELDS) - indices.fields - values.fields
    if stray:
        raise _mixed(f"{', '.join(sorted(stray))} beside fields that replace it")
    _check_accepted(segment, limits)
    # Values first: their bytes bound what a dense segment's indices may allocate.
    read = values.read(segment, limits)
    return indices.read(segment), read


def _check_accepted(segment: Segment, limits: DecodeLimits) -> None:
    value, numbers = ValueEncoding(segment.envelope.value_encoding), segment.numbers
    if value is ValueEncoding.INT8_POW2:
        # Its bits show in its numbers alone: their reader checks them.
        return
    is_plain = value is ValueEncoding.FLOAT32 and not (
        numbers.index_compression or numbers.value_compression
    )
    compression = Compression.NONE if is_plain else Compression.DEFLATE
    limits.check(Encoding(value=value, compression=compression))


def _mixed(what: str) -> Refusal:
    return Refusal(Reason.VALUE_FORMAT, f"a segment has {what}")
