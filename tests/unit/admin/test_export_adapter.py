"""Adapters as files."""

from __future__ import annotations

import io
import time
import zipfile
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from safetensors.numpy import load

from aggregator_service.app.export_adapter import Export, WeightsKind, peft_name
from aggregator_service.domain.downloads import Masters
from aggregator_service.domain.tasks import Task
from flasc_core.methods import Flasc
from tests.builders import a_config, a_task, an_adapter

MASTER = np.arange(1, 25, dtype=np.float32)


def masters_of(task: Task, version: int = 0) -> Masters:
    return Masters(weights=MASTER, plan=task.config.plan(version))


def an_export(**changes: object) -> Export:
    task = a_task(name="a-task")
    export = Export(task=task, adapter=an_adapter(task), masters=masters_of(task))
    return replace(export, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameter", "saved"),
    [
        ("base_model.model.q.lora_A.default.weight", "base_model.model.q.lora_A.weight"),
        ("base_model.model.e.lora_embedding_A.default", "base_model.model.e.lora_embedding_A"),
        ("base_model.model.head.modules_to_save.default.weight", "base_model.model.head.weight"),
        ("m.head.modules_to_save.default.dense.bias", "m.head.dense.bias"),
        ("m.default.q.lora_A.default.weight", "m.default.q.lora_A.weight"),
        ("weight", "weight"),
    ],
)
def test_tensors_are_named_as_peft_saves_them(parameter: str, saved: str) -> None:
    assert peft_name(parameter) == saved


def test_masked_weights_are_the_largest_and_zero_elsewhere() -> None:
    masked = an_export().weights(WeightsKind.MASKED)

    assert masked.tolist() == [0.0] * 12 + MASTER[12:].tolist()


def test_the_mask_is_that_of_the_round_that_starts_from_the_version() -> None:
    method = Flasc(download_density=0.5, upload_density=0.5, decay=0.5)
    task = a_task(config=a_config(method=method))

    nonzeros = [
        np.count_nonzero(
            an_export(task=task, masters=masters_of(task, version)).weights(WeightsKind.MASKED)
        )
        for version in (0, 1, 2)
    ]

    assert nonzeros == [12, 6, 3]


def test_the_same_version_is_always_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    export = an_export()
    before = {kind: export.peft_zip(kind) for kind in WeightsKind}
    # What a zip would hold of the time it was made, had it not been told another.
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(2_000_000_000))

    for kind in WeightsKind:
        assert export.peft_zip(kind) == before[kind]
        assert export.safetensors(kind) == replace(export).safetensors(kind)


def test_the_card_tells_task_version_base_model_and_which_weights() -> None:
    export = an_export()

    for kind in WeightsKind:
        with zipfile.ZipFile(io.BytesIO(export.peft_zip(kind))) as archive:
            card = archive.read("README.md").decode()
            tensors = archive.read("adapter_model.safetensors")
        assert f"Weights: {kind}" in card
        assert "a-task" in card
        assert "version | 0" in card
        assert export.task.config.base_model.sha256.hex() in card
        assert sha256(tensors).hexdigest() in card


def test_a_tensor_keeps_its_shape_and_bits() -> None:
    tensors = load(an_export().safetensors(WeightsKind.MASTER))

    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "layer.lora_A": (2, 4),
        "layer.lora_B": (4, 2),
        "head": (2, 4),
    }
    assert a_config().layout.join(tensors).tobytes() == MASTER.tobytes()
