"""Sums up the runs of the 20 Newsgroups study: a table, results/newsgroups.json and .svg.

python -m benchmarks.studies.newsgroups_report
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from matplotlib.axes import Axes

from benchmarks._report import RESULTS
from benchmarks.studies.newsgroups import FOLDER, VARIANTS, Variant
from flasc_sim.figures import figure

_DENSE: Final = VARIANTS[0]
# A cost of more than this is what "leaves dense" means.
_POINT: Final = 0.01

Run = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A variant over its seeds; accuracies are fractions, differences paired by seed."""

    variant: str
    density: float
    encoding: str
    base: str
    seeds: int
    accuracy: float
    # Between seeds; None for one.
    accuracy_deviation: float | None
    # Dense float32's accuracy less this one's, over the seeds that both have.
    cost: float
    cost_deviation: float | None
    payload_bytes_per_run: int
    # Dense float32 values, 4 bytes each, over payload bytes, both ways.
    factor: float


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=FOLDER, help="where the runs' results are")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where table and figure go")
    arguments = parser.parse_args(words)
    runs = {variant: _runs(arguments.runs, variant) for variant in VARIANTS}
    if not runs[_DENSE]:
        print("no dense run yet: python -m benchmarks.studies.newsgroups makes them")
        return 1
    rows = [_row(variant, found, runs[_DENSE]) for variant, found in runs.items() if found]
    for row in rows:
        print(
            f"{row.variant:22} {row.seeds} seeds  accuracy {row.accuracy:.2%}"
            f"{_spread(row.accuracy_deviation)}  cost {100 * row.cost:+.2f} points"
            f"{_spread(row.cost_deviation)}  {row.factor:6.1f} x fewer bytes"
        )
    first = runs[_DENSE][0]
    report = {
        "study": "20 Newsgroups, 350 clients, Dir(0.1), 10 per round",
        "command": "python -m benchmarks.studies.newsgroups --data PATH",
        **{name: first[name] for name in ("machine", "versions", "rounds", "dim", "scored_texts")},
        "farthest_within_a_point": _farthest(rows),
        "results": [asdict(row) for row in rows],
    }
    (arguments.folder / "newsgroups.json").write_text(json.dumps(report, indent=1) + "\n")
    _plot(rows, arguments.folder)
    return 0


def _runs(folder: Path, variant: Variant) -> list[Run]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob(f"{variant.name}_seed*"))]


def _row(variant: Variant, runs: Sequence[Run], dense: Sequence[Run]) -> Row:
    by_seed = {run["seed"]: run["accuracy"] for run in dense}
    costs = [by_seed[run["seed"]] - run["accuracy"] for run in runs if run["seed"] in by_seed]
    accuracies = [run["accuracy"] for run in runs]
    sent = mean(run["payload_bytes_down"] + run["payload_bytes_up"] for run in runs)
    return Row(
        variant=variant.name,
        density=variant.density,
        encoding=variant.encoding,
        base=variant.base,
        seeds=len(runs),
        accuracy=round(mean(accuracies), 5),
        accuracy_deviation=_deviation(accuracies),
        cost=round(mean(costs), 5),
        cost_deviation=_deviation(costs),
        payload_bytes_per_run=round(sent),
        factor=round(runs[0]["dense_float32_bytes"] / sent, 2),
    )


def _farthest(rows: Sequence[Row]) -> Mapping[str, Any]:
    """The variant with the fewest bytes whose mean cost is at most a point."""
    within = [row for row in rows if row.cost <= _POINT]
    best = max(within, key=lambda row: row.factor)
    return {"variant": best.variant, "factor": best.factor, "cost": best.cost}


def _deviation(values: Sequence[float]) -> float | None:
    return round(stdev(values), 5) if len(values) > 1 else None


def _spread(deviation: float | None) -> str:
    return "" if deviation is None else f" ±{100 * deviation:.2f}"


def _plot(rows: Sequence[Row], folder: Path) -> None:
    groups: dict[tuple[float, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.density, row.base), []).append(row)
    with figure(folder / "newsgroups.svg") as drawn:
        axes = drawn.subplots()
        for (density, base), found in groups.items():
            label = "dense" if density == 1 else f"density 1/{round(1 / density)}"
            _plot_group(
                axes, found, label + ("" if base == "zero" else ", from the initial adapter")
            )
        axes.set_xscale("log")
        axes.set_xlabel("times fewer payload bytes than dense float32, both ways")
        axes.set_ylabel("accuracy, %")
        axes.set_title("20 Newsgroups, 350 clients, Dir(0.1), 10 per round", fontsize=10)
        axes.legend(fontsize=8)


def _plot_group(axes: Axes, rows: list[Row], label: str) -> None:
    rows.sort(key=lambda row: row.factor)
    points = [(row.factor, 100 * row.accuracy) for row in rows]
    axes.errorbar(
        [x for x, _ in points],
        [y for _, y in points],
        yerr=[100 * (row.accuracy_deviation or 0) for row in rows],
        marker="o",
        capsize=3,
        label=label,
    )
    for row, point in zip(rows, points, strict=True):
        axes.annotate(row.encoding, point, textcoords="offset points", xytext=(4, 5), fontsize=8)


if __name__ == "__main__":
    sys.exit(main())
