"""The compact profile: gaps near their entropy, values in 32, 16 or 3 to 8 bits, all deflated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.pb.v1 import sparse_update_pb2 as pb
from flasc_core.wire.bits import pack_bits, packed_size
from flasc_core.wire.encoding import Encoding, ValueEncoding
from flasc_core.wire.inflate import FILTERED, HUFFMAN, REPEATS, RUNS, Search, deflate
from flasc_core.wire.segments import Piece
from flasc_core.wire.values import to_bfloat16, to_pow2
from flasc_core.wire.varint import write_varints

__all__ = ["MAX_SHIFT", "write_compact"]

MAX_SHIFT: Final = 24
# Up to this many nonzeros it costs little to try several ways; beyond, on that many of them.
_SMALL: Final = 32_768
_SAMPLE: Final = 8_192
# The share of one symbol from which runs of it are worth looking for.
_FREQUENT: Final = 0.7
# How much shorter runs are than symbols alone where masks cluster.
_CLUSTERED: Final = 0.6


def write_compact(piece: Piece, encoding: Encoding) -> bytes:
    """Return the piece as a serialized SparseSegment."""
    segment = packed_update_pb2.PackedSegment(
        start=piece.start,
        length=piece.length,
        nnz=piece.nnz,
        index_encoding=pb.INDEX_ENCODING_DENSE,
        value_encoding=encoding.value,
    )
    if piece.nnz != piece.length:
        _write_gaps(segment, piece.gaps())
    _VALUE_WRITERS[encoding.value](segment, piece.values, encoding.bits)
    return segment.SerializeToString()


def _write_gaps(segment: packed_update_pb2.PackedSegment, gaps: NDArray[np.int64]) -> None:
    # A symbol costs at least one bit, which runs of the most frequent one need not pay.
    mostly_zero = np.count_nonzero(gaps == 0) > _FREQUENT * gaps.size
    packed = _pack_runs(gaps) if mostly_zero else _pack_shifted(gaps)
    segment.index_encoding = pb.INDEX_ENCODING_GAPS
    segment.gap_shift = packed.shift
    segment.index_compression, segment.gap_high = _shorter(packed.raw, packed.high)
    if packed.shift:
        segment.gap_low = pack_bits(gaps, packed.shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packed:
    shift: int
    raw: bytes
    high: bytes
    size: int


def _pack(gaps: NDArray[np.int64], shift: int, search: Search) -> _Packed:
    raw = write_varints(gaps >> shift)
    high = deflate([raw], search)
    return _Packed(shift=shift, raw=raw, high=high, size=len(high) + packed_size(gaps.size, shift))


def _pack_runs(gaps: NDArray[np.int64]) -> _Packed:
    tried = [_pack(gaps, 0, HUFFMAN), _pack(gaps, 0, RUNS)]
    # The slow search finds something where coordinates cluster, and nothing where they do not.
    if tried[1].size < _CLUSTERED * tried[0].size:
        tried.append(_pack(gaps, 0, REPEATS))
    return _shortest(tried)


def _pack_shifted(gaps: NDArray[np.int64]) -> _Packed:
    ways = _ways(gaps)
    if len(ways) > 1 and gaps.size > _SMALL:
        sample = gaps[:: gaps.size // _SAMPLE]
        ways = (min(ways, key=lambda way: _pack(sample, *way).size),)
    return _shortest([_pack(gaps, *way) for way in ways])


def _ways(gaps: NDArray[np.int64]) -> tuple[tuple[int, Search], ...]:
    """Shifts, and what to look for in what is above them; the fewer gaps, the more to try."""
    mean = int(gaps.sum()) / gaps.size
    usual = min(MAX_SHIFT, max(0, int(np.log2(mean + 1)) - 3))
    # Where gaps cluster, short ones are frequent and their low bits not random at all.
    shifts = (usual,) if usual < 2 else (usual, usual - 1, max(0, usual - 3))
    ways = tuple((shift, HUFFMAN) for shift in shifts)
    return (*ways, (0, FILTERED)) if gaps.size <= _SMALL else ways


def _shortest(tried: Sequence[_Packed]) -> _Packed:
    return min(tried, key=lambda packed: packed.size)


def _write_float32(
    segment: packed_update_pb2.PackedSegment, values: NDArray[np.float32], _bits: int
) -> None:
    _write_numbers(segment, values.astype("<f4", copy=False))


def _write_bfloat16(
    segment: packed_update_pb2.PackedSegment, values: NDArray[np.float32], _bits: int
) -> None:
    _write_numbers(segment, to_bfloat16(values).astype("<u2", copy=False))


def _write_pow2(
    segment: packed_update_pb2.PackedSegment, values: NDArray[np.float32], bits: int
) -> None:
    blocks = to_pow2(values, bits)
    segment.block_size = blocks.block_size
    segment.block_exponents = blocks.exponents.tobytes()
    _write_numbers(segment, blocks.numbers)


_VALUE_WRITERS: Final[
    Mapping[
        ValueEncoding,
        Callable[[packed_update_pb2.PackedSegment, NDArray[np.float32], int], None],
    ]
] = MappingProxyType(
    {
        ValueEncoding.FLOAT32: _write_float32,
        ValueEncoding.BFLOAT16: _write_bfloat16,
        ValueEncoding.INT8_POW2: _write_pow2,
    }
)


def _write_numbers(
    segment: packed_update_pb2.PackedSegment,
    numbers: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.int8],
) -> None:
    # The bytes of one significance are alike: signs and exponents repeat, mantissas do not.
    raw = numbers.tobytes()
    words = numbers.view(f"<u{numbers.itemsize}")
    planes = [(words >> 8 * plane).astype(np.uint8).tobytes() for plane in range(words.itemsize)]
    segment.value_compression, segment.value_data = _shorter(raw, deflate(planes))


def _shorter(raw: bytes, packed: bytes) -> tuple[int, bytes]:
    if len(packed) < len(raw):
        return pb.COMPRESSION_DEFLATE, packed
    return pb.COMPRESSION_NONE, raw
