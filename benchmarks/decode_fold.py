"""What the server spends on one update: reading it, and adding it to the exact sum."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from types import ModuleType
from unittest.mock import patch

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
from flasc_core.fold import Accumulator
from flasc_core.sparse import SparseVector
from flasc_core.wire import (
    DecodeLimits,
    Encoding,
    compact_readers,
    decode_segments,
    encode,
    update,
)
from flasc_core.wire.inflate import fast_zlib

ENCODINGS = ("plain", "float32", "bfloat16", "int8", "int6", "int4")
# By the name of what inflates; the same twice where isal is not installed.
ENGINES = {"stdlib": zlib, "accelerated": fast_zlib()}
GOALS = {"stdlib": 7.0, "accelerated": 4.5}

Row = dict[str, str | float]


def main() -> None:
    traces = parse_traces(__doc__)
    rows = [row for trace in traces for label in DENSITIES for row in rows_of(trace, label)]
    # Short vectors measure the cost of calls rather than of values.
    sixteenth = [r for r in rows if r["density"] == "1/16" and float(r["dim"]) >= 1e6]
    goals = [
        *(
            Goal(
                name=f"{name}, decoding and exact sum / dense float32 add, at 1/16, {engine}",
                at_most=at_most,
                worst=max(
                    float(r[f"{engine}_step_of_dense_add"])
                    for r in sixteenth
                    if r["encoding"] == name
                ),
            )
            for engine, at_most in GOALS.items()
            for name in ENCODINGS
        ),
        Goal(
            name="exact step / float32 step, plain at 1/16",
            at_most=1.6,
            worst=max(
                float(r["exact_step_of_float_step"]) for r in sixteenth if r["encoding"] == "plain"
            ),
        ),
        Goal(
            name="MiB beyond three times the payload while one is read and added",
            at_most=2,
            worst=max(float(r["worker_mib"]) - 2 * float(r["payload_mib"]) for r in rows),
        ),
    ]
    file = write_report("decode_fold", traces, rows, goals)
    draw_shares(goals, file.with_suffix(".svg"))


def rows_of(trace: Trace, label: str) -> list[Row]:
    vector = sparse(trace, DENSITIES[label])
    return [row(trace, label, vector, name) for name in ENCODINGS]


def row(trace: Trace, label: str, vector: SparseVector, name: str) -> Row:
    payload = encode(vector, Encoding.parse(name))
    limits = DecodeLimits(
        dim=vector.dim,
        max_nnz=vector.nnz,
        max_abs_value=max(1.0, 2 * float(np.abs(vector.values).max())),
        was_read=True,
    )
    parts = partial(decode_segments, payload, limits)
    exact = Accumulator.zeros(vector.dim)
    floats = np.zeros(vector.dim, dtype=np.float32)
    dense = trace.update.copy()

    def read() -> None:
        for _ in parts():
            pass

    def float_step() -> None:
        for indices, values in parts():
            np.add.at(floats, indices, values)

    def exact_step() -> None:
        exact.add_parts(parts, 1, b"update")

    timings = interleaved(
        {
            "dense_add": lambda: np.add(floats, dense, out=floats),
            "float_step": float_step,
            **{f"{engine}_read": inflating(module, read) for engine, module in ENGINES.items()},
            **{
                f"{engine}_step": inflating(module, exact_step)
                for engine, module in ENGINES.items()
            },
        },
        repeats=40,
    )
    return {
        "trace": trace.name,
        "dim": vector.dim,
        "density": label,
        "nnz": vector.nnz,
        "encoding": name,
        **{
            f"{what}_ns_per_nonzero": timings.least(what) / vector.nnz * 1e9
            for what in timings.seconds
            if what != "dense_add"
        },
        **{
            f"{engine}_step_of_dense_add": timings.ratio(f"{engine}_step", "dense_add")
            for engine in ENGINES
        },
        "exact_step_of_float_step": timings.ratio("accelerated_step", "float_step"),
        "updates_per_second_and_core": 1 / timings.least("accelerated_step"),
        # The payload itself was there before the peak is taken.
        "worker_mib": peak_bytes(exact_step) / 2**20,
        "payload_mib": len(payload) / 2**20,
    }


def inflating(module: ModuleType, run: Callable[[], None]) -> Callable[[], None]:
    def with_module() -> None:
        with (
            patch.object(compact_readers, "fast_zlib", lambda: module),
            patch.object(update, "fast_zlib", lambda: module),
        ):
            run()

    return with_module


def peak_bytes(run: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    main()
