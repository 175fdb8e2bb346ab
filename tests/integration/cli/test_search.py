"""`flasc search` from a settings file to a task, on a model of a few thousand weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flasc_cli.errors import CliError, ExitCode
from flasc_cli.main import app
from tests.support.tiny_settings import a_settings_file

TABLES = """
[search]
ranks = [1, 2]
densities = [0.5, 1.0]
encodings = ["int8"]
bases = ["initial"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return a_settings_file(tmp_path / "search.toml", TABLES, rounds=2)


def flasc(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def search(config: Path, *options: str) -> Result:
    data = str(config.parent / "corpus.parquet")
    out = str(config.parent / "out")
    return flasc("search", str(config), "--data", data, "--out", out, *options)


def said(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_a_search_ends_with_a_task_that_can_be_created(config: Path) -> None:
    found = said(search(config, "--byte-budget", "1000000", "--json"))
    assert found["goal"] == {"byte_budget": 1_000_000, "is_met": True}
    assert found["growth"]["label"] == "FLASC-Search-style (reconstructed)"
    assert found["evaluated_on"] == "validation"
    assert len(found["halving"]["trials"]) == 4
    out = config.parent / "out"
    chosen = found["recommended"]

    created = said(
        flasc(
            *["task", "create", "mail", "--settings", str(out / "task.toml")],
            *["--labels", "2", "--dry-run"],
        )
    )
    assert created["method"]["download_density"] == chosen["density"]
    assert created["encodings"] == {"download": "int8", "updates": ["int8"]}
    assert created["ending"]["rounds"] == 2
    lora = json.loads(created["peft_config_json"])
    assert lora["r"] == lora["lora_alpha"] == chosen["rank"]
    assert lora["layers_to_transform"] == [2]
    # The task that was simulated: the same tensors on the same model.
    run = json.loads((out / "runs" / chosen["name"] / "result.json").read_text())
    assert sum(math.prod(tensor["shape"]) for tensor in created["layout"]) == run["dim"]


def test_the_best_are_run_again_with_further_seeds_and_recommended_by_their_means(
    config: Path,
) -> None:
    options = ("--byte-budget", "1000000", "--method", "growth", "--finalists", "2", "--json")
    found = said(search(config, *options))
    first, other = found["finalists"]
    assert first["seeds"] == other["seeds"] == found["seeds"] == [0, 1, 2]
    out = config.parent / "out"
    for finalist in (first, other):
        runs = [out / "runs", *(out / "finalists" / f"seed{seed}" for seed in (1, 2))]
        results = [json.loads((run / finalist["name"] / "result.json").read_text()) for run in runs]
        assert [result["seed"] for result in results] == [0, 1, 2]
        # Of tiny runs, in which a seed shows in every byte.
        assert len({(run / finalist["name"] / "rounds.parquet").read_bytes() for run in runs}) == 3
    best = max((first, other), key=lambda one: (one["accuracy"], -one["payload_bytes"]))
    assert found["recommended"]["name"] == best["name"]
    assert found["recommended"]["accuracy"] == best["accuracy"]

    again = search(config, *options)
    assert said(again) == found
    assert "loading workload" not in again.stderr


def test_no_further_seeds_leave_the_recommendation_to_the_searchs_own(config: Path) -> None:
    found = said(search(config, "--byte-budget", "1000000", "--further-seeds", "0", "--json"))
    assert found["finalists"] == []
    assert found["seeds"] == [0]
    assert not (config.parent / "out" / "finalists").exists()


def test_a_budget_that_no_run_keeps_ends_with_the_fewest_bytes(config: Path) -> None:
    found = said(search(config, "--byte-budget", "10", "--json"))
    assert found["goal"] == {"byte_budget": 10, "is_met": False}
    whole = [row for row in found["outcomes"] if row["state"] == "FINISHED"]
    assert [row["name"] for row in whole] == [found["recommended"]["name"]]


def test_a_search_that_is_repeated_reads_its_runs_and_says_the_same(config: Path) -> None:
    first = said(search(config, "--target-accuracy", "0.01", "--method", "growth", "--json"))
    again = search(config, "--target-accuracy", "0.01", "--method", "growth", "--json")
    assert said(again) == first
    assert "loading workload" not in again.stderr
    assert first["halving"]["trials"] == []
    # Any accuracy will do, so that growth ends where it starts.
    assert first["recommended"]["name"] == "r1-d0.5-head-1-int8-initial"


def test_the_recommended_run_can_be_simulated_on_held_out_rows(config: Path) -> None:
    found = said(search(config, "--byte-budget", "1000000", "--trials", "1", "--json"))
    ran = said(
        flasc(
            *["simulate", str(config.parent / "out" / "recommended.toml"), "--seed", "5"],
            *["--data", str(config.parent / "corpus.parquet")],
            *["--out", str(config.parent / "runs"), "--json"],
        )
    )
    assert len(ran) == 1
    only = ran[0]  # type: ignore[index]
    assert only["name"] == found["recommended"]["name"]
    assert only["evaluated_on"] == "held_out"
    assert only["seed"] == 5


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--target-accuracy", "0.5", "--byte-budget", "10"),
        ("--target-accuracy", "1.5"),
        ("--byte-budget", "0"),
    ],
)
def test_a_search_has_one_goal_that_makes_sense(config: Path, options: tuple[str, ...]) -> None:
    error = search(config, *options).exception
    assert isinstance(error, CliError)
    assert error.exit_code is ExitCode.USAGE
    assert not (config.parent / "out").exists()


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("search.rank=[1]", "search has no setting 'rank'"),
        ("search.densities=[1.5]", "search.densities"),
        ("ending.rounds=0", "ending.rounds"),
        ("partition.name=fair", "partition.name"),
        ('tiers=[{"name": "small"}]', "leave out tiers"),
    ],
)
def test_settings_that_do_not_fit_are_told_before_anything_runs(
    config: Path, assignment: str, told: str
) -> None:
    error = search(config, "--byte-budget", "10", "--set", assignment).exception
    assert isinstance(error, CliError)
    assert told in error.message
    assert not (config.parent / "out").exists()
