"""What the API exports, loaded by PEFT itself."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator_service.app.import_adapter import read_adapter
from aggregator_service.domain.downloads import Masters, select_download
from aggregator_service.domain.tasks import TaskConfig
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from tests.builders import a_config
from tests.support.operator import Operator, task_parts

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")


def a_base_model() -> Any:
    """A model with a layer to adapt and a head to train whole; the same every time."""
    torch.manual_seed(7)
    model = torch.nn.Sequential()
    model.add_module("body", torch.nn.Linear(6, 8))
    model.add_module("head", torch.nn.Linear(8, 3))
    return model


def an_adapted_model(config: Any) -> Any:
    return peft.get_peft_model(a_base_model(), config)


def trainable(model: Any) -> dict[str, Any]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def role_of(name: str) -> Role:
    for part, role in (("lora_A", Role.LORA_A), ("lora_B", Role.LORA_B)):
        if part in name:
            return role
    return Role.HEAD


@pytest.fixture
def lora() -> Any:
    return peft.LoraConfig(r=2, lora_alpha=2, target_modules=["body"], modules_to_save=["head"])


@pytest.fixture
def config(lora: Any) -> TaskConfig:
    tensors = trainable(an_adapted_model(lora))
    layout = AdapterLayout(
        tensors=tuple(
            TensorSpec(name=name, shape=tuple(tensor.shape), role=role_of(name))
            for name, tensor in tensors.items()
        )
    )
    text = json.dumps(lora.to_dict(), default=sorted)
    return a_config(
        layout=layout,
        peft_config_json=text,
        method=Flasc(download_density=0.25, upload_density=0.25),
    )


@pytest.mark.parametrize("kind", ["masked", "master"])
def test_peft_loads_an_exported_folder_tensor_by_tensor(
    memory_store: Store,
    blobs: BlobStore,
    config: TaskConfig,
    tmp_path: Path,
    kind: str,
) -> None:
    layout = config.layout
    weights = np.random.default_rng(3).normal(size=layout.dim).astype(np.float32)
    operator = Operator(memory_store, blobs)
    created = operator.post("/v1/tasks", files=task_parts("tiny", config, weights))
    assert created.status_code == 201

    answer = operator.get(f"/v1/tasks/tiny/adapters/latest/peft.zip?weights={kind}")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path)
    model = peft.PeftModel.from_pretrained(a_base_model(), str(tmp_path), is_trainable=True)

    masked = select_download(config, Masters(weights=weights, plan=config.plan(0))).to_dense()
    wanted = layout.split(masked if kind == "masked" else weights)
    loaded = {name: tensor.detach().numpy() for name, tensor in trainable(model).items()}
    assert loaded.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert np.array_equal(loaded[name], tensor), name


def test_a_folder_that_peft_saved_comes_in_as_it_went_out(
    lora: Any, config: TaskConfig, tmp_path: Path
) -> None:
    model = an_adapted_model(lora)
    with torch.no_grad():
        for n, tensor in enumerate(trainable(model).values()):
            tensor.fill_(n + 0.5)
    model.save_pretrained(str(tmp_path))

    weights = read_adapter(config.layout, (tmp_path / "adapter_model.safetensors").read_bytes())

    wanted = {name: tensor.detach().numpy() for name, tensor in trainable(model).items()}
    assert np.array_equal(weights, config.layout.join(wanted))
