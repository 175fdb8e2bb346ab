"""Values for the tests of flasc_core: name only what matters."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Method, select
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.pb.v1 import sparse_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits

DENSE = sparse_update_pb2.INDEX_ENCODING_DENSE
GAPS = sparse_update_pb2.INDEX_ENCODING_GAPS
FLOAT32 = sparse_update_pb2.VALUE_ENCODING_FLOAT32


def a_layout(*, a: int = 4, b: int = 4, head: int = 2) -> AdapterLayout:
    """LoRA A, LoRA B and a head of the given sizes; a size of 0 leaves the tensor out."""
    tensors = (("lora_A", a, Role.LORA_A), ("lora_B", b, Role.LORA_B), ("head", head, Role.HEAD))
    return AdapterLayout(
        tensors=tuple(
            TensorSpec(name=name, shape=(size,), role=role) for name, size, role in tensors if size
        )
    )


def a_vector(
    indices: Sequence[int] = (1, 4, 5), values: ArrayLike = (0.5, -1.0, 2.0), *, dim: int = 10
) -> SparseVector:
    return SparseVector(
        dim=dim,
        indices=np.array(indices, dtype=np.int64),
        values=np.array(values, dtype=np.float32),
    )


def selected_by(
    method: Method, layout: AdapterLayout, weights: NDArray[np.float32], round_index: int = 0
) -> SparseVector:
    """What goes down of `weights`, where nothing else ranks them."""
    indices = select(layout, weights, method.plan(layout, round_index).download)
    return SparseVector(dim=layout.dim, indices=indices, values=weights[indices])


def limits_of(
    dim: int = 10, *, max_nnz: int | None = None, max_abs_value: float = 64.0, min_nnz: int = 1
) -> DecodeLimits:
    return DecodeLimits(
        dim=dim,
        max_nnz=dim if max_nnz is None else max_nnz,
        max_abs_value=max_abs_value,
        min_nnz=min_nnz,
    )


def a_segment(
    *,
    start: int = 1,
    length: int = 5,
    nnz: int = 3,
    index_encoding: int = GAPS,
    value_encoding: int = FLOAT32,
    gaps: Sequence[int] = (0, 2, 0),
    values: Sequence[float] = (0.5, -1.0, 2.0),
    **compact: int | bytes,
) -> bytes:
    """A segment as protobuf's own class serializes it: that of `a_vector()` by default."""
    segment = sparse_update_pb2.SparseSegment(
        start=start, length=length, nnz=nnz, gaps=gaps, values=values
    )
    segment.index_encoding = index_encoding  # type: ignore[assignment]
    segment.value_encoding = value_encoding  # type: ignore[assignment]
    for field, value in compact.items():
        setattr(segment, field, value)
    return segment.SerializeToString()


def a_payload(*segments: bytes, dim: int = 10, crc32: int | None = None) -> bytes:
    """An update of these segments, with the right checksum unless another is given."""
    checksum = zlib.crc32(b"".join(segments)) if crc32 is None else crc32
    return packed_update_pb2.PackedUpdate(
        dim=dim, segments=segments, crc32=checksum
    ).SerializeToString()


def read_by_definition(payload: bytes) -> SparseVector:
    """What sparse_update.proto says, one number at a time, by protobuf's own class."""
    update = sparse_update_pb2.SparseUpdate.FromString(payload)
    indices: list[int] = []
    values: list[float] = []
    for segment in update.segments:
        if segment.index_encoding == DENSE:
            indices += range(segment.start, segment.start + segment.length)
        else:
            position = segment.start - 1
            for gap in segment.gaps:
                position += 1 + gap
                indices.append(position)
        values += segment.values
    return a_vector(indices, values, dim=update.dim)


def finite_floats(bound: float = 64.0) -> st.SearchStrategy[float]:
    return st.floats(-bound, bound, width=32)


@st.composite
def sparse_vectors(
    draw: st.DrawFn, *, dim: int | None = None, max_nnz: int = 40, min_nnz: int = 0
) -> SparseVector:
    size = draw(st.integers(max(1, min_nnz), 100_000)) if dim is None else dim
    indices = draw(
        st.lists(
            st.integers(0, size - 1), unique=True, min_size=min_nnz, max_size=min(max_nnz, size)
        )
    )
    values = draw(st.lists(finite_floats(), min_size=len(indices), max_size=len(indices)))
    return a_vector(sorted(indices), values, dim=size)
