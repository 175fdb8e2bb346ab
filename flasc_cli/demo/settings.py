"""What a demo run is told, and what its device processes are told."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

__all__ = ["DENSE_TASK", "SPARSE_TASK", "DemoSettings", "DeviceSettings"]

SPARSE_TASK: Final = "demo"
# The same fine-tune with every value sent both ways, for comparison.
DENSE_TASK: Final = "demo-dense"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """All that decides a run's result, apart from the processor."""

    rounds: int
    devices: int
    rank: int
    dataset: str
    # A parquet file in place of the data set's own source.
    data: str | None
    model: str
    dtype: str
    download_density: float
    upload_density: float
    encoding: str
    base: str
    max_steps: int
    held_out: int
    seed: int
    batch_size: int = 16
    client_learning_rate: float = 0.1
    server_learning_rate: float = 0.01

    def dense(self) -> Self:
        """Return the same fine-tune as dense LoRA in float32, all else the same."""
        return replace(self, download_density=1, upload_density=1, encoding="plain", base="zero")

    def task_options(self) -> list[str]:
        """For `flasc task create`."""
        options: dict[str, object] = {
            "--model": self.model,
            "--dtype": self.dtype,
            "--dataset": self.dataset,
            "--rank": self.rank,
            "--rounds": self.rounds,
            "--goal": self.devices,
            "--quorum": max(1, self.devices // 2),
            # Long enough for a slow machine; rounds end when all devices have reported.
            "--window": 1800,
            "--download-density": self.download_density,
            "--upload-density": self.upload_density,
            "--head-density": 1,
            "--encoding": self.encoding,
            "--base": self.base,
            "--optimizer": "adamw",
            "--server-lr": self.server_learning_rate,
            "--client-lr": self.client_learning_rate,
            "--max-steps": self.max_steps,
            "--seed": self.seed,
        }
        if self.data is not None:
            options["--data"] = self.data
        # Everything is on one machine, so devices may ask again at once.
        assignments = {
            "training.batch_size": self.batch_size,
            "policy.retry_min_seconds": 0.2,
            "policy.retry_max_seconds": 0.6,
        }
        words = [word for name, value in options.items() for word in (name, str(value))]
        return words + [
            word for name, v in assignments.items() for word in ("--set", f"{name}={v}")
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """One device process's own settings; `demo.dtype` is the one that the task was made with.

    `addresses` are by task, in the order in which the device takes part in them.
    """

    index: int
    addresses: Mapping[str, str]
    credential: str
    state_folder: str
    demo: DemoSettings

    def write(self, path: Path) -> None:
        """Readable by its owner alone: it holds a credential."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file)

    @classmethod
    def read(cls, path: Path) -> DeviceSettings:
        fields: dict[str, Any] = json.loads(path.read_text())
        return cls(**{**fields, "demo": DemoSettings(**fields["demo"])})
