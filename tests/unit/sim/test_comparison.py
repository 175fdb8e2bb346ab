"""Runs beside each other: means and deviations over seeds, and a page that needs nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean, stdev

import pytest

from client_sdk import TrainingFailed
from flasc_sim.comparison import compare, curve_of, find_failures, find_runs
from flasc_sim.comparison_report import write_report
from flasc_sim.run_folder import RunFolder, run
from tests.support.tiny_workload import a_run, a_workload

DENSE = 'method={"name": "flasc", "download_density": 1.0, "upload_density": 1.0}'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a sparse configuration and one of a dense one, three rounds each."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in {
        "sparse/seed1": ["seed=1", "name=sparse <b>"],
        "sparse/seed2": ["seed=2", "name=sparse <b>"],
        "dense/seed1": ["seed=1", "name=dense", DENSE],
    }.items():
        settings = a_run("ending.rounds=3", "evaluation.every=1", *changes)
        run(settings, a_workload, RunFolder(path=folder / name))
    return folder


def test_seeds_of_one_name_make_one_row(runs: Path) -> None:
    rows = {row.name: row for row in compare(find_runs([runs]))}
    sparse, dense = rows["sparse <b>"], rows["dense"]
    scores = [
        json.loads(file.read_text())["accuracy"] for file in runs.rglob("sparse/*/result.json")
    ]
    assert sparse.seeds == (1, 2)
    assert sparse.accuracy == pytest.approx(fmean(scores))
    assert sparse.accuracy_deviation == pytest.approx(stdev(scores))
    assert dense.accuracy_deviation is None
    assert sparse.payload_bytes_up < dense.payload_bytes_up
    assert sparse.saving > dense.saving
    assert sum(dense.shares_down.values()) == pytest.approx(1)


def test_a_lower_rank_saves_what_a_higher_one_would_send(runs: Path, tmp_path: Path) -> None:
    low = a_run("ending.rounds=3", "name=low", "adapter.rank=1", DENSE)
    run(low, a_workload, RunFolder(path=tmp_path / "low"))
    alone = {row.name: row for row in compare(find_runs([tmp_path]))}["low"]
    beside = {row.name: row for row in compare(find_runs([tmp_path, runs]))}
    higher = beside["dense"]
    assert beside["low"].saving == pytest.approx(
        alone.saving * higher.parameters / alone.parameters
    )


def test_rows_come_best_first(runs: Path) -> None:
    accuracies = [row.accuracy for row in compare(find_runs([runs]))]
    assert accuracies == sorted(accuracies, reverse=True)


def test_a_curve_tells_the_mean_accuracy_after_each_round_that_was_scored(runs: Path) -> None:
    curve = curve_of("sparse <b>", find_runs([runs / "sparse"]))
    assert curve.rounds == (1, 2, 3)
    first, _, last = curve.accuracies
    # A run's accuracy is the mean of its last two scores, two rounds apart.
    (row,) = compare(find_runs([runs / "sparse"]))
    assert (first + last) / 2 == pytest.approx(row.accuracy)


def test_one_name_for_two_configurations_is_refused(runs: Path, tmp_path: Path) -> None:
    settings = a_run("name=dense", "seed=2", "ending.rounds=3", "evaluation.every=1")
    run(settings, a_workload, RunFolder(path=tmp_path / "other"))
    with pytest.raises(ValueError, match="'dense' differ in more than their seed"):
        compare(find_runs([runs, tmp_path]))


def test_a_seed_that_is_there_twice_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "dense", tmp_path / "copy")
    with pytest.raises(ValueError, match="'dense' is there twice"):
        compare(find_runs([runs, tmp_path]))


def test_one_name_for_two_data_sets_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "dense" / "seed1", tmp_path / "seed2")
    file = tmp_path / "seed2" / "result.json"
    result = json.loads(file.read_text())
    file.write_text(json.dumps({**result, "seed": 2, "workload": {"name": "another"}}))
    with pytest.raises(ValueError, match="different data"):
        compare(find_runs([runs, tmp_path]))


def test_validation_rows_are_not_compared_with_held_out_ones(runs: Path, tmp_path: Path) -> None:
    run(a_run("evaluation.on=validation"), a_workload, RunFolder(path=tmp_path / "other"))
    with pytest.raises(ValueError, match="validation rows"):
        compare(find_runs([runs, tmp_path]))


def test_runs_that_failed_are_told(runs: Path, tmp_path: Path) -> None:
    wild = a_run("name=wild", "training.learning_rate=1e5")
    with pytest.raises(TrainingFailed):
        run(wild, a_workload, RunFolder(path=tmp_path / "wild"))
    (failed,) = find_failures([tmp_path])
    assert (failed.name, failed.seed, failed.round) == ("wild", 3, 1)
    assert failed.reason
    # Beside others it is no mistake; alone there is nothing to compare.
    assert compare(find_runs([runs, tmp_path])) == compare(find_runs([runs]))
    with pytest.raises(ValueError, match="none of the runs"):
        find_runs([tmp_path])


def test_a_folder_without_a_finished_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished run"):
        find_runs([tmp_path])


def test_the_page_stands_alone_and_names_are_text(runs: Path, tmp_path: Path) -> None:
    write_report(find_runs([runs]), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "sparse &lt;b&gt;" in page
    assert "sparse <b>" not in page
    assert "src=" not in page
    assert 'href="http' not in page
    assert json.loads((tmp_path / "comparison.json").read_text())[0]["seeds"]


def test_a_report_needs_no_records_of_rounds(runs: Path, tmp_path: Path) -> None:
    kept = shutil.copytree(runs, tmp_path / "kept", ignore=shutil.ignore_patterns("rounds.*"))
    one = write_report(find_runs([runs]), tmp_path / "one")
    other = write_report(find_runs([kept]), tmp_path / "other")
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


def test_a_run_whose_scores_are_missing_is_named_and_nothing_written(
    runs: Path, tmp_path: Path
) -> None:
    kept = shutil.copytree(runs, tmp_path / "kept", ignore=shutil.ignore_patterns("evaluations.*"))
    found = find_runs([kept])
    assert compare(found) == compare(find_runs([runs]))
    told = r"/seed1 has no evaluations\.parquet, .* bring it back, or write no report"
    with pytest.raises(FileNotFoundError, match=told):
        write_report(found, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_equal_runs_give_an_equal_report(runs: Path, tmp_path: Path) -> None:
    one = write_report(find_runs([runs]), tmp_path / "one")
    other = write_report(find_runs([runs]), tmp_path / "other")
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]
