"""The plain profile, which every reader accepts: packed gaps and packed float32 values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.pb.v1 import sparse_update_pb2
from flasc_core.wire.contents import Blob
from flasc_core.wire.limits import DecodeLimits
from flasc_core.wire.segments import Envelope, Piece, Profile, Segment
from flasc_core.wire.varint import CONTINUED, read_varints, write_varints

__all__ = [
    "PLAIN",
    "indices_of",
    "read_dense_indices",
    "read_float32_values",
    "read_gap_indices",
]

_FLOAT32: Final = np.dtype("<f4")


def _write(piece: Piece) -> bytes:
    dense = piece.nnz == piece.length
    segment = packed_update_pb2.PackedSegment(
        start=piece.start,
        length=piece.length,
        nnz=piece.nnz,
        index_encoding=(
            sparse_update_pb2.INDEX_ENCODING_DENSE
            if dense
            else sparse_update_pb2.INDEX_ENCODING_GAPS
        ),
        value_encoding=sparse_update_pb2.VALUE_ENCODING_FLOAT32,
        gaps=[] if dense else [write_varints(piece.gaps())],
        values=[piece.values.astype(_FLOAT32, copy=False).tobytes()],
    )
    return segment.SerializeToString()


PLAIN: Final = Profile(name="plain", write=_write)


def read_dense_indices(segment: Segment) -> NDArray[np.int64]:
    """Refuses LENGTH_MISMATCH unless every coordinate has a value and none has a gap."""
    envelope = segment.envelope
    if envelope.nnz != envelope.length or segment.blobs.get("gaps"):
        raise Refusal(
            Reason.LENGTH_MISMATCH,
            "a dense segment has as many nonzeros as coordinates, and no gaps",
            nnz=envelope.nnz,
            length=envelope.length,
        )
    return np.arange(envelope.start, envelope.end, dtype=np.int64)


def read_gap_indices(segment: Segment) -> NDArray[np.int64]:
    """Refuses LENGTH_MISMATCH, MALFORMED_MESSAGE and INDEX_RANGE; gaps cannot go backwards."""
    parts = segment.blobs.get("gaps", ())
    if any(part[-1] & CONTINUED for part in parts):
        raise Refusal(Reason.MALFORMED_MESSAGE, "the last gap is cut off", field="gaps")
    gaps = read_varints(_joined(parts), segment.envelope.nnz)
    return indices_of(gaps, segment.envelope)


def indices_of(gaps: NDArray[np.int64], envelope: Envelope) -> NDArray[np.int64]:
    """Turn gaps below 2**32 into indices, in place. Refuses INDEX_RANGE."""
    gaps += 1
    gaps[0] += envelope.start - 1
    indices = np.cumsum(gaps, out=gaps)
    if indices[-1] >= envelope.end:
        raise Refusal(
            Reason.INDEX_RANGE,
            f"an index reaches {indices[-1]}, beyond its segment's end at {envelope.end}",
            end=envelope.end,
        )
    return indices


def read_float32_values(segment: Segment, _limits: DecodeLimits) -> NDArray[np.float32]:
    """Refuses LENGTH_MISMATCH and MALFORMED_MESSAGE."""
    nnz = segment.envelope.nnz
    parts = segment.blobs.get("values", ())
    payload = b"".join(parts)
    if any(len(part) % _FLOAT32.itemsize for part in parts):
        raise Refusal(Reason.MALFORMED_MESSAGE, "the last value is cut off", field="values")
    held = len(payload) // _FLOAT32.itemsize
    if held != nnz:
        raise Refusal(
            Reason.LENGTH_MISMATCH, f"{held} values for {nnz} nonzeros", held=held, nnz=nnz
        )
    return np.frombuffer(payload, dtype=_FLOAT32).astype(np.float32, copy=False)


def _joined(parts: Sequence[Blob]) -> Blob:
    return parts[0] if len(parts) == 1 else b"".join(parts)
