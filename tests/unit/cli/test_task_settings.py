"""Presets, and what options and assignments make of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aggregator_service.domain.privacy import Privacy
from flasc_cli.demo.settings import DemoSettings, DeviceSettings
from flasc_cli.errors import CliError, ExitCode
from flasc_cli.task_settings import (
    PresetName,
    changed_sections,
    file_settings,
    preset_settings,
    privacy_changes,
    task_config,
)
from flasc_core.base import InitialBase, ZeroBase
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.server_update import Sgd
from flasc_sim.blueprint import Blueprint

LAYOUT = AdapterLayout(
    tensors=(
        TensorSpec(name="a", shape=(2, 8), role=Role.LORA_A),
        TensorSpec(name="b", shape=(8, 2), role=Role.LORA_B),
        TensorSpec(name="head", shape=(4,), role=Role.HEAD),
    )
)
BLUEPRINT = Blueprint(
    base_model_name="made@float32",
    base_model_sha256=bytes(32),
    layout=LAYOUT,
    weights=np.zeros(LAYOUT.dim, dtype=np.float32),
    peft_config_json="{}",
)


@pytest.mark.parametrize("preset", PresetName)
def test_every_preset_is_a_task_as_it_is(preset: PresetName) -> None:
    config = task_config(BLUEPRINT, preset_settings(preset).sections, seed=3)
    assert config.training.momentum == 0.9


def test_the_papers_preset_fixes_alpha_and_the_default_one_follows_the_rank() -> None:
    assert preset_settings(PresetName.PAPER).alpha == 16
    assert preset_settings(PresetName.DEFAULT).alpha is None


def test_the_default_preset_sends_the_head_densely_and_the_papers_ranks_it_with_the_rest() -> None:
    methods = [
        task_config(BLUEPRINT, preset_settings(p).sections, seed=0).method for p in PresetName
    ]
    densities = {
        preset: method.head_density
        for preset, method in zip(PresetName, methods, strict=True)
        if isinstance(method, Flasc)
    }
    assert densities == {PresetName.DEFAULT: 1.0, PresetName.PAPER: None}


def test_what_is_not_given_stays_and_what_is_given_counts() -> None:
    sections = preset_settings(PresetName.DEFAULT).sections
    changed = changed_sections(sections, {"ending.rounds": 7, "policy.goal": None})
    assert changed["ending"] == {"rounds": 7}
    assert changed["policy"] == sections["policy"]
    assert sections["ending"] == {"rounds": 100}


def test_an_assignment_sets_any_field_and_counts_over_an_option() -> None:
    changed = changed_sections(
        preset_settings(PresetName.DEFAULT).sections,
        {"policy.goal": 3},
        ["policy.goal=6", "policy.over_selection=1.5", "ending.final_evaluation=false"],
    )
    assert changed["policy"]["goal"] == 6
    assert changed["policy"]["over_selection"] == 1.5
    assert changed["ending"]["final_evaluation"] is False


@pytest.mark.parametrize("assignment", ["policy.goal", "nowhere.goal=3", "=3", "goal=3"])
def test_an_assignment_of_another_form_is_refused(assignment: str) -> None:
    with pytest.raises(CliError, match=r"write section\.field=value") as refused:
        changed_sections(preset_settings(PresetName.DEFAULT).sections, {}, [assignment])
    assert refused.value.exit_code is ExitCode.USAGE


def test_a_misspelt_field_is_refused_by_its_name() -> None:
    sections = changed_sections(preset_settings(PresetName.DEFAULT).sections, {}, ["policy.gaol=3"])
    with pytest.raises(CliError, match="gaol"):
        task_config(BLUEPRINT, sections, seed=0)


def test_another_optimizer_comes_without_the_first_ones_settings() -> None:
    sections = preset_settings(PresetName.PAPER).sections
    assert (
        task_config(
            BLUEPRINT, changed_sections(sections, {"optimizer.name": "sgd"}), seed=0
        ).optimizer
        == Sgd()
    )
    kept = changed_sections(sections, {"optimizer.name": "adamw"})
    assert kept["optimizer"] == sections["optimizer"]
    adam = changed_sections(sections, {"optimizer.name": "adam", "optimizer.learning_rate": 0.5})
    assert adam["optimizer"] == {"name": "adam", "learning_rate": 0.5}


def test_a_head_density_of_zero_ranks_the_head_with_the_rest() -> None:
    sections = preset_settings(PresetName.DEFAULT).sections
    changed = changed_sections(sections, {"method.head_density": 0.0})
    assert changed["method"]["head_density"] is None


def test_a_density_that_keeps_nothing_is_refused_before_anything_is_sent() -> None:
    sections = changed_sections(
        preset_settings(PresetName.DEFAULT).sections, {"method.upload_density": 0.001}
    )
    with pytest.raises(CliError, match="keeps none"):
        task_config(BLUEPRINT, sections, seed=0)


def test_a_devices_settings_come_back_from_a_file_that_only_its_owner_reads(
    tmp_path: Path,
) -> None:
    demo = DemoSettings(
        rounds=2,
        devices=3,
        rank=4,
        dataset="debian-sections",
        data=None,
        model="minilm",
        dtype="float32",
        download_density=0.25,
        upload_density=0.5,
        encoding="int6",
        base="initial",
        max_steps=1,
        held_out=5,
        seed=0,
    )
    device = DeviceSettings(
        index=1,
        addresses={"demo": "127.0.0.1:1", "demo-dense": "127.0.0.1:2"},
        credential="fld_x",
        state_folder="x",
        demo=demo,
    )
    path = tmp_path / "device.json"
    device.write(path)
    assert DeviceSettings.read(path) == device
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_default_preset_is_compact_both_ways_and_relative_to_an_adapter_of_the_seed() -> None:
    config = task_config(BLUEPRINT, preset_settings(PresetName.DEFAULT).sections, seed=9)
    assert config.encodings.download.name == "int6"
    assert [encoding.name for encoding in config.encodings.updates] == ["int6"]
    assert config.base == InitialBase(seed=9)
    paper = task_config(BLUEPRINT, preset_settings(PresetName.PAPER).sections, seed=9)
    assert paper.encodings.download.name == "float32"
    assert paper.base == ZeroBase()


def test_a_base_of_another_name_comes_without_the_first_ones_seed() -> None:
    sections = preset_settings(PresetName.DEFAULT).sections
    seeded = changed_sections(sections, {}, ["base.seed=4"])
    assert task_config(BLUEPRINT, seeded, seed=9).base == InitialBase(seed=4)
    zero = changed_sections(seeded, {"base.name": "zero"})
    assert task_config(BLUEPRINT, zero, seed=9).base == ZeroBase()


def test_a_task_is_private_by_json_by_assignments_or_by_both() -> None:
    sections = preset_settings(PresetName.DEFAULT).sections
    assert task_config(BLUEPRINT, sections, seed=0).privacy is None
    given = privacy_changes('{"noise_multiplier": 1.0, "epsilon": 20, "delta": 1e-6}')
    changed = changed_sections(
        sections, given, ["privacy.clip_norm=0.5", "privacy.max_participations=3"]
    )
    privacy = task_config(BLUEPRINT, changed, seed=0).privacy
    assert privacy == Privacy(
        clip_norm=0.5, noise_multiplier=1.0, epsilon=20.0, delta=1e-6, max_participations=3
    )


@pytest.mark.parametrize("text", ["[1]", "strict"])
def test_privacy_that_is_no_object_is_wrong_usage(text: str) -> None:
    with pytest.raises(CliError, match="no JSON object"):
        privacy_changes(text)


def written(folder: Path, text: str) -> Path:
    file = folder / "task.toml"
    file.write_text(text)
    return file


TASK = """
[model]
model = "./own"
dtype = "float32"
layers_without_adapter = 4

[adapter]
rank = 4
alpha = 8
dropout = 0
target_modules = ["query"]

[method]
name = "head_only"

[policy]
goal = 40
"""


def test_a_settings_file_takes_the_place_of_the_presets_sections(tmp_path: Path) -> None:
    preset = preset_settings(PresetName.DEFAULT)
    settings = file_settings(preset, written(tmp_path, TASK))
    assert (settings.model, settings.dtype) == ("./own", "float32")
    assert settings.layers_without_adapter == 4
    assert (settings.rank, settings.alpha, settings.dropout) == (4, 8, 0)
    assert settings.target_modules == ["query"]
    assert settings.sections["method"] == {"name": "head_only"}
    assert settings.sections["optimizer"] == preset.sections["optimizer"]
    # What a simulation knows nothing of stays as the preset has it.
    assert settings.sections["policy"] == {"goal": 40, "quorum": 5, "window_seconds": 3600.0}
    assert preset.sections["policy"]["goal"] == 10


def test_an_empty_settings_file_changes_nothing(tmp_path: Path) -> None:
    preset = preset_settings(PresetName.PAPER)
    assert file_settings(preset, written(tmp_path, "")) == preset


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[broken", "task.toml"),
        ("[workload]\nname = 1\n", "no section 'workload'"),
        ("[adapter]\nrnk = 1\n", "adapter has no 'rnk'"),
        ("[adapter]\nrank = true\n", "adapter.rank is not True"),
        ("[adapter]\nrank = 1.5\n", "adapter.rank is not 1.5"),
        ("adapter = 1\n", "adapter must be a section"),
        ('[model]\ndtype = "int4"\n', "model.dtype is no 'int4'"),
    ],
)
def test_a_settings_file_that_does_not_fit_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(CliError, match=told) as raised:
        file_settings(preset_settings(PresetName.DEFAULT), written(tmp_path, text))
    assert raised.value.exit_code is ExitCode.USAGE


def test_a_settings_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"absent\.toml"):
        file_settings(preset_settings(PresetName.DEFAULT), tmp_path / "absent.toml")


TIERS = [{"name": "phone", "method": {"name": "head_only"}}]


def test_tiers_come_from_a_file_or_a_list(tmp_path: Path) -> None:
    file = tmp_path / "task.toml"
    file.write_text('[[tiers]]\nname = "phone"\nmethod = { name = "head_only" }\n')
    preset = preset_settings(PresetName.DEFAULT)
    read = file_settings(preset, file).sections
    changed = changed_sections(preset.sections, {}, [f"tiers={json.dumps(TIERS)}"])
    for sections in (read, changed):
        assert sections["tiers"] == TIERS
        assert task_config(BLUEPRINT, sections, seed=0).tier_names == ("", "phone")


@pytest.mark.parametrize("assignment", ["tiers=phone", "tiers.phone=1"])
def test_tiers_that_are_no_list_are_refused(assignment: str) -> None:
    with pytest.raises(CliError, match="JSON list"):
        changed_sections(preset_settings(PresetName.DEFAULT).sections, {}, [assignment])
