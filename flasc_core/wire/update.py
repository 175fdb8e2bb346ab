"""Whole sparse updates: segments, one after another, under one checksum."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire.limits import DecodeLimits
from flasc_core.wire.plain import PLAIN
from flasc_core.wire.readers import read_segment
from flasc_core.wire.segments import Profile, cut, open_segment

__all__ = ["decode", "encode"]

_Scalar = TypeVar("_Scalar", np.int64, np.float32)


def encode(vector: SparseVector, profile: Profile = PLAIN) -> bytes:
    """Return the vector as a serialized SparseUpdate; the same vector gives the same bytes."""
    segments = [profile.write(piece) for piece in cut(vector)]
    update = packed_update_pb2.PackedUpdate(
        dim=vector.dim, segments=segments, crc32=_checksum(segments)
    )
    return update.SerializeToString()


def decode(payload: bytes | memoryview, limits: DecodeLimits) -> SparseVector:
    """Read a serialized SparseUpdate of any profile.

    Whatever the bytes, this returns a vector within `limits` or raises Refusal, in time and memory
    that the payload's own length bounds. Unknown fields are ignored. The vector may share memory
    with the payload.
    """
    try:
        update = packed_update_pb2.PackedUpdate.FromString(payload)  # type: ignore[arg-type]
    except DecodeError as error:
        raise Refusal(Reason.MALFORMED_MESSAGE, "the payload is no SparseUpdate") from error
    _check_update(update, limits)
    indices: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float32]] = []
    end = nnz = 0
    for data in update.segments:
        segment = open_segment(data, dim=limits.dim)
        if segment.envelope.start < end:
            raise Refusal(
                Reason.SEGMENT_ORDER,
                "segments ascend and do not overlap",
                start=segment.envelope.start,
                previous_end=end,
            )
        end = segment.envelope.end
        nnz += segment.envelope.nnz
        if nnz > limits.max_nnz:
            raise _over_budget(limits)
        part = read_segment(segment)
        indices.append(part[0])
        values.append(part[1])
    if nnz < limits.min_nnz:
        raise _over_budget(limits)
    vector = SparseVector(
        dim=limits.dim,
        indices=_join(indices, np.empty(0, dtype=np.int64)),
        values=_join(values, np.empty(0, dtype=np.float32)),
    )
    _check_values(vector.values, limits.max_abs_value)
    return vector


def _check_update(update: packed_update_pb2.PackedUpdate, limits: DecodeLimits) -> None:
    if update.dim == 0:
        raise Refusal(Reason.FIELD_REQUIRED, "set the update's dim", field="dim")
    if update.dim != limits.dim:
        raise Refusal(
            Reason.DIMENSION_MISMATCH,
            f"the update has {update.dim} coordinates, the layout {limits.dim}",
            given=update.dim,
            expected=limits.dim,
        )
    if len(update.segments) > limits.max_segments:
        raise Refusal(
            Reason.FIELD_RANGE,
            f"{len(update.segments)} segments for at most {limits.max_nnz} nonzeros",
            segments=len(update.segments),
            max_segments=limits.max_segments,
        )
    if _checksum(update.segments) != update.crc32:
        raise Refusal(Reason.CHECKSUM_MISMATCH, "the checksum is not that of the segments")


def _over_budget(limits: DecodeLimits) -> Refusal:
    return Refusal(
        Reason.K_BUDGET,
        f"an update has {limits.min_nnz} to {limits.max_nnz} nonzeros",
        min_nnz=limits.min_nnz,
        max_nnz=limits.max_nnz,
    )


def _check_values(values: NDArray[np.float32], max_abs_value: float) -> None:
    if not values.size:
        return
    # NaN fails every comparison. As Python's floats, since numpy may warn of some NaNs.
    if float(values.max()) <= max_abs_value and float(values.min()) >= -max_abs_value:
        return
    if not np.isfinite(values).all():
        raise Refusal(Reason.NON_FINITE, "a value is not a finite number")
    raise Refusal(
        Reason.VALUE_RANGE,
        f"a value is beyond {max_abs_value} in magnitude",
        max_abs_value=max_abs_value,
    )


def _join(parts: list[NDArray[_Scalar]], empty: NDArray[_Scalar]) -> NDArray[_Scalar]:
    # One segment is the common case and needs no copy.
    return parts[0] if len(parts) == 1 else np.concatenate([empty, *parts])


def _checksum(segments: Iterable[bytes]) -> int:
    checksum = 0
    for segment in segments:
        checksum = zlib.crc32(segment, checksum)
    return checksum
