"""A recommendation as settings: what it says, and that it is read back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flasc_sim.search.files import recommended_table, task_table, to_toml
from flasc_sim.settings import changed_table, read_settings, read_table
from tests.support.search_table import a_candidate
from tests.support.tiny_workload import a_run

CANDIDATE = a_candidate(8, 0.25, base="zero")
FACTS = {"model": "minilm", "dtype": "float32", "layers_without_adapter": 4, "tokens": 64}


def searched(*assignments: str) -> dict[str, Any]:
    return changed_table(a_run().table, ["evaluation.on=validation", *assignments])


def test_the_recommended_run_is_scored_where_the_search_did_not_look() -> None:
    settings = read_settings(recommended_table(searched(), CANDIDATE), name="any")
    assert settings.name == CANDIDATE.name
    assert settings.evaluation.on == "held_out"
    assert settings.evaluation.scores == 2
    assert settings.adapter.rank == 8


def test_a_file_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    table = recommended_table(
        searched('workload.note="a \\"b\\" ü"', "adapter.x=[1,2.5]"), CANDIDATE
    )
    table["limits"] = {"nested": {"on": True, "small": 5e-05}}
    file = tmp_path / "recommended.toml"
    file.write_text(to_toml(table), encoding="utf-8")
    assert read_table(file) == table


def test_what_is_not_set_is_not_written() -> None:
    assert (
        to_toml({"a": None, "b": {"c": None, "d": {"e": None, "f": 1}}}) == "[b]\nd = { f = 1 }\n"
    )


def test_a_task_has_the_candidate_the_model_and_nothing_of_the_simulation() -> None:
    task = task_table(searched(), CANDIDATE, FACTS)
    assert task["model"] == {"model": "minilm", "dtype": "float32", "layers_without_adapter": 4}
    assert task["adapter"]["rank"] == 8
    assert task["method"]["download_density"] == task["method"]["upload_density"] == 0.25
    assert task["encodings"] == {"download": "int6", "updates": ["int6"]}
    assert task["base"] == {"name": "zero"}
    assert not {"workload", "partition", "evaluation", "seed", "name"} & set(task)


def test_a_round_of_the_task_does_with_half_of_its_goal() -> None:
    for goal, quorum in ((1, 1), (2, 1), (3, 2)):
        table = {**searched(), "policy": {"goal": goal}}
        policy = task_table(table, CANDIDATE, FACTS)["policy"]
        assert policy == {"goal": goal, "quorum": quorum}
    own = {**searched(), "policy": {"goal": 3, "quorum": 3}}
    assert task_table(own, CANDIDATE, FACTS)["policy"]["quorum"] == 3


def test_a_workload_that_tells_no_model_leaves_it_to_the_command() -> None:
    assert "model" not in task_table(searched(), CANDIDATE, {})
