"""Reports of searches: everything that was measured once, the same files for the same findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flasc_sim.search.goals import ByteBudget, Goal, TargetAccuracy
from flasc_sim.search.growth import Comparison
from flasc_sim.search.report import Findings, write_report
from tests.support.search_table import Table, a_candidate
from tests.support.tiny_workload import a_run

TABLE = Table(lambda one: 0.1 * one.rank, lambda one: 900 * one.rank)
SMALL, MIDDLE, LARGE = (a_candidate(rank) for rank in (1, 2, 4))
FILES = (
    "search.json",
    "outcomes.parquet",
    "curve.svg",
    "curve.png",
    "report.html",
    "recommended.toml",
    "task.toml",
)


def findings(goal: Goal) -> Findings:
    """Growth ran the two smaller ones whole; halving stopped one of them, and ran the largest."""
    start, grown = TABLE.outcome(SMALL), TABLE.outcome(MIDDLE)
    return Findings(
        goal=goal,
        grown=(Comparison(rivals=(start,), kept=start), Comparison(rivals=(grown,), kept=grown)),
        halved=(TABLE.outcome(SMALL, 3), TABLE.outcome(LARGE)),
    )


def written(folder: Path, goal: Goal) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return write_report(folder, findings(goal), a_run().table, {"model": "tiny"}, cpu_hours=1.25)


def test_a_candidate_counts_once_by_its_longest_run(tmp_path: Path) -> None:
    said = written(tmp_path, TargetAccuracy(accuracy=0.4))
    rows = {row["name"]: row for row in said["outcomes"]}
    assert list(rows) == [SMALL.name, MIDDLE.name, LARGE.name]
    assert rows[SMALL.name]["round"] == 9
    assert rows[SMALL.name]["state"] == "FINISHED"
    assert pq.read_table(tmp_path / "outcomes.parquet").to_pylist() == said["outcomes"]
    assert json.loads((tmp_path / "search.json").read_text()) == said


def test_the_recommendation_serves_the_goal_and_says_whether_it_meets_it(tmp_path: Path) -> None:
    target = written(tmp_path, TargetAccuracy(accuracy=0.2))
    assert target["recommended"]["name"] == MIDDLE.name
    assert target["goal"] == {"target_accuracy": 0.2, "is_met": True}
    missed = written(tmp_path, TargetAccuracy(accuracy=0.41))
    assert missed["recommended"]["name"] == LARGE.name
    assert missed["goal"]["is_met"] is False
    assert "does not meet the goal" in (tmp_path / "report.html").read_text()
    budget = written(tmp_path, ByteBudget(payload_bytes=1800))
    assert budget["recommended"]["name"] == MIDDLE.name
    assert budget["goal"] == {"byte_budget": 1800, "is_met": True}


def test_growth_is_called_reconstructed_wherever_it_is_told_of(tmp_path: Path) -> None:
    said = written(tmp_path, TargetAccuracy(accuracy=0.2))
    assert said["growth"]["label"] == "FLASC-Search-style (reconstructed)"
    assert said["growth"]["comparisons"][1] == {"rivals": [MIDDLE.name], "kept": MIDDLE.name}
    assert "FLASC-Search-style (reconstructed)" in (tmp_path / "report.html").read_text()


def test_equal_findings_give_equal_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        written(tmp_path / name, ByteBudget(payload_bytes=2000))
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
