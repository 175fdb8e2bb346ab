"""What a simulation trains and scores: a model to adapt, and examples to divide among devices.

A workload is one module in `flasc_sim.workloads`, named as settings name it, with a function

    load(options, sources) -> Workload

`options` is the settings file's [workload] table without the name.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from torch.utils.data import Dataset

from client_sdk.peft_trainer import Collate, Count, Loss, Predict
from flasc_core.json_value import JsonValue
from flasc_sim import workloads

__all__ = [
    "AdapterShape",
    "Sources",
    "Workload",
    "check_workload",
    "load_workload",
    "workload_names",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterShape:
    """The LoRA adapter of a run; no `alpha` is the rank, no targets are the workload's own."""

    rank: int = 16
    alpha: int | None = None
    dropout: float = 0.0
    target_modules: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or self.lora_alpha < 1:
            raise ValueError("adapter.rank and adapter.alpha are at least 1")
        # Written so that NaN is refused too.
        if not 0 <= self.dropout < 1:
            raise ValueError(f"adapter.dropout is at least 0 and below 1, not {self.dropout}")
        if self.target_modules == ():
            raise ValueError("adapter.target_modules names at least one module, or is left out")

    @property
    def lora_alpha(self) -> int:
        return self.rank if self.alpha is None else self.alpha


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where things are on this machine: no part of a run's identity.

    `data` is a copy of the data set, `weights` a model's file where it has one; `cache` is a folder
    for what takes long to compute.
    """

    data: Path | None = None
    weights: Path | None = None
    cache: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`train` holds the rows that devices may own, `held_out` those that score a run.

    `validation` is for choosing between settings; None where there is none. `content_sha256` tells
    what is in all rows before layers are computed of them, and by which model they are. `labels`
    and `owners` are of the rows of `train`, shape (rows,), None where rows have none.
    `build(shape, seed)` makes the adapted model, adapter and head drawn from `seed`, on which all
    examples are right as they are: where frozen layers are computed once, they are left out of it.
    `facts` is said of every result: model, dtype, what is cached. All of it can be pickled.
    """

    name: str
    train: Dataset[Any]
    held_out: Dataset[Any]
    content_sha256: str
    validation: Dataset[Any] | None = None
    labels: NDArray[np.int64] | None = None
    owners: NDArray[np.int64] | None = None
    build: Callable[[AdapterShape, int], PeftModel]
    base_model_name: str
    collate: Collate | None = None
    loss: Loss | None = None
    predict: Predict | None = None
    count: Count | None = None
    facts: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many rows `train` has."""
        return len(self.train)  # type: ignore[arg-type]

    def identity(self) -> str:
        """A digest of what it says of itself and of its rows: content, labels, owners and number.

        So that runs do not go on with other data by mistake.
        """
        said = {
            "name": self.name,
            "model": self.base_model_name,
            "facts": dict(self.facts),
            "content": self.content_sha256,
        }
        digest = sha256(json.dumps(said, sort_keys=True).encode())
        for column in (self.labels, self.owners):
            digest.update(b"-" if column is None else column.astype("<i8").tobytes())
        digest.update(f"{self.size} {len(self.held_out)}".encode())  # type: ignore[arg-type]
        return digest.hexdigest()


def workload_names() -> list[str]:
    names = (module.name for module in pkgutil.iter_modules(workloads.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def check_workload(name: str, options: Mapping[str, JsonValue]) -> None:
    """Raise ValueError for an unknown name or option."""
    _module(name).read_options(options)


def load_workload(name: str, options: Mapping[str, JsonValue], sources: Sources) -> Workload:
    """ValueError for an unknown name or option; OSError where data or model can not be had."""
    module = _module(name)
    return cast("Workload", module.load(module.read_options(options), sources))


def _module(name: str) -> ModuleType:
    if name not in workload_names():
        raise ValueError(f"workload {name!r} is unknown; known are {', '.join(workload_names())}")
    return import_module(f"{workloads.__name__}.{name}")
