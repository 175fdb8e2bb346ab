"""What every fuzzer calls: the decoder returns a right vector or refuses, nothing else.

From the repository root, once there are further inputs in the corpus: python -m tests.fuzz.target
records what comes of each.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

import numpy as np

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, Encoding, decode
from flasc_core.wire.inflate import deflate

__all__ = ["CORPUS", "LIMITS", "OUTCOMES", "outcome_of", "read", "update_of"]

CORPUS: Final = Path(__file__).parent / "corpus"
OUTCOMES: Final = CORPUS.with_name("outcomes.json")
DIM: Final = 4096
LIMITS: Final = DecodeLimits(dim=DIM, max_nnz=1024, max_abs_value=64.0)
# What a task may list.
EVERYTHING: Final = frozenset(map(Encoding.parse, Encoding.names()))
INT6: Final = frozenset({Encoding.parse("int6")})


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


def read(payload: bytes) -> SparseVector | Refusal:
    """Decode; a refusal is one outcome. Anything else than a right vector is an error."""
    vector = _decode(payload, LIMITS)
    if isinstance(vector, Refusal):
        return vector
    assert vector.dim == DIM
    assert LIMITS.min_nnz <= vector.nnz <= LIMITS.max_nnz
    assert float(np.abs(vector.values).max()) <= LIMITS.max_abs_value
    # As a driver reads what was accepted: by isal, where it is installed.
    _check_same(_decode(payload, replace(LIMITS, was_read=True)), vector)
    _check_same(_decode(payload, replace(LIMITS, encodings=EVERYTHING)), vector)
    listed = _decode(payload, replace(LIMITS, encodings=INT6))
    if isinstance(listed, SparseVector):
        _check_same(listed, vector)
    else:
        assert listed.reason is Reason.VALUE_FORMAT
    return vector


def _decode(payload: bytes, limits: DecodeLimits) -> SparseVector | Refusal:
    try:
        return decode(payload, limits)
    except Refusal as refusal:
        return refusal


def _check_same(again: SparseVector | Refusal, vector: SparseVector) -> None:
    assert isinstance(again, SparseVector)
    assert np.array_equal(again.indices, vector.indices)
    assert again.values.tobytes() == vector.values.tobytes()


def outcome_of(data: bytes) -> str:
    """The reason of the refusal, or ACCEPTED."""
    found = read(update_of(data))
    return found.reason.name if isinstance(found, Refusal) else "ACCEPTED"


def main() -> None:
    """Record what comes of each kept input."""
    outcomes = {path.name: outcome_of(path.read_bytes()) for path in sorted(CORPUS.iterdir())}
    OUTCOMES.write_text(json.dumps(outcomes, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
