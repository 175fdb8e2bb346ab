"""How many bytes an update takes on the wire, against naive messages and against dense float32."""

from __future__ import annotations

import math

import numpy as np

from benchmarks._report import DENSITIES, Goal, Trace, parse_traces, sparse, write_report
from flasc_core.pb.v1 import sparse_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import encode

# One message per pair: an index as varint, a float, and the pair's own tag and length.
_PAIR_BYTES_BESIDE_THE_INDEX = 1 + 1 + 1 + 5


def main() -> None:
    traces = parse_traces(__doc__)
    rows = [row(trace, label) for trace in traces for label in DENSITIES]
    dense_enough = [r for r in rows if DENSITIES[str(r["density"])] >= 1 / 16]
    write_report(
        "bytes_per_update",
        traces,
        rows,
        [
            Goal(
                name="plain profile, bytes per nonzero at 1/16 and denser",
                at_most=5.02,
                worst=max(float(r["bytes_per_nonzero"]) for r in dense_enough),
            ),
            Goal(
                name="plain profile / absolute indices and floats, at 1/16 and denser",
                at_most=0.73,
                worst=max(float(r["of_absolute_indices"]) for r in dense_enough),
            ),
        ],
    )


def row(trace: Trace, label: str) -> dict[str, str | float]:
    vector = sparse(trace, DENSITIES[label])
    ours = len(encode(vector))
    return {
        "trace": trace.name,
        "dim": vector.dim,
        "density": label,
        "bytes": ours,
        "bytes_per_nonzero": ours / vector.nnz,
        "of_absolute_indices": ours / absolute_bytes(vector),
        "of_message_per_pair": ours / pair_bytes(vector),
        "dense_float32_is_times": 4 * vector.dim / ours,
        "index_entropy_bits": uniform_bound_bits(vector.dim, vector.nnz),
    }


def absolute_bytes(vector: SparseVector) -> int:
    """Packed absolute indices and floats, serialized."""
    message = sparse_update_pb2.SparseSegment(
        gaps=vector.indices.tolist(), values=vector.values.tolist()
    )
    return len(message.SerializeToString())


def pair_bytes(vector: SparseVector) -> int:
    """A repeated message of (index, value), counted."""
    index_bytes = 1 + sum(vector.indices >= 1 << bits for bits in (7, 14, 21, 28))
    return int(np.sum(index_bytes + _PAIR_BYTES_BESIDE_THE_INDEX))


def uniform_bound_bits(dim: int, nnz: int) -> float:
    """Bits per index that no code beats on uniformly random masks: log2 C(dim, nnz) / nnz."""
    choices = math.lgamma(dim + 1) - math.lgamma(nnz + 1) - math.lgamma(dim - nnz + 1)
    return choices / math.log(2) / nnz


if __name__ == "__main__":
    main()
