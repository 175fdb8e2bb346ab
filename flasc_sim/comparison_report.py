"""A comparison as figures and as one page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from matplotlib.axes import Axes

from flasc_sim.comparison import Curve, Row, Run, compare, curve_of
from flasc_sim.figures import figure, inline_svg

__all__ = ["write_report"]

_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Simulated runs compared</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .8rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 2rem 0; } svg { height: auto; max-width: 100%; }
</style>
<h1>Simulated runs compared</h1>
<p>$about</p>
<table><thead><tr>$head</tr></thead><tbody>
$rows
</tbody></table>
<figure>$by_bytes<figcaption>Accuracy against payload bytes of a whole run, both ways; bars are
one standard deviation between seeds.</figcaption></figure>
<figure>$by_rounds<figcaption>Accuracy against rounds, means over seeds.</figcaption></figure>
</html>
""")
_COLUMNS: Final = (
    "Configuration",
    "Seeds",
    "Accuracy, %",
    "Parameters",
    "Rounds",
    "Down, MB",
    "Up, MB",
    "Times fewer than dense float32",
    "Download A / B / head, %",
    "Upload A / B / head, %",
    "Tiers, %",
)


def write_report(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write comparison.json, both figures as SVG and PNG, and report.html; equal runs, equal bytes.

    Returns the files. Raises ValueError for runs that can not be compared, and FileNotFoundError
    for one without its evaluations; no records of rounds are needed.
    """
    rows = compare(runs)
    curves = [curve_of(row.name, runs) for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    by_bytes = [folder / f"accuracy-by-bytes.{kind}" for kind in ("svg", "png")]
    by_rounds = [folder / f"accuracy-by-rounds.{kind}" for kind in ("svg", "png")]
    with figure(*by_bytes) as drawn:
        _plot_bytes(drawn.subplots(), rows)
    with figure(*by_rounds) as drawn:
        _plot_rounds(drawn.subplots(), curves)
    said, page = folder / "comparison.json", folder / "report.html"
    said.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    page.write_text(_page(rows, runs, by_bytes[0], by_rounds[0]), encoding="utf-8")
    return [said, *by_bytes, *by_rounds, page]


def _page(rows: Sequence[Row], runs: Sequence[Run], by_bytes: Path, by_rounds: Path) -> str:
    workloads = sorted({str(run.result["workload"]["name"]) for run in runs})
    return _PAGE.substitute(
        about=escape(
            f"{len(runs)} runs of {len(rows)} configurations on {', '.join(workloads)}. Bytes are "
            "of payloads, exact, over all devices of a run."
        ),
        head="".join(f"<th>{escape(column)}</th>" for column in _COLUMNS),
        rows="\n".join(_html_row(row) for row in rows),
        by_bytes=inline_svg(by_bytes),
        by_rounds=inline_svg(by_rounds),
    )


def _html_row(row: Row) -> str:
    spread = "" if row.accuracy_deviation is None else f" ± {100 * row.accuracy_deviation:.2f}"
    cells = (
        row.name,
        " ".join(map(str, row.seeds)),
        f"{100 * row.accuracy:.2f}{spread}",
        f"{row.parameters:,}",
        str(row.rounds),
        f"{row.payload_bytes_down / 1e6:.2f}",
        f"{row.payload_bytes_up / 1e6:.2f}",
        f"{row.saving:.1f}",
        " / ".join(f"{100 * share:.0f}" for share in row.shares_down.values()),
        " / ".join(f"{100 * share:.0f}" for share in row.shares_up.values()),
        ", ".join(f"{tier} {100 * score:.1f}" for tier, score in row.tier_accuracies.items()),
    )
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _plot_bytes(axes: Axes, rows: Sequence[Row]) -> None:
    for row in rows:
        sent = (row.payload_bytes_down + row.payload_bytes_up) / 1e6
        spread = 100 * (row.accuracy_deviation or 0)
        axes.errorbar([sent], [100 * row.accuracy], yerr=[spread], marker="o", capsize=3)
        axes.annotate(
            row.name,
            (sent, 100 * row.accuracy),
            textcoords="offset points",
            xytext=(5, 4),
            fontsize=7,
        )
    axes.set_xscale("log")
    axes.set_xlabel("payload bytes of a run, both ways, MB")
    axes.set_ylabel("accuracy, %")


def _plot_rounds(axes: Axes, curves: Sequence[Curve]) -> None:
    for curve in curves:
        scores = [100 * accuracy for accuracy in curve.accuracies]
        axes.plot(curve.rounds, scores, marker=".", label=curve.name)
    axes.set_xlabel("rounds")
    axes.set_ylabel("accuracy, %")
    axes.legend(fontsize=7)
