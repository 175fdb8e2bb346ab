"""Reports of searches: everything that was measured once, the same files for the same findings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flasc_sim.search.goals import ByteBudget, Goal, TargetAccuracy
from flasc_sim.search.growth import Comparison
from flasc_sim.search.report import Findings, write_report
from tests.support.search_table import Table, a_candidate
from tests.support.tiny_workload import a_run

TABLE = Table(lambda one: 0.1 * one.rank, lambda one: 900 * one.rank)
SMALL, MIDDLE, LARGE = (a_candidate(rank) for rank in (1, 2, 4))
FACTS = {"model": "tiny", "pooling": "mean"}
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
    return write_report(folder, findings(goal), a_run().table, FACTS, cpu_hours=1.25)


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


def test_the_page_names_the_methods_that_were_used(tmp_path: Path) -> None:
    alone = replace(findings(TargetAccuracy(accuracy=0.2)), halved=())
    write_report(tmp_path, alone, a_run().table, FACTS, cpu_hours=1.25)
    page = (tmp_path / "report.html").read_text()
    assert "Methods: FLASC-Search-style (reconstructed). " in page


def test_where_every_run_was_stopped_the_one_that_sends_least_is_named() -> None:
    budget = ByteBudget(payload_bytes=10)
    stopped = Findings(
        goal=budget, grown=(), halved=(TABLE.outcome(LARGE, 1), TABLE.outcome(SMALL, 3))
    )
    assert stopped.nearest == SMALL
    whole = replace(stopped, completed=(TABLE.outcome(SMALL),))
    assert whole.nearest is None
    assert whole.recommended == TABLE.outcome(SMALL)
    failed = replace(TABLE.outcome(SMALL, 3), failed=True)
    assert replace(stopped, halved=(failed,)).nearest is None
    # The next one goes on where training failed right after the run was stopped.
    assert replace(stopped, completed=(failed,)).nearest == LARGE


@pytest.mark.parametrize(
    ("facts", "has_one"),
    [({}, True), (FACTS, True), ({"model": "vit"}, False), ({**FACTS, "pooling": "last"}, False)],
)
def test_a_task_is_written_where_it_would_be_what_was_searched(
    tmp_path: Path, facts: dict[str, str], has_one: bool
) -> None:
    found = findings(TargetAccuracy(accuracy=0.2))
    said = write_report(tmp_path, found, a_run().table, facts, cpu_hours=1.25)
    assert (tmp_path / "task.toml").exists() is has_one
    assert said["task"] == ("task.toml" if has_one else None)


def test_equal_findings_give_equal_files(tmp_path: Path) -> None:
    for name in ("one", "other"):
        written(tmp_path / name, ByteBudget(payload_bytes=2000))
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
