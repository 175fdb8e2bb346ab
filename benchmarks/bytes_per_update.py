"""How many bytes an update takes on the wire, against entropy, naive messages and dense float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from benchmarks._report import Goal, Trace, parse_traces, sparse, write_report
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.pb.v1 import sparse_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import Encoding, encode, quantize
from flasc_sim.figures import figure

ENCODINGS = ("plain", "float32", "bfloat16", "int8", "int6", "int4")
DENSITIES = {f"1/{2**power}": 2.0**-power for power in range(1, 9)}
# One message per pair: an index as varint, a float, and the pair's own tag and length.
_PAIR_BYTES_BESIDE_THE_INDEX = 1 + 1 + 1 + 5
# Below these, what a Huffman table takes shows.
_MANY = 10_000
_MANY_RECORDED = 4_600

Row = dict[str, str | float]


def main() -> None:
    traces = parse_traces(__doc__)
    rows = [row for trace in traces for label in DENSITIES for row in rows_of(trace, label)]
    recorded = all(trace.recorded for trace in traces)
    goals = [entropy_goal(rows, recorded), *byte_goals(rows)]
    draw(rows, write_report("bytes_per_update", traces, rows, goals).with_suffix(".svg"))


def draw(rows: Sequence[Row], file: Path) -> None:
    """Bytes against density, averaged over the traces."""
    with figure(file) as drawn:
        axes = drawn.subplots()
        for encoding in ENCODINGS:
            means = [
                mean(
                    float(row["bytes_per_nonzero"])
                    for row in rows
                    if (row["encoding"], row["density"]) == (encoding, label)
                )
                for label in DENSITIES
            ]
            axes.plot(list(DENSITIES), means, marker="o", label=encoding)
        axes.set_xlabel("density")
        axes.set_ylabel("bytes per kept parameter, indices included")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)


def entropy_goal(rows: Sequence[Row], recorded: bool) -> Goal:
    compact = [row for row in rows if row["encoding"] == "int6"]
    if not recorded:
        return Goal(
            name=f"index bytes / log2 C(n, k) / 8, k >= {_MANY}",
            at_most=1.02,
            worst=worst(compact, "index_of_uniform_bound", at_least=_MANY),
        )
    return Goal(
        name=f"index bytes / gap entropy, k >= {_MANY_RECORDED}",
        at_most=1.05,
        worst=worst(compact, "index_of_gap_entropy", at_least=_MANY_RECORDED),
    )


def byte_goals(rows: Sequence[Row]) -> list[Goal]:
    dense_enough = [row for row in rows if DENSITIES[str(row["density"])] >= 1 / 16]
    plain = [row for row in dense_enough if row["encoding"] == "plain"]
    sixteenth = [row for row in rows if row["density"] == "1/16"]
    sparse_enough = [row for row in rows if DENSITIES[str(row["density"])] <= 1 / 16]
    bytes_at_sixteenth = {
        name: worst(
            [row for row in sixteenth if row["encoding"] == name],
            "bytes_per_nonzero",
            at_least=_MANY,
        )
        for name in ("int8", "int6")
    }
    return [
        Goal(
            name="plain, bytes per nonzero at 1/16 and denser",
            at_most=5.02,
            worst=worst(plain, "bytes_per_nonzero"),
        ),
        Goal(
            name="plain / absolute indices and floats, at 1/16 and denser",
            at_most=0.73,
            worst=worst(plain, "of_absolute_indices"),
        ),
        Goal(
            name="int8, bytes per nonzero at 1/16",
            at_most=1.75,
            worst=bytes_at_sixteenth["int8"],
        ),
        Goal(
            name="int6, bytes per nonzero at 1/16",
            at_most=1.30,
            worst=bytes_at_sixteenth["int6"],
        ),
        Goal(
            name="int6, error / error of top-k alone, at 1/16 and sparser",
            at_most=1.002,
            worst=worst(
                [row for row in sparse_enough if row["encoding"] == "int6"],
                "error_of_top_k_alone",
            ),
        ),
    ]


def worst(rows: Sequence[Row], figure: str, *, at_least: int = 0) -> float:
    return max(float(row[figure]) for row in rows if float(row["nnz"]) >= at_least)


def rows_of(trace: Trace, label: str) -> list[Row]:
    vector = sparse(trace, DENSITIES[label])
    absolute, pairs = absolute_bytes(vector), pair_bytes(vector)
    uniform = uniform_bound_bytes(vector.dim, vector.nnz)
    entropy = gap_entropy_bytes(vector.indices)
    total = float(np.square(trace.update, dtype=np.float64).sum())
    kept = float(np.square(vector.values, dtype=np.float64).sum())
    rows: list[Row] = []
    for name in ENCODINGS:
        payload = encode(vector, Encoding.parse(name))
        index = index_bytes(payload)
        moved = quantize(vector, Encoding.parse(name)).values.astype(np.float64) - vector.values
        added = float(np.square(moved).sum())
        rows.append(
            {
                "trace": trace.name,
                "dim": vector.dim,
                "density": label,
                "nnz": vector.nnz,
                "encoding": name,
                "bytes": len(payload),
                "bytes_per_nonzero": len(payload) / vector.nnz,
                "index_bits_per_nonzero": 8 * index / vector.nnz,
                "index_of_uniform_bound": index / uniform,
                "index_of_gap_entropy": index / entropy,
                "relative_error": math.sqrt(added / kept),
                "error_of_top_k_alone": math.sqrt(1 + added / (total - kept)),
                "of_absolute_indices": len(payload) / absolute,
                "of_message_per_pair": len(payload) / pairs,
                "dense_float32_is_times": 4 * vector.dim / len(payload),
            }
        )
    return rows


def index_bytes(payload: bytes) -> int:
    segments = packed_update_pb2.PackedUpdate.FromString(payload).segments
    parsed = [packed_update_pb2.PackedSegment.FromString(segment) for segment in segments]
    return sum(len(s.gap_high) + len(s.gap_low) + sum(map(len, s.gaps)) for s in parsed)


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


def uniform_bound_bytes(dim: int, nnz: int) -> float:
    """What no code beats on uniformly random masks: log2 C(dim, nnz) / 8."""
    choices = math.lgamma(dim + 1) - math.lgamma(nnz + 1) - math.lgamma(dim - nnz + 1)
    return choices / math.log(2) / 8


def gap_entropy_bytes(indices: NDArray[np.int64]) -> float:
    """The order-0 entropy of the gaps as they occur, which takes no account of any table."""
    counts = np.unique(np.diff(indices, prepend=-1), return_counts=True)[1]
    return float(-(counts * np.log2(counts / indices.size)).sum() / 8)


if __name__ == "__main__":
    main()
