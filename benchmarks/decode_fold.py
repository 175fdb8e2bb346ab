"""What the server spends on one update: reading it, and adding it to the exact sum."""

from __future__ import annotations

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
from flasc_core.fold import Accumulator
from flasc_core.wire import DecodeLimits, decode, encode


def main() -> None:
    traces = parse_traces(__doc__)
    rows = [row(trace, label) for trace in traces for label in DENSITIES]
    # Short vectors measure the cost of calls rather than of values.
    sixteenth = [r for r in rows if r["density"] == "1/16" and float(r["dim"]) >= 1e6]
    write_report(
        "decode_fold",
        traces,
        rows,
        [
            Goal(
                name="decode and float32 sum / dense float32 add, at 1/16",
                at_most=2.5,
                worst=max(float(r["float_step_of_dense_add"]) for r in sixteenth),
            ),
            Goal(
                name="exact step / float32 step, at 1/16",
                at_most=1.6,
                worst=max(float(r["exact_step_of_float_step"]) for r in sixteenth),
            ),
        ],
    )


def row(trace: Trace, label: str) -> dict[str, str | float]:
    vector = sparse(trace, DENSITIES[label])
    payload = encode(vector)
    limits = DecodeLimits(
        dim=vector.dim,
        max_nnz=vector.nnz,
        max_abs_value=max(1.0, float(np.abs(vector.values).max())),
    )
    exact = Accumulator.zeros(vector.dim)
    floats = np.zeros(vector.dim, dtype=np.float32)
    dense = trace.update.copy()

    def float_step() -> None:
        read = decode(payload, limits)
        np.add.at(floats, read.indices, read.values)

    seconds = interleaved(
        {
            "dense_add": lambda: np.add(floats, dense, out=floats),
            "decode": lambda: decode(payload, limits),
            "float_step": float_step,
            "exact_step": lambda: exact.add(decode(payload, limits), 1, b"update"),
        }
    )
    return {
        "trace": trace.name,
        "dim": vector.dim,
        "density": label,
        "nnz": vector.nnz,
        "decode_ns_per_nonzero": seconds["decode"] / vector.nnz * 1e9,
        "exact_step_ns_per_nonzero": seconds["exact_step"] / vector.nnz * 1e9,
        "float_step_of_dense_add": seconds["float_step"] / seconds["dense_add"],
        "exact_step_of_dense_add": seconds["exact_step"] / seconds["dense_add"],
        "exact_step_of_float_step": seconds["exact_step"] / seconds["float_step"],
        "updates_per_second_and_core": 1 / seconds["exact_step"],
    }


if __name__ == "__main__":
    main()
