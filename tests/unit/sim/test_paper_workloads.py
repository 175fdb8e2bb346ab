"""The paper's four tasks, from small files of the form that hubs and authors have them in."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from client_sdk.peft_trainer import PeftTrainer, adapter_layout, adapter_weights
from client_sdk.trainer import Evaluation, TrainingPlan
from flasc_core.json_value import JsonValue
from flasc_core.layout import Role
from flasc_sim.image_models import ImageClassifier, count_micro_f1, predict_classes
from flasc_sim.workload import AdapterShape, Sources, Workload, load_workload
from tests.support.tiny_encoders import GPT2, VIT, a_mobilenet_file, an_encoder, save_encoder

PLAN = TrainingPlan(
    local_epochs=1, max_steps=0, batch_size=4, learning_rate=0.1, momentum=0.9, weight_decay=0.0
)
Options = dict[str, JsonValue]


def a_picture(row: int) -> bytes:
    written = io.BytesIO()
    noise = np.random.default_rng(row).integers(256, size=(16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(written, "PNG")
    return written.getvalue()


def cifar10(folder: Path) -> tuple[Options, Sources]:
    columns = {
        "split": ["train"] * 10 + ["test"] * 4,
        "label": [row % 10 for row in range(14)],
        "jpg": [a_picture(row) for row in range(14)],
    }
    pq.write_table(pa.table(columns), folder / "copy.parquet")
    a_mobilenet_file(folder / "weights.safetensors")
    sources = Sources(data=folder / "copy.parquet", weights=folder / "weights.safetensors")
    return {"pixels": 64, "frozen_layers": 9, "scored": 3}, sources


def flair(folder: Path) -> tuple[Options, Sources]:
    for split, rows in (("train", 8), ("val", 3), ("test", 4)):
        columns = {
            "image": [{"bytes": a_picture(row), "path": "any"} for row in range(rows)],
            "user_id": [f"{split}{row // 2}" for row in range(rows)],
            "labels": [["food"] if row % 2 else ["art", "plant"] for row in range(rows)],
        }
        pq.write_table(pa.table(columns), folder / f"{split}-00000-of-00001.parquet")
    model = str(save_encoder(VIT, folder / "vit"))
    return {"model": model, "pixels": 16, "frozen_layers": 2}, Sources(data=folder)


def newsgroups(folder: Path) -> tuple[Options, Sources]:
    texts = ["1 2 3", "4 5 6 7 8", "9", "2 4 6"] * 5
    columns = {
        "text": texts,
        "label": [row % 2 for row in range(20)],
        "split": ["train"] * 15 + ["test"] * 5,
    }
    pq.write_table(pa.table(columns), folder / "corpus.parquet")
    model = str(save_encoder(GPT2, folder / "gpt2"))
    options: Options = {"model": model, "pooling": "last", "tokens": 4, "frozen_layers": 2}
    return options, Sources(data=folder / "corpus.parquet")


def reddit(folder: Path) -> tuple[Options, Sources]:
    for name, users in (("train_clients", 3), ("eval_clients", 2)):
        written = {f"{name}{user}": {"x": ["1 2 3 4", "5", "6 7"]} for user in range(users)}
        said = {"users": [*written], "user_data": written}
        (folder / f"{name}.json").write_text(json.dumps(said))
    model = str(save_encoder(GPT2, folder / "gpt2"))
    return {"model": model, "tokens": 8, "frozen_layers": 2}, Sources(data=folder)


# The names of the first layer's weights.
LOWEST = re.compile(r"\b(h\.0|layer\.0|conv1)\.")
Made = Callable[[Path], tuple[Options, Sources]]
TASKS: dict[str, Made] = {
    "cifar10": cifar10,
    "flair": flair,
    "newsgroups": newsgroups,
    "reddit": reddit,
}


def trained(workload: Workload) -> tuple[NDArray[np.float32], Evaluation]:
    model = workload.build(AdapterShape(rank=2), 0)
    trainer = PeftTrainer(
        model,
        workload.train,
        workload.held_out,
        collate=workload.collate,
        loss=workload.loss,
        predict=workload.predict,
        count=workload.count,
    )
    # Away from the initial adapter, whose B is zero.
    start = adapter_weights(model) + np.float32(0.01)
    update = trainer.train(start, PLAN, 5, lambda step, total: None).update
    score = trainer.evaluate(start)
    assert score is not None
    return update, score


@pytest.mark.parametrize("task", TASKS)
def test_computing_frozen_layers_once_changes_nothing(task: str, tmp_path: Path) -> None:
    options, sources = TASKS[task](tmp_path)
    kept = Sources(data=sources.data, weights=sources.weights, cache=tmp_path / "cache")
    single = {**options, "dtype": "float32"}

    always, always_score = trained(load_workload(task, {**single, "cached": False}, sources))
    once, once_score = trained(load_workload(task, single, kept))
    again, again_score = trained(load_workload(task, single, kept))

    assert np.abs(always).max() > 1e-4
    # The examples that share a batch differ between the two, and with them the order of sums.
    np.testing.assert_allclose(once, always, rtol=0, atol=2e-5 * float(np.abs(always).max()))
    assert (once_score.correct, once_score.total) == (always_score.correct, always_score.total)
    assert np.array_equal(again, once)
    assert again_score == once_score


@pytest.mark.parametrize("task", ["cifar10", "newsgroups"])
def test_states_that_other_threads_computed_are_not_read(task: str, tmp_path: Path) -> None:
    options, sources = TASKS[task](tmp_path)
    kept = replace(sources, cache=tmp_path / "cache")
    load_workload(task, options, kept)
    of_one = sorted((tmp_path / "cache").iterdir())
    torch.set_num_threads(2)
    try:
        load_workload(task, options, kept)
    finally:
        torch.set_num_threads(1)
    files = {*(tmp_path / "cache").iterdir()}
    assert files > {*of_one}
    load_workload(task, options, kept)
    assert {*(tmp_path / "cache").iterdir()} == files


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="there are no others to compute by"
)
def test_states_that_other_instructions_computed_are_not_read(tmp_path: Path) -> None:
    options, sources = newsgroups(tmp_path)
    kept = replace(sources, cache=tmp_path / "cache")
    load_workload("newsgroups", options, kept)
    files = {*(tmp_path / "cache").iterdir()}
    # Torch reads which it may use when it is imported.
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"""
import torch
from pathlib import Path
from flasc_sim.workload import Sources, load_workload
torch.set_num_threads(1)
sources = Sources(data=Path({str(kept.data)!r}), cache=Path({str(kept.cache)!r}))
load_workload("newsgroups", {options!r}, sources)
""",
        ],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
        check=True,
    )
    assert {*(tmp_path / "cache").iterdir()} > files


def change_one_row(folder: Path) -> None:
    """Swap two rows' texts or images: sizes, labels and owners stay as they are."""
    for file in folder.glob("train_clients.json"):
        file.write_text(file.read_text().replace("1 2 3 4", "1 2 4 3", 1))
    for file in (
        *folder.glob("copy.parquet"),
        *folder.glob("corpus.parquet"),
        *folder.glob("train-*"),
    ):
        table = pq.read_table(file)
        name = next(name for name in ("jpg", "image", "text") if name in table.column_names)
        rows = table.column(name).to_pylist()
        rows[:2] = rows[1::-1]
        at = table.column_names.index(name)
        pq.write_table(table.set_column(at, name, pa.array(rows)), file)


def change_what_is_scored(folder: Path) -> None:
    """Change the labels of rows that score, or the last token of texts: what models get stays."""
    for file in folder.glob("eval_clients.json"):
        file.write_text(file.read_text().replace("1 2 3 4", "1 2 3 5"))
    for file in (*folder.glob("copy.parquet"), *folder.glob("corpus.parquet")):
        table = pq.read_table(file)
        labels = [
            1 - row["label"] % 2 if row["split"] == "test" else row["label"]
            for row in table.select(["label", "split"]).to_pylist()
        ]
        at = table.column_names.index("label")
        pq.write_table(table.set_column(at, "label", pa.array(labels)), file)
    for file in folder.glob("test-*"):
        table = pq.read_table(file)
        at = table.column_names.index("labels")
        labels = table["labels"].to_pylist()
        pq.write_table(table.set_column(at, "labels", pa.array(labels[::-1])), file)


@pytest.mark.parametrize("change", [change_one_row, change_what_is_scored])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_what_rows_hold_and_are_scored_by_is_a_part_of_the_identity(
    task: str, cached: bool, change: Callable[[Path], None], tmp_path: Path
) -> None:
    options, sources = TASKS[task](tmp_path)

    def identity() -> str:
        return load_workload(task, {**options, "cached": cached}, sources).identity()

    before = identity()
    assert identity() == before
    change(tmp_path)
    assert identity() != before


@pytest.mark.parametrize("task", TASKS)
def test_the_layers_that_are_computed_once_are_a_part_of_the_identity(
    task: str, tmp_path: Path
) -> None:
    options, sources = TASKS[task](tmp_path)
    before = load_workload(task, options, sources).identity()
    (file,) = tmp_path.rglob("*.safetensors")
    weights = load_file(file)
    lowest = {name: 2 * value for name, value in weights.items() if LOWEST.search(name)}
    assert lowest
    save_file({**weights, **lowest}, file, metadata={"format": "pt"})
    assert load_workload(task, options, sources).identity() != before


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_a_model_without_a_layer_for_the_adapter_is_refused(
    task: str, cached: bool, tmp_path: Path
) -> None:
    options, sources = TASKS[task](tmp_path)
    layers = 13 if task == "cifar10" else 3

    def made(frozen_layers: int) -> object:
        changed = {**options, "cached": cached, "frozen_layers": frozen_layers}
        return load_workload(task, changed, sources).build(AdapterShape(rank=2), 0)

    made(layers - 1)
    for frozen_layers in (layers, layers + 1):
        with pytest.raises(ValueError, match=f"of the model's {layers} layers, 0 to {layers - 1} "):
            made(frozen_layers)


@pytest.mark.parametrize("task", TASKS)
def test_the_other_dtype_trains_too(task: str, tmp_path: Path) -> None:
    options, sources = TASKS[task](tmp_path)
    update, score = trained(load_workload(task, {**options, "dtype": "bfloat16"}, sources))
    assert np.isfinite(update).all()
    assert score.total > 0


def test_cifar10_s_last_fifth_validates_and_nobody_owns_it(tmp_path: Path) -> None:
    options, sources = cifar10(tmp_path)
    workload = load_workload("cifar10", options, sources)
    assert workload.name == workload.facts["data"] == "CIFAR-10 (JPEG copy)"
    assert workload.owners is None
    assert workload.labels is not None
    assert workload.labels.size == workload.size == 8
    assert workload.facts["validation_rows"] == 2
    assert workload.facts["held_out_rows"] == 3
    layout = adapter_layout(workload.build(AdapterShape(rank=2), 0))
    adapted = {tensor.name.split(".")[4] for tensor in layout.tensors if tensor.role != Role.HEAD}
    assert adapted == {"9", "10", "11", "12"}


def test_flair_s_users_own_their_photographs_and_are_scored_by_micro_f1(tmp_path: Path) -> None:
    options, sources = flair(tmp_path)
    workload = load_workload("flair", options, sources)
    assert workload.labels is None
    assert workload.owners is not None
    assert len(set(workload.owners.tolist())) == 4
    assert workload.facts["validation_rows"] == 3
    assert "F1" in str(workload.facts["score"])
    names = {
        tensor.name.split(".")[-4]
        for tensor in adapter_layout(workload.build(AdapterShape(), 0)).tensors
    }
    assert {"q_proj", "v_proj"} <= names


def test_a_class_is_told_where_its_chance_is_above_a_half() -> None:
    encoder = an_encoder(VIT)
    model = ImageClassifier(encoder, 16, 3, "tiny")
    nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor([0.1, 0.0, -0.1])
    batch = {"pixel_values": torch.zeros(2, 3, 16, 16), "labels": torch.zeros(2, 3)}
    assert predict_classes(model, batch).tolist() == [[1, 0, 0]] * 2


def test_micro_f1_is_a_ratio_of_counts() -> None:
    predicted = torch.tensor([[1, 1, 0], [0, 1, 0]])
    labels = torch.tensor([[1, 0, 0], [1, 1, 0]])
    # Two hits, one false alarm, one miss: F1 is 4 of 6.
    assert count_micro_f1(predicted, labels) == (4, 6)
    assert count_micro_f1(labels, labels) == (6, 6)
    assert count_micro_f1(torch.zeros_like(labels), torch.zeros_like(labels)) == (0, 0)


def test_reddit_s_users_own_texts_that_have_a_next_token(tmp_path: Path) -> None:
    options, sources = reddit(tmp_path)
    workload = load_workload("reddit", options, sources)
    assert workload.size == 6
    assert workload.owners is not None
    assert sorted(np.unique(workload.owners, return_counts=True)[1].tolist()) == [2, 2, 2]
    _, score = trained(workload)
    assert score.total == 2 * (3 + 1)
    with pytest.raises(FileNotFoundError, match="--data"):
        load_workload("reddit", options, Sources())


def test_a_workload_of_images_refuses_settings_that_can_not_be(tmp_path: Path) -> None:
    _, sources = cifar10(tmp_path)
    wrong: Options = {
        "dtype": "float16",
        "normalised": "imagenet",
        "pixels": 0,
        "train_share": 0.0,
        "frozen_layers": -1,
    }
    for key, value in wrong.items():
        with pytest.raises(ValueError, match=f"workload.*{key}"):
            load_workload("cifar10", {key: value}, sources)
    with pytest.raises(FileNotFoundError, match="--weights"):
        load_workload("cifar10", {}, Sources(data=sources.data))
