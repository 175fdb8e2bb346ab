"""Segments: runs of at most 65,536 nonzeros, each of which can be read on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.pb.v1 import sparse_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire.contents import Blob, take_apart
from flasc_core.wire.limits import SEGMENT_NNZ
from flasc_core.wire.tags import parse

__all__ = ["Envelope", "Piece", "Profile", "Segment", "cut", "open_segment"]

# Values one by one under a tag each, gaps of five bytes among them, and room for what is unknown.
_MAX_BYTES: Final = 11 * SEGMENT_NNZ + (64 << 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The part of a vector that becomes one segment, from its first to its last nonzero."""

    indices: NDArray[np.int64]
    values: NDArray[np.float32]

    @property
    def start(self) -> int:
        return int(self.indices[0])

    @property
    def length(self) -> int:
        return int(self.indices[-1]) - self.start + 1

    @property
    def nnz(self) -> int:
        return self.indices.size

    def gaps(self) -> NDArray[np.int64]:
        """How many coordinates are left out before each nonzero; 0 before the first."""
        return np.diff(self.indices, prepend=self.start - 1) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One way of writing a segment; every reader tells profiles apart by the segment itself."""

    name: str
    write: Callable[[Piece], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a segment says of itself; checked against the vector, not yet against its content."""

    start: int
    length: int
    nnz: int
    index_encoding: int
    value_encoding: int

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segment taken apart: what it says of itself, and its fields.

    Of `numbers` only the fields that are numbers are set. `blobs` are the others by name, where
    they stand in the payload: of an array all its packed parts, of any other the one.
    """

    envelope: Envelope
    numbers: packed_update_pb2.PackedSegment
    blobs: Mapping[str, Sequence[Blob]]
    # See DecodeLimits.
    was_read: bool

    def blob(self, name: str) -> Blob:
        """What a field holds that is no array."""
        return self.blobs[name][0] if name in self.blobs else b""

    @property
    def set_fields(self) -> set[str]:
        """The names of all fields but those that are zero or empty."""
        blobs = {name for name, parts in self.blobs.items() if any(parts)}
        return blobs | {field.name for field, _ in self.numbers.ListFields()}


def cut(vector: SparseVector) -> Iterator[Piece]:
    """Yield the vector's segments in order."""
    for first in range(0, vector.nnz, SEGMENT_NNZ):
        part = slice(first, first + SEGMENT_NNZ)
        yield Piece(indices=vector.indices[part], values=vector.values[part])


def open_segment(data: memoryview, *, dim: int, was_read: bool) -> Segment:
    """Parse one segment and check its envelope, in time that its bytes bound, not its claims.

    Refuses MALFORMED_MESSAGE, FIELD_REQUIRED, FIELD_RANGE, UNKNOWN_ENUM, LENGTH_MISMATCH and
    INDEX_RANGE.
    """
    if len(data) > _MAX_BYTES:
        raise Refusal(
            Reason.FIELD_RANGE,
            f"a segment has at most {_MAX_BYTES} bytes, not {len(data)}",
            max_bytes=_MAX_BYTES,
        )
    fields, blobs = take_apart(data)
    numbers = parse(packed_update_pb2.PackedSegment, fields)
    envelope = Envelope(
        start=numbers.start,
        length=numbers.length,
        nnz=numbers.nnz,
        index_encoding=numbers.index_encoding,
        value_encoding=numbers.value_encoding,
    )
    _check_envelope(envelope, dim)
    return Segment(envelope=envelope, numbers=numbers, blobs=blobs, was_read=was_read)


def _check_envelope(envelope: Envelope, dim: int) -> None:
    for name, number, known in (
        ("index_encoding", envelope.index_encoding, sparse_update_pb2.IndexEncoding.values()),
        ("value_encoding", envelope.value_encoding, sparse_update_pb2.ValueEncoding.values()),
    ):
        if number == 0:
            raise Refusal(Reason.FIELD_REQUIRED, f"set the segment's {name}", field=name)
        if number not in known:
            raise Refusal(Reason.UNKNOWN_ENUM, f"{name} {number} is unknown", field=name)
    if not envelope.length or not envelope.nnz:
        raise Refusal(Reason.FIELD_REQUIRED, "a segment has a length and nonzeros", field="nnz")
    if envelope.nnz > SEGMENT_NNZ:
        raise Refusal(
            Reason.FIELD_RANGE,
            f"a segment holds at most {SEGMENT_NNZ} nonzeros, not {envelope.nnz}",
            nnz=envelope.nnz,
        )
    if envelope.nnz > envelope.length:
        raise Refusal(
            Reason.LENGTH_MISMATCH,
            f"{envelope.nnz} nonzeros do not fit {envelope.length} coordinates",
            nnz=envelope.nnz,
            length=envelope.length,
        )
    if envelope.end > dim:
        raise Refusal(
            Reason.INDEX_RANGE,
            f"a segment ends at {envelope.end}, beyond the vector's {dim} coordinates",
            end=envelope.end,
            dim=dim,
        )
