"""What every fuzzer calls: the decoder returns a right vector or refuses, nothing else."""

from __future__ import annotations

import importlib.util
import zlib
from itertools import accumulate, pairwise
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
from google.protobuf.unknown_fields import UnknownFieldSet

from flasc_core.errors import Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, decode
from flasc_core.wire.inflate import deflate

__all__ = ["CORPUS", "LIMITS", "agrees", "read", "update_of"]

CORPUS: Final = Path(__file__).parent / "corpus"
DIM: Final = 4096
LIMITS: Final = DecodeLimits(dim=DIM, max_nnz=1024, max_abs_value=64.0)


def update_of(data: bytes) -> bytes:
    """The fuzzer's bytes as a payload; the first one decides how.

    As they are; or as one or two segments under a right checksum, since one that must be guessed
    would keep everything behind it unseen; or as the fields of a segment, which are of the right
    sizes as long as the bytes last.
    """
    kind, rest = data[:1], data[1:]
    if kind < b"\x40":
        return rest
    if kind >= b"\xc0":
        segments = [_segment_of(rest)]
    elif kind >= b"\x80":
        half = rest[0] * len(rest) // 256 if rest else 0
        segments = [rest[1:half], rest[half:]]
    else:
        segments = [rest]
    segments = [segment for segment in segments if segment]
    checksum = zlib.crc32(b"".join(segments))
    return packed_update_pb2.PackedUpdate(
        dim=DIM, segments=segments, crc32=checksum
    ).SerializeToString()


def _segment_of(data: bytes) -> bytes:
    head, rest = data[:10].ljust(10, b"\0"), data[10:]
    start, length, nnz = head[0], 16 * head[1], head[2]
    shift, width, block = head[7] % 32, (0, 4, 2, 1)[head[4] % 4], head[8]
    sizes = (nnz, (nnz * shift + 7) // 8, nnz * width, -(-nnz // block) if block else head[9])
    high, low, values, exponents = _cut(rest, sizes)
    planes = [values[plane :: width or 1] for plane in range(width or 1)]
    return packed_update_pb2.PackedSegment(
        start=start,
        length=length,
        nnz=nnz,
        index_encoding=head[3] % 4,
        value_encoding=head[4] % 5,
        index_compression=head[5] % 5,
        gap_shift=shift,
        gap_high=deflate([high]) if head[5] % 5 == 2 and head[5] < 128 else high,
        gap_low=low,
        value_compression=head[6] % 5,
        value_data=deflate(planes) if head[6] % 5 == 2 and head[6] < 128 else values,
        block_size=block,
        block_exponents=exponents,
    ).SerializeToString()


def _cut(data: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    ends = list(accumulate(sizes, initial=0))
    return [data[first:end] for first, end in pairwise(ends)]


def read(payload: bytes) -> SparseVector | None:
    """Decode; None if it is refused. Anything else than a right vector is an error."""
    try:
        vector = decode(payload, LIMITS)
    except Refusal:
        return None
    assert vector.dim == DIM
    assert LIMITS.min_nnz <= vector.nnz <= LIMITS.max_nnz
    assert float(np.abs(vector.values).max()) <= LIMITS.max_abs_value
    return vector


def agrees(payload: bytes, vector: SparseVector) -> bool:
    """Whether the reference decoder reads the same."""
    segments = packed_update_pb2.PackedUpdate.FromString(payload).segments
    parsed = [packed_update_pb2.PackedSegment.FromString(segment) for segment in segments]
    if any(len(UnknownFieldSet(segment)) for segment in parsed):
        # Groups and the like, which protobuf skips and the reference decoder does not know.
        return True
    dim, indices, values = REFERENCE.decode(payload)
    return bool(
        dim == vector.dim
        and indices == vector.indices.tolist()
        and np.array(values, dtype=np.float32).tobytes() == vector.values.tobytes()
    )


def _load_reference() -> ModuleType:
    path = Path(__file__).parents[2] / "docs" / "reference_decoder.py"
    spec = importlib.util.spec_from_file_location("reference_decoder", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE: Final = _load_reference()
