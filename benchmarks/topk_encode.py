"""What a device spends after training: choosing coordinates, then writing them."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks._report import (
    DENSITIES,
    Goal,
    Trace,
    interleaved,
    parse_traces,
    sparse,
    write_report,
)
from benchmarks._shares import draw_shares
from flasc_core.pb.v1 import sparse_update_pb2
from flasc_core.sparse import SparseVector, count_kept, top_k
from flasc_core.wire import Encoding, encode

ENCODINGS = ("plain", "float32", "bfloat16", "int8", "int6", "int4")


def main() -> None:
    traces = parse_traces(__doc__)
    rows = [row(trace, label) for trace in traces for label in DENSITIES]
    # Short vectors measure the cost of calls rather than of values.
    long = [r for r in rows if float(r["dim"]) >= 1e6]

    def worst(figure: str, label: str) -> float:
        return max(float(r[figure]) for r in long if r["density"] == label)

    goals = [
        *(
            Goal(
                name=f"top-k / one pass of absolute values, at {label}",
                at_most=12,
                worst=worst("top_k_of_abs_pass", label),
            )
            for label in DENSITIES
        ),
        *(
            Goal(
                name=f"encoding {name}, ns per nonzero at 1/16",
                at_most=25,
                worst=worst(f"encode_{name}_ns_per_nonzero", "1/16"),
            )
            for name in ENCODINGS
        ),
        *(
            Goal(
                name=f"encoding plain / protobuf's own class from lists, at {label}",
                at_most=0.5,
                worst=worst("encode_plain_of_protobuf", label),
            )
            for label in DENSITIES
        ),
    ]
    file = write_report("topk_encode", traces, rows, goals)
    draw_shares(goals, file.with_suffix(".svg"))


def row(trace: Trace, label: str) -> dict[str, str | float]:
    x = trace.update
    kept = count_kept(x.size, DENSITIES[label])
    vector = sparse(trace, DENSITIES[label])
    timings = interleaved(
        {
            "abs": lambda: np.abs(x),
            "top_k": lambda: top_k(x, kept),
            "argpartition": lambda: np.sort(np.argpartition(np.abs(x), x.size - kept)[-kept:]),
            "protobuf": lambda: from_lists(vector),
            **{name: partial(encode, vector, Encoding.parse(name)) for name in ENCODINGS},
        }
    )
    return {
        "trace": trace.name,
        "dim": x.size,
        "density": label,
        "nnz": kept,
        "top_k_ms": timings.least("top_k") * 1e3,
        "top_k_of_abs_pass": timings.ratio("top_k", "abs"),
        "top_k_of_argpartition": timings.ratio("top_k", "argpartition"),
        "encode_plain_of_protobuf": timings.ratio("plain", "protobuf"),
        **{f"encode_{name}_ns_per_nonzero": timings.least(name) / kept * 1e9 for name in ENCODINGS},
    }


def from_lists(vector: SparseVector) -> bytes:
    gaps = np.diff(vector.indices, prepend=-1) - 1
    return sparse_update_pb2.SparseSegment(
        gaps=gaps.tolist(), values=vector.values.tolist()
    ).SerializeToString()


if __name__ == "__main__":
    main()
