"""A workload of a few hundred weights and texts, and settings for runs of it that take no time."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
from peft import PeftModel

from client_sdk.peft_trainer import Loss
from flasc_sim.settings import RunSettings, changed_table, read_settings
from flasc_sim.workload import AdapterShape, Workload
from tests.support.tiny_model import Examples, a_base_model, a_peft_model

__all__ = ["a_run", "a_workload"]

_TABLE: dict[str, Any] = {
    "seed": 3,
    "workload": {"name": "tiny"},
    "partition": {"name": "owners"},
    "adapter": {"rank": 2},
    "training": {"learning_rate": 0.3, "batch_size": 4},
    "method": {"name": "flasc", "download_density": 0.5, "upload_density": 0.25},
    "optimizer": {"name": "adamw", "learning_rate": 0.02},
    "policy": {"goal": 3},
    "ending": {"rounds": 6},
    "evaluation": {"scores": 2, "step": 2, "every": 3},
}


def a_run(*assignments: str) -> RunSettings:
    """Six rounds of three of the clients; assignments as the command takes them."""
    return read_settings(changed_table(_TABLE, assignments), name="tiny-run")


def a_workload(rows: int = 60, loss: Loss | None = None) -> Workload:
    """Rows of six owners in turn."""
    train = Examples(rows)
    return Workload(
        name="tiny",
        train=train,
        held_out=Examples(30, seed=7),
        content_sha256=sha256(train.input_ids.numpy().tobytes()).hexdigest(),
        validation=Examples(20, seed=8),
        labels=train.labels.numpy().astype(np.int64),
        owners=np.arange(rows, dtype=np.int64) % 6,
        build=_build,
        base_model_name="tiny@float32",
        loss=loss,
        facts={"model": "tiny"},
    )


def _build(shape: AdapterShape, seed: int) -> PeftModel:
    return a_peft_model(a_base_model(), rank=shape.rank, dropout=shape.dropout, seed=seed)
