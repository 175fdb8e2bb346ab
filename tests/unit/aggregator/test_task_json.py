"""Task configurations as JSON: everything comes back, and nothing misspelt gets in."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator_service.domain.rounds import RoundPolicy
from aggregator_service.domain.task_json import Json, config_from_json, config_to_json
from aggregator_service.domain.tasks import (
    BaseModel,
    Ending,
    TaskConfig,
    TrainingPlan,
    UpdateLimits,
)
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.server_update import AdamW, Sgd
from tests.builders import a_config

counts = st.integers(min_value=0, max_value=2**31)
numbers = st.floats(allow_nan=False, allow_infinity=False)
shares = st.floats(min_value=0, max_value=1, exclude_min=True)
decays = st.floats(min_value=0, max_value=1, exclude_max=True)
rates = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
spans = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3_650))
names = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=20)
tensors = st.builds(
    TensorSpec,
    name=names,
    shape=st.lists(st.integers(1, 16), min_size=0, max_size=4).map(tuple),
    role=st.sampled_from(Role),
)
layouts = st.lists(tensors, min_size=1, max_size=4, unique_by=lambda tensor: tensor.name).map(
    lambda chosen: AdapterLayout(tensors=tuple(chosen))
)
configs = st.builds(
    TaskConfig,
    layout=layouts,
    base_model=st.builds(BaseModel, name=st.text(max_size=20), sha256=st.binary(max_size=40)),
    peft_config_json=st.text(max_size=20),
    training=st.builds(
        TrainingPlan,
        learning_rate=numbers,
        batch_size=counts,
        local_epochs=counts,
        max_steps=counts,
        momentum=numbers,
        weight_decay=numbers,
    ),
    method=st.builds(
        Flasc,
        download_density=shares,
        upload_density=shares,
        head_density=st.none() | shares,
        decay=shares,
        upload_decay=st.none() | shares,
        decay_every=st.integers(1, 100),
        clip_norm=st.floats(min_value=0, allow_infinity=False),
    ),
    optimizer=st.builds(Sgd, learning_rate=rates, momentum=decays)
    | st.builds(AdamW, learning_rate=rates, beta1=decays, beta2=decays, epsilon=rates),
    policy=st.builds(
        RoundPolicy,
        goal=counts,
        quorum=counts,
        window=spans,
        over_selection=numbers,
        minimum_cohort=counts,
        minimum_separation=counts,
        retry_min=spans,
        retry_max=spans,
    ),
    ending=st.builds(
        Ending, rounds=counts, target_accuracy=st.none() | numbers, final_evaluation=st.booleans()
    ),
    limits=st.builds(UpdateLimits, max_abs_value=numbers, max_weight=counts, largest_cohort=counts),
    fold_shards=counts,
)


@given(config=configs)
def test_every_configuration_comes_back_from_its_text(config: TaskConfig) -> None:
    text = json.dumps(config_to_json(config))
    assert config_from_json(json.loads(text)) == config


def sound() -> dict[str, Json]:
    return cast("dict[str, Json]", json.loads(json.dumps(config_to_json(a_config()))))


def changed(path: str, value: Json) -> dict[str, Json]:
    data: Any = sound()
    *folders, name = path.split(".")
    target = data
    for folder in folders:
        target = target[folder]
    target[name] = value
    return cast("dict[str, Json]", data)


def without(path: str) -> dict[str, Json]:
    data: Any = sound()
    *folders, name = path.split(".")
    target = data
    for folder in folders:
        target = target[folder]
    del target[name]
    return cast("dict[str, Json]", data)


def refusal_of(data: dict[str, Json]) -> Refusal:
    with pytest.raises(Refusal) as refused:
        config_from_json(data)
    return refused.value


OBJECTS = ("base_model", "training", "method", "optimizer", "policy", "ending", "limits")


@pytest.mark.parametrize("where", ["", *(f"{name}." for name in OBJECTS)])
def test_an_unknown_field_is_refused_by_name(where: str) -> None:
    refusal = refusal_of(changed(f"{where}goall", 3))
    assert refusal.reason is Reason.CONFIGURATION
    assert "goall" in refusal.message


@pytest.mark.parametrize(
    "path",
    [
        "layout",
        "base_model",
        "base_model.name",
        "base_model.sha256",
        "peft_config_json",
        "training",
        "training.learning_rate",
        "method",
        "method.name",
        "optimizer",
        "optimizer.name",
        "policy",
        "policy.goal",
        "policy.quorum",
        "policy.window_seconds",
        "ending",
        "ending.rounds",
    ],
)
def test_a_missing_field_is_refused_by_name(path: str) -> None:
    refusal = refusal_of(without(path))
    assert refusal.reason is Reason.CONFIGURATION
    assert path.rsplit(".", maxsplit=1)[-1].removesuffix("_seconds") in refusal.message


@pytest.mark.parametrize("path", ["limits", "fold_shards", "limits.max_weight"])
def test_a_field_with_a_default_may_be_left_out(path: str) -> None:
    assert config_from_json(without(path)) == a_config()


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("value", [None, 3, "text", []])
def test_what_is_to_be_an_object_is_refused_as_anything_else(name: str, value: Json) -> None:
    refusal = refusal_of(changed(name, value))
    assert refusal.reason is Reason.CONFIGURATION
    assert name in refusal.message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("peft_config_json", {}),
        ("fold_shards", 1.0),
        ("fold_shards", True),
        ("fold_shards", "1"),
        ("base_model.name", 3),
        ("base_model.sha256", 3),
        ("base_model.sha256", "no hexadecimal digits"),
        ("training.batch_size", 16.0),
        ("training.batch_size", None),
        ("training.learning_rate", "fast"),
        ("training.learning_rate", True),
        ("training.learning_rate", 10**400),
        ("policy.goal", 3.5),
        ("policy.goal", True),
        ("policy.window_seconds", "600"),
        ("policy.window_seconds", None),
        ("policy.window_seconds", math.nan),
        ("policy.window_seconds", math.inf),
        ("policy.window_seconds", 10**400),
        ("policy.retry_min_seconds", -1e300),
        ("ending.rounds", "ten"),
        ("ending.target_accuracy", "high"),
        ("ending.final_evaluation", 1),
        ("limits.max_abs_value", []),
        ("limits.max_weight", 1.5),
    ],
)
def test_an_ill_typed_field_is_refused_by_name(path: str, value: Json) -> None:
    refusal = refusal_of(changed(path, value))
    assert refusal.reason is Reason.CONFIGURATION
    assert path.rsplit(".", maxsplit=1)[-1] in refusal.message


@pytest.mark.parametrize("name", ["window", "retry_min", "retry_max"])
def test_a_time_without_its_unit_is_an_unknown_field(name: str) -> None:
    assert name in refusal_of(changed(f"policy.{name}", 600)).message


@pytest.mark.parametrize("value", [None, "text", {}, [], [3], [{"name": "a", "shape": [0]}]])
def test_a_layout_that_is_none_is_refused(value: Json) -> None:
    assert refusal_of(changed("layout", value)).reason in (
        Reason.FIELD_RANGE,
        Reason.FIELD_REQUIRED,
    )


def test_reading_leaves_the_caller_s_data_alone() -> None:
    data = sound()
    config_from_json(data)
    assert data == sound()
