"""A search on disk: what was measured, what is recommended, the curve, and settings to go on with.

search.json       everything below in one file
outcomes.parquet  a row per candidate: how far it was run, its accuracy and its bytes
curve.svg, .png   accuracy against bytes
report.html        all of it to look at
recommended.toml  for `flasc simulate`
task.toml         for `flasc task create --settings`, where that makes the model that was searched
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from flasc_sim.checkpoint import write_whole
from flasc_sim.figures import inline_svg
from flasc_sim.search.curve import draw_curve
from flasc_sim.search.files import can_be_a_task, recommended_table, task_table, to_toml
from flasc_sim.search.finalists import Finalist
from flasc_sim.search.goals import Goal, Outcome, frontier
from flasc_sim.search.growth import LABEL as GROWTH_LABEL
from flasc_sim.search.growth import Comparison
from flasc_sim.search.space import Candidate

__all__ = ["HALVING_LABEL", "Findings", "write_report"]

HALVING_LABEL: Final = "successive halving (Optuna)"

_COLUMNS: Final = ("name", "round", "accuracy", "payload_bytes", "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a search measured; `grown` and `halved` are empty where a method was not used."""

    goal: Goal
    grown: Sequence[Comparison]
    halved: Sequence[Outcome]
    # Gone on with after all, since no run kept to the goal's bytes.
    completed: Sequence[Outcome] = ()
    # The best of them with further seeds, where such were asked for.
    finalists: Sequence[Finalist] = ()

    @property
    def outcomes(self) -> list[Outcome]:
        """The farthest that each candidate was run, in the order in which they were measured."""
        farthest: dict[Candidate, Outcome] = {}
        seen = [rival for comparison in self.grown for rival in comparison.rivals]
        for outcome in (*seen, *self.halved, *self.completed):
            known = farthest.setdefault(outcome.candidate, outcome)
            # A run may fail right after it was stopped.
            if (outcome.round, outcome.failed) > (known.round, known.failed):
                farthest[outcome.candidate] = outcome
        return list(farthest.values())

    @property
    def nearest(self) -> Candidate | None:
        """Of runs that were all stopped for their bytes, the one that would send the fewest."""
        stopped = [outcome for outcome in self.outcomes if not outcome.failed]
        if not stopped or any(outcome.is_whole for outcome in stopped):
            return None
        return min(stopped, key=lambda outcome: outcome.projected_bytes).candidate

    @property
    def recommended(self) -> Outcome:
        """By their means where there are finalists that no seed made fail.

        Raises ValueError where no candidate has run to its end whenever it ran.
        """
        means = {finalist.candidate: finalist.mean for finalist in self.finalists}
        whole = [mean for mean in means.values() if mean.is_whole]
        return self.goal.choose(
            whole or [one for one in self.outcomes if one.candidate not in means]
        )

    @property
    def path(self) -> list[Outcome]:
        """What growth went on from."""
        return [comparison.kept for comparison in self.grown if comparison.kept is not None]


def write_report(
    folder: Path,
    findings: Findings,
    table: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    cpu_hours: float,
) -> dict[str, Any]:
    """Write every file, and return what search.json says; equal findings give equal bytes.

    `table` is what was searched, `facts` what its workload says of itself. Raises ValueError where
    there is nothing to recommend.
    """
    candidate = findings.recommended.candidate
    said = _said(findings, facts) | {
        "seeds": _seeds(findings, table),
        "cpu_hours": round(cpu_hours, 3),
    }
    _write_parquet(folder / "outcomes.parquet", said["outcomes"])
    draw_curve(folder, findings.outcomes, findings.path, findings.recommended)
    recommended = to_toml(recommended_table(table, candidate))
    write_whole(folder / "recommended.toml", recommended.encode())
    if can_be_a_task(facts):
        write_whole(folder / "task.toml", to_toml(task_table(table, candidate, facts)).encode())
    write_whole(folder / "report.html", _page(said, folder / "curve.svg").encode())
    write_whole(folder / "search.json", (json.dumps(said, indent=1) + "\n").encode())
    return said


def _seeds(findings: Findings, table: Mapping[str, Any]) -> list[int]:
    seen = {seed for finalist in findings.finalists for seed in finalist.seeds}
    return sorted(seen | {table.get("seed", 0)})


def _said(findings: Findings, facts: Mapping[str, Any]) -> dict[str, Any]:
    chosen = findings.recommended
    return {
        "goal": findings.goal.to_json() | {"is_met": findings.goal.is_met(chosen)},
        "evaluated_on": "validation",
        "workload": dict(facts),
        "recommended": _row(chosen),
        "finalists": [_finalist(finalist) for finalist in findings.finalists],
        "frontier": [outcome.candidate.name for outcome in frontier(findings.outcomes)],
        "outcomes": [_row(outcome) for outcome in findings.outcomes],
        "task": "task.toml" if can_be_a_task(facts) else None,
        "growth": {
            "label": GROWTH_LABEL,
            "comparisons": [_comparison(comparison) for comparison in findings.grown],
        },
        "halving": {
            "label": HALVING_LABEL,
            "trials": [outcome.candidate.name for outcome in findings.halved],
        },
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.candidate.name,
        **asdict(outcome.candidate),
        "round": outcome.round,
        "rounds": outcome.rounds,
        "state": _state(outcome),
        "accuracy": outcome.accuracy,
        "payload_bytes": outcome.payload_bytes,
        "projected_bytes": round(outcome.projected_bytes),
    }


def _finalist(finalist: Finalist) -> dict[str, Any]:
    return {
        "name": finalist.candidate.name,
        "seeds": list(finalist.seeds),
        "accuracies": [outcome.accuracy for outcome in finalist.outcomes],
        "accuracy": finalist.mean.accuracy,
        "payload_bytes": finalist.mean.payload_bytes,
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "rivals": [rival.candidate.name for rival in comparison.rivals],
        "kept": comparison.kept.candidate.name if comparison.kept else None,
    }


def _write_parquet(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file)


def _page(said: Mapping[str, Any], curve: Path) -> str:
    chosen = said["recommended"]
    ordered = sorted(said["outcomes"], key=lambda row: (row["state"], row["payload_bytes"]))
    rows = "".join(_table_row("td", [_told(row, name) for name in _COLUMNS]) for row in ordered)
    unseen = max(said["seeds"]) + 1
    met = "meets" if said["goal"]["is_met"] else "does not meet"
    return (
        "<!doctype html>\n<meta charset='utf-8'>\n<title>flasc search</title>\n"
        "<style>body{font:16px system-ui;max-width:60rem;margin:2rem auto}"
        "td,th{padding:.2rem .8rem;text-align:left}</style>\n"
        f"<h1>{escape(chosen['name'])}</h1>\n"
        f"<p>{_told(chosen, 'accuracy')} on validation rows for {_told(chosen, 'payload_bytes')} "
        f"of payloads; this {met} the goal. Score it on held-out rows with seeds that the search "
        f"did not see: <code>flasc simulate recommended.toml --seed {unseen} --seed {unseen + 1}"
        "</code>.</p>\n"
        f"{_finals(said['finalists'])}{inline_svg(curve)}\n"
        f"<table>{_table_row('th', _COLUMNS)}{rows}</table>\n"
        f"<p>Methods: {escape('; '.join(_methods(said)))}. "
        f"{said['cpu_hours']} CPU hours.</p>\n"
    )


def _finals(finalists: Sequence[Mapping[str, Any]]) -> str:
    if not finalists:
        return ""
    rows = "".join(
        _table_row(
            "td",
            [
                _told(one, "name"),
                _told(one, "accuracy"),
                ", ".join(f"{accuracy:.1%}" for accuracy in one["accuracies"]),
                _told(one, "payload_bytes"),
            ],
        )
        for one in finalists
    )
    header = _table_row("th", ["finalist", "mean accuracy", "by seed", "payload_bytes"])
    return f"<table>{header}{rows}</table>\n"


def _methods(said: Mapping[str, Any]) -> list[str]:
    used = (("growth", "comparisons"), ("halving", "trials"))
    return [said[method]["label"] for method, done in used if said[method][done]]


def _table_row(cell: str, values: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(value)}</{cell}>" for value in values) + "</tr>\n"


def _told(row: Mapping[str, Any], name: str) -> str:
    match name:
        case "accuracy":
            return f"{row[name]:.1%}"
        case "payload_bytes":
            return f"{row[name] / 1e6:.2f} MB"
        case "round":
            return f"{row[name]} of {row['rounds']}"
        case _:
            return str(row[name])


def _state(outcome: Outcome) -> str:
    if outcome.failed:
        return "FAILED"
    return "FINISHED" if outcome.is_whole else "STOPPED"
