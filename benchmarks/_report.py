"""What every benchmark shares: inputs, fair timing, and result files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flasc_core.sparse import SparseVector, count_kept, top_k
from flasc_sim.processor import processor_name

__all__ = [
    "DENSITIES",
    "Goal",
    "Timings",
    "Trace",
    "interleaved",
    "machine_facts",
    "parse_traces",
    "sparse",
    "write_report",
]

RESULTS: Final = Path(__file__).parent / "results"
DENSITIES: Final = {"1/4": 1 / 4, "1/16": 1 / 16, "1/64": 1 / 64}
_SYNTHETIC_DIMS: Final = {"uniform 0.3M": 300_000, "uniform 3M": 3_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One flat float32 update to measure with."""

    name: str
    update: NDArray[np.float32]
    recorded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound on a ratio, so that it means the same on every machine."""

    name: str
    at_most: float
    worst: float

    @property
    def reached(self) -> bool:
        return self.worst <= self.at_most


def parse_traces(description: str | None) -> list[Trace]:
    """Read the command line: real updates by `--data`, made-up ones otherwise."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="npz files with a float32 array `update`, or folders of them; synthetic if left out",
    )
    paths: Sequence[Path] = parser.parse_args().data
    files = [file for path in paths for file in (sorted(path.glob("*.npz")) or [path])]
    return [_read(file) for file in files] or [_uniform(name) for name in _SYNTHETIC_DIMS]


def sparse(trace: Trace, density: float) -> SparseVector:
    """The update's largest coordinates at this density."""
    indices = top_k(trace.update, count_kept(trace.update.size, density))
    return SparseVector(dim=trace.update.size, indices=indices, values=trace.update[indices])


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Each candidate's CPU seconds in every turn."""

    seconds: Mapping[str, Sequence[float]]

    def least(self, name: str) -> float:
        """The time that the work itself needs."""
        return min(self.seconds[name])

    def ratio(self, name: str, other: str) -> float:
        """The median over turns: what a busy machine does to one, it does to both."""
        pairs = zip(self.seconds[name], self.seconds[other], strict=True)
        return median(one / another for one, another in pairs)


def interleaved(candidates: Mapping[str, Callable[[], object]], *, repeats: int = 15) -> Timings:
    """Time candidates that take turns, so that a busy machine disturbs all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            start = time.thread_time_ns()
            run()
            seconds[name].append((time.thread_time_ns() - start) / 1e9)
    return Timings(seconds=seconds)


def write_report(
    name: str,
    traces: Sequence[Trace],
    rows: Sequence[Mapping[str, str | float]],
    goals: Sequence[Goal],
) -> Path:
    """Write results/<name>.json, and the same to the terminal; no host, path or address.

    What real updates give is kept apart, in results/<name>-recorded.json.
    """
    recorded = bool(traces) and all(trace.recorded for trace in traces)
    report = {
        "benchmark": name,
        "command": f"python -m benchmarks.{name}" + (" --data PATH" if recorded else ""),
        **machine_facts(),
        "goals": [{**asdict(goal), "reached": goal.reached} for goal in goals],
        "results": [_rounded(row) for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(report, indent=1) + "\n"
    file = RESULTS / (f"{name}-recorded.json" if recorded else f"{name}.json")
    file.write_text(text, encoding="utf-8")
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in _rounded(row).items()))
    for goal in goals:
        verdict = "reached" if goal.reached else "MISSED"
        print(f"{verdict}: {goal.name} <= {goal.at_most} (worst {goal.worst:.3f})")
    return file


def machine_facts(*packages: str) -> dict[str, object]:
    """Return what a result depends on beside the code: no host name, path or address."""
    return {
        "machine": {"processor": processor_name(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("numpy", "protobuf", *packages)},
        },
    }


def _read(file: Path) -> Trace:
    with np.load(file) as arrays:
        update = arrays["update"].astype(np.float32, copy=False)
    return Trace(name=file.stem, update=update, recorded=True)


def _uniform(name: str) -> Trace:
    rng = np.random.default_rng(7)
    update = rng.standard_normal(_SYNTHETIC_DIMS[name], dtype=np.float32)
    return Trace(name=name, update=update, recorded=False)


def _rounded(row: Mapping[str, str | float]) -> dict[str, str | float]:
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in row.items()
    }
