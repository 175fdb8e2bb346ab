"""A run's settings: read from TOML, changed by the command line, checked to the last key."""

from __future__ import annotations

from pathlib import Path

import pytest

from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_sim.partition import Dirichlet
from flasc_sim.settings import (
    EvaluationPlan,
    RunSettings,
    SettingsError,
    changed_table,
    read_settings,
    read_table,
)
from tests.support.tiny_workload import a_run

TOML = """
[workload]
name = "newsgroups"
tokens = 32

[partition]
name = "dirichlet"
clients = 350
concentration = 0.1

[training]
learning_rate = 0.3

[method]
name = "flasc"
download_density = 0.25
upload_density = 0.25

[optimizer]
name = "adamw"
learning_rate = 5e-3

[policy]
goal = 4

[ending]
rounds = 100
"""
LAYOUT = AdapterLayout(tensors=(TensorSpec(name="a", shape=(8,), role=Role.LORA_A),))


def read(folder: Path, text: str = TOML) -> RunSettings:
    file = folder / "quarter.toml"
    file.write_text(text)
    return read_settings(read_table(file), name=file.stem)


def config_of(settings: RunSettings) -> object:
    return settings.task_config(
        LAYOUT, base_model_name="m", base_model_sha256=bytes(32), peft_config_json="{}"
    )


def test_a_file_becomes_values_and_what_it_leaves_out_has_defaults(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert (settings.name, settings.seed) == ("quarter", 0)
    assert settings.workload_options == {"tokens": 32}
    assert settings.partition == Dirichlet(clients=350, concentration=0.1)
    assert settings.adapter.lora_alpha == settings.adapter.rank == 16
    assert settings.evaluation == EvaluationPlan()


def test_task_tables_make_the_configuration_that_a_service_would_run(tmp_path: Path) -> None:
    config = read(tmp_path).task_config(
        LAYOUT, base_model_name="m", base_model_sha256=bytes(32), peft_config_json="{}"
    )
    assert config.policy.goal == config.policy.quorum == 4
    assert config.ending.rounds == 100
    assert config.training.learning_rate == 0.3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TOML + "[colour]\nred = 1\n", "no setting 'colour'"),
        (TOML + "[adapter]\nrnk = 1\n", "adapter has no setting 'rnk'"),
        (TOML.replace("clients = 350", 'clients = "many"'), "partition.clients must be a whole"),
        (TOML.replace('name = "dirichlet"', 'name = "fair"'), "partition.name is one of"),
        (TOML.replace('name = "newsgroups"', ""), "workload.name is missing"),
        (TOML + "[evaluation]\nscores = 0\n", "scores and step are at least 1"),
        ("seed = -1\n" + TOML, "seed must be"),
        ("training = 3\n", "policy|workload.name"),
        (TOML + "[adapter]\nrank = 0\n", "adapter.rank and adapter.alpha are at least 1"),
        (TOML + "[adapter]\nalpha = 0\n", "adapter.rank and adapter.alpha are at least 1"),
        (TOML + "[adapter]\ndropout = 1.0\n", r"adapter.dropout .* below 1, not 1\.0"),
        (TOML + "[adapter]\ndropout = -0.1\n", "adapter.dropout is at least 0"),
        (TOML + "[adapter]\ndropout = nan\n", "adapter.dropout is at least 0"),
        (TOML + "[adapter]\ntarget_modules = []\n", "adapter.target_modules names"),
        ("[broken", "quarter.toml"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "name", ["../../x", "a/../../x", "/etc", "..", ".", "a//b", "a/", "./a", "a\\\\b"]
)
def test_a_name_that_would_leave_the_folder_of_all_runs_is_refused(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(SettingsError, match="name must be a folder's"):
        read(tmp_path, f'name = "{name}"\n' + TOML)


def test_a_name_may_be_of_several_folders(tmp_path: Path) -> None:
    assert read(tmp_path, 'name = "debian/flasc-1.4"\n' + TOML).name == "debian/flasc-1.4"


PRIVATE = (
    'privacy={"mode":"FIXED_SIZE","population":%d,"clip_norm":0.1,"noise_multiplier":2.0,'
    '"delta":1e-3,"epsilon":%s}'
)


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("method.download_densty=0.5", "download_densty"),
        ("method.upload_density=0", "upload_density must be above 0, not 0"),
        ('method={"name":"hetlora","rank":17}', "rank 17 is above the 16"),
        ('method={"name":"ffa_lora"}', "set the base to initial"),
        ('tiers=[{"name":"One","method":{"name":"head_only"}}]', "tier name"),
        ("training.learning_rate=-1", "learning_rate must be positive"),
        ("policy.goal=351", "policy.goal is 351, and there are 350 clients"),
        ("ending.target_accuracy=0.9", "leave out ending.target_accuracy"),
        (PRIVATE % (351, 500), "population must be at most the 350 clients"),
        (PRIVATE % (350, 0.6), "100 rounds cost"),
        ("workload.tokens=0", "workload.tokens is at least 1"),
        ("workload.colour=1", "workload has no setting 'colour'"),
        ("workload.name=weather", "workload 'weather' is unknown"),
    ],
)
def test_what_no_data_or_model_could_mend_is_told_without_them(
    tmp_path: Path, assignment: str, told: str
) -> None:
    read(tmp_path).check()
    table = changed_table(read(tmp_path).table, [assignment, "policy.quorum=1"])
    with pytest.raises(SettingsError, match=told):
        read_settings(table, name="any").check()


def test_what_only_data_and_model_can_tell_is_not_refused_without_them(tmp_path: Path) -> None:
    owners = changed_table(read(tmp_path).table, ['partition={"name":"owners"}', "policy.goal=999"])
    read_settings(owners, name="any").check()
    sparse = [f"method.{way}load_density=1e-8" for way in ("down", "up")]
    read_settings(changed_table(owners, sparse), name="any").check()
    wide = changed_table(owners, ["adapter.rank=4096"])
    read_settings(wide, name="any").check()


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("method.download_densty=0.5", "download_densty"),
        ("training.learning_rate=-1", "learning_rate must be positive"),
        ("ending.rounds=0", "rounds must be at least 1"),
    ],
)
def test_a_task_table_that_does_not_fit_is_named(assignment: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        config_of(a_run(assignment))


def test_assignments_change_one_value_or_a_whole_section() -> None:
    table = {"method": {"name": "flasc", "download_density": 0.5}, "seed": 0}
    changed = changed_table(
        table, ["method.download_density=0.25", "seed=4", "base.name=initial", "name=b"]
    )
    assert changed["method"] == {"name": "flasc", "download_density": 0.25}
    assert (changed["seed"], changed["base"], changed["name"]) == (4, {"name": "initial"}, "b")
    assert changed_table(table, ['method={"name":"dense"}'])["method"] == {"name": "dense"}
    assert table["seed"] == 0


@pytest.mark.parametrize("assignment", ["seed", "=3", "seed.x=3"])
def test_an_assignment_that_makes_no_sense_is_refused(assignment: str) -> None:
    with pytest.raises(SettingsError, match="--set"):
        changed_table({"seed": 0}, [assignment])


def test_an_initial_base_is_drawn_by_the_runs_seed_unless_it_has_its_own() -> None:
    assert a_run("seed=5", "base.name=initial").table["base"] == {"name": "initial", "seed": 5}
    own = a_run("seed=5", 'base={"name":"initial","seed":9}')
    assert own.table["base"] == {"name": "initial", "seed": 9}


def test_evaluations_are_the_last_ones_and_those_of_the_curve() -> None:
    plan = EvaluationPlan(scores=3, step=2, every=4)
    assert [done for done in range(1, 11) if plan.due(done, 10)] == [4, 6, 8, 10]
    assert plan.final(10) == {6, 8, 10}
    assert EvaluationPlan(scores=5, step=2).final(3) == {1, 3}
