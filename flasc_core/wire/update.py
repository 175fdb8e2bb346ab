"""Whole sparse updates: segments, one after another, under one checksum."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire.encoding import Encoding
from flasc_core.wire.inflate import fast_zlib
from flasc_core.wire.limits import DecodeLimits
from flasc_core.wire.plain import PLAIN
from flasc_core.wire.profiles import profile_for
from flasc_core.wire.readers import read_segment
from flasc_core.wire.segments import Profile, Segment, cut, open_segment
from flasc_core.wire.tags import BYTES, parse, read_field, tag_of

__all__ = ["Part", "decode", "decode_segments", "encode"]

_SEGMENT: Final = tag_of(packed_update_pb2.PackedUpdate.SEGMENTS_FIELD_NUMBER, BYTES)

# The ascending indices of one segment, and their values.
Part: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]


def encode(vector: SparseVector, profile: Profile | Encoding = PLAIN) -> bytes:
    """Return the vector as a serialized SparseUpdate; the same vector gives the same bytes.

    The compact profile's bytes are the same only under one version of zlib, so what was sent is
    kept rather than encoded again. Its lossy encodings never round past a power of two, such as
    the usual `max_abs_value`, and refuse NON_FINITE and VALUE_RANGE for what they cannot hold.
    """
    if isinstance(profile, Encoding):
        profile = profile_for(profile)
    # Hands its buffer over without a copy, unlike a join of all parts.
    payload = BytesIO()
    for part in _written(vector, profile):
        payload.write(part)
    return payload.getvalue()


def _written(vector: SparseVector, profile: Profile) -> Iterator[bytes]:
    """Yield messages that merge into the update, in the order in which it is serialized whole."""
    yield packed_update_pb2.PackedUpdate(dim=vector.dim).SerializeToString()
    checksum = 0
    for piece in cut(vector):
        segment = profile.write(piece)
        checksum = zlib.crc32(segment, checksum)
        yield packed_update_pb2.PackedUpdate(segments=[segment]).SerializeToString()
    yield packed_update_pb2.PackedUpdate(crc32=checksum).SerializeToString()


def decode(payload: bytes | memoryview, limits: DecodeLimits) -> SparseVector:
    """Read a serialized SparseUpdate of any profile.

    Whatever the bytes, this returns a vector within `limits` or raises Refusal, in time and memory
    that the payload's own length and the limits bound. Unknown fields are ignored.
    """
    parts = deque(decode_segments(payload, limits))
    if len(parts) == 1:
        # The common case needs no copy.
        return SparseVector(dim=limits.dim, indices=parts[0][0], values=parts[0][1])
    nnz = sum(part[0].size for part in parts)
    indices = np.empty(nnz, dtype=np.int64)
    values = np.empty(nnz, dtype=np.float32)
    done = 0
    while parts:
        # Each part is let go once it is copied.
        part = parts.popleft()
        here = slice(done, done + part[0].size)
        indices[here], values[here] = part
        done = here.stop
    return SparseVector(dim=limits.dim, indices=indices, values=values)


def decode_segments(payload: bytes | memoryview, limits: DecodeLimits) -> Iterator[Part]:
    """Yield the indices and values of one segment after another, as `decode` would join them.

    Only one segment is held at a time beside the payload, which is not copied, as long as its part
    is let go before the next one. Arrays may be read-only. A refusal may come after any of them:
    what was done with those before it is to be undone.
    """
    update, segments = _open_update(memoryview(payload), limits)
    _check_update(update, segments, limits)
    end = nnz = 0
    for data in segments:
        segment = open_segment(data, dim=limits.dim, was_read=limits.was_read)
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
        part = [_read_part(segment, limits)]
        # Neither has a name here any more while the next one is read.
        del segment
        yield part.pop()
    if nnz < limits.min_nnz:
        raise _over_budget(limits)


def _open_update(
    payload: memoryview, limits: DecodeLimits
) -> tuple[packed_update_pb2.PackedUpdate, list[memoryview]]:
    """Return the update without its segments, and those, which are the payload's own bytes."""
    segments: list[memoryview] = []
    others: dict[int, memoryview] = {}
    at = count = 0
    while at < len(payload):
        count += 1
        if count > limits.max_fields:
            raise Refusal(
                Reason.FIELD_RANGE,
                f"far more fields than segments for at most {limits.max_nnz} nonzeros have",
                max_segments=limits.max_segments,
            )
        field = read_field(payload, at)
        at = field.end
        if field.tag == _SEGMENT:
            segments.append(payload[field.content : field.end])
        elif field.wire_type != BYTES:
            # Which leaves out only what nobody knows. The last one counts.
            others[field.tag] = payload[field.start : field.end]
    return parse(packed_update_pb2.PackedUpdate, b"".join(others.values())), segments


def _read_part(segment: Segment, limits: DecodeLimits) -> Part:
    part = read_segment(segment, limits)
    _check_values(part[1], limits.max_abs_value)
    return part


def _check_update(
    update: packed_update_pb2.PackedUpdate, segments: Sequence[memoryview], limits: DecodeLimits
) -> None:
    if update.dim == 0:
        raise Refusal(Reason.FIELD_REQUIRED, "set the update's dim", field="dim")
    if update.dim != limits.dim:
        raise Refusal(
            Reason.DIMENSION_MISMATCH,
            f"the update has {update.dim} coordinates, the layout {limits.dim}",
            given=update.dim,
            expected=limits.dim,
        )
    if len(segments) > limits.max_segments:
        raise Refusal(
            Reason.FIELD_RANGE,
            f"{len(segments)} segments for at most {limits.max_nnz} nonzeros",
            segments=len(segments),
            max_segments=limits.max_segments,
        )
    checksum = 0
    crc32 = fast_zlib().crc32
    for segment in segments:
        checksum = crc32(segment, checksum)
    if checksum != update.crc32:
        raise Refusal(Reason.CHECKSUM_MISMATCH, "the checksum is not that of the segments")


def _over_budget(limits: DecodeLimits) -> Refusal:
    return Refusal(
        Reason.K_BUDGET,
        f"an update has {limits.min_nnz} to {limits.max_nnz} nonzeros",
        min_nnz=limits.min_nnz,
        max_nnz=limits.max_nnz,
    )


def _check_values(values: NDArray[np.float32], max_abs_value: float) -> None:
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
