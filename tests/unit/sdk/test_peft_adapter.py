"""A model's adapter as a vector, its base model's digest, and its configuration."""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from client_sdk.peft_trainer import (
    PeftTrainer,
    adapter_layout,
    adapter_weights,
    base_model_sha256,
    load_adapter_weights,
    peft_config_json,
)
from flasc_core.layout import Role
from tests.support.tiny_model import Examples, TinyClassifier, a_base_model, a_peft_model, start_of

# -- the vector


def test_the_layout_is_the_trainable_parameters_in_the_models_order() -> None:
    model = a_peft_model()
    named = [(n, tuple(p.shape)) for n, p in model.named_parameters() if p.requires_grad]
    layout = adapter_layout(model)
    assert [(tensor.name, tensor.shape) for tensor in layout.tensors] == named
    assert [tensor.role for tensor in layout.tensors] == [
        Role.LORA_A,
        Role.LORA_B,
        Role.HEAD,
        Role.HEAD,
    ]


def test_weights_survive_a_round_trip_bit_for_bit() -> None:
    model = a_peft_model()
    vector = start_of(model)
    load_adapter_weights(model, vector)
    assert adapter_weights(model).tobytes() == vector.tobytes()
    joined = adapter_layout(model).join(
        {n: p.detach().numpy() for n, p in model.named_parameters() if p.requires_grad}
    )
    assert joined.tobytes() == vector.tobytes()


def test_reading_weights_copies_them() -> None:
    model = a_peft_model()
    before = adapter_weights(model)
    kept = before.copy()
    load_adapter_weights(model, start_of(model))
    np.testing.assert_array_equal(before, kept)


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_vector_of_another_size_is_not_loaded(difference: int) -> None:
    model = a_peft_model()
    before = adapter_weights(model)
    with pytest.raises(ValueError, match="shape"):
        load_adapter_weights(model, np.zeros(before.size + difference, dtype=np.float32))
    np.testing.assert_array_equal(adapter_weights(model), before)


def test_a_model_that_trains_nothing_is_refused() -> None:
    model = a_peft_model()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="is_trainable"):
        adapter_layout(model)


def test_an_adapter_in_another_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        PeftTrainer(a_peft_model().to(torch.bfloat16), Examples())


# -- the base model's digest


def test_the_digest_is_the_base_models_whatever_lora_and_head_are() -> None:
    digest = base_model_sha256(a_peft_model())
    assert digest == base_model_sha256(a_peft_model(rank=4, dropout=0.5, seed=9))
    other_head = a_base_model()
    nn.init.zeros_(other_head.classifier.weight)
    assert digest == base_model_sha256(a_peft_model(other_head))
    model = a_peft_model()
    load_adapter_weights(model, start_of(model))
    assert digest == base_model_sha256(model)


class Projection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(2, 2)
        with torch.no_grad():
            self.proj.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
            self.proj.bias.copy_(torch.tensor([0.5, -1.0]))


def test_the_digest_of_the_protocols_two_tensors_is_the_one_that_it_tells() -> None:
    content = (
        b"proj.bias float32 2\n"
        + struct.pack("<2f", 0.5, -1)
        + b"proj.weight float32 2x2\n"
        + struct.pack("<4f", 1, 2, 3, 4)
    )
    model = get_peft_model(Projection(), LoraConfig(r=1, target_modules=["proj"]))
    assert base_model_sha256(model) == sha256(content).digest()
    # docs/protocol.md.
    assert base_model_sha256(model).hex() == (
        "e0ab1e97866ce99d6df6b96cd5ef69f11a503152d27f49e2b902ad650335fe9e"
    )


def test_the_digest_does_not_depend_on_which_modules_are_wrapped() -> None:
    wide = LoraConfig(r=1, target_modules=["hidden", "embed"], modules_to_save=["classifier"])
    assert base_model_sha256(get_peft_model(a_base_model(), wide)) == base_model_sha256(
        a_peft_model()
    )


def _halve(base: TinyClassifier) -> None:
    base.half()


def _move_one_weight(base: TinyClassifier) -> None:
    with torch.no_grad():
        base.hidden.weight[0, 0] += 1e-6


def _move_one_buffer(base: TinyClassifier) -> None:
    base.get_buffer("scale").add_(1e-6)


@pytest.mark.parametrize("change", [_halve, _move_one_weight, _move_one_buffer])
def test_the_digest_notices_another_base_model(change: Any) -> None:
    base = a_base_model()
    change(base)
    assert base_model_sha256(a_peft_model(base)) != base_model_sha256(a_peft_model())


# -- the configuration


def test_the_configuration_builds_the_same_layout_elsewhere() -> None:
    model = a_peft_model()
    stored = json.loads(peft_config_json(model))
    assert stored["target_modules"] == ["hidden"]
    rebuilt = get_peft_model(a_base_model(), LoraConfig(**stored))
    assert adapter_layout(rebuilt).fingerprint == adapter_layout(model).fingerprint


def test_the_configuration_names_no_path_of_this_machine(tmp_path: Path) -> None:
    model = a_peft_model()
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "minilm")
    assert json.loads(peft_config_json(model))["base_model_name_or_path"] == "minilm"
    model.peft_config["default"].base_model_name_or_path = "org/minilm"
    assert json.loads(peft_config_json(model))["base_model_name_or_path"] == "org/minilm"
