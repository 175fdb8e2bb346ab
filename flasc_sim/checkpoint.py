"""Where a run stands, in one file: whole as it was last written, or not there at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from flasc_core.server_update import OptimizerState
from flasc_sim.federation import Standing
from flasc_sim.numerics import Numerics
from flasc_sim.records import EvaluationRecord, RoundRecord

__all__ = ["Checkpoint", "read_checkpoint", "write_checkpoint", "write_whole"]

# Of what a file says beside its arrays; 3 tells the numerics.
_FORMAT: Final = 3
_SLOT: Final = "slot."
_RANKED: Final = "ranked."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """`workload` tells the data and the model that the run was begun with, `numerics` on what;
    `draws` is the state of the generator that draws cohorts.

    `steps` are how many tiers down clients have asked to be, `participations` how many rounds they
    were in, and `cpu_seconds` what all processes that worked on the run took together.
    """

    workload: str
    numerics: Numerics
    standing: Standing
    draws: Mapping[str, Any]
    steps: Mapping[int, int]
    participations: Mapping[int, int]
    rounds: tuple[RoundRecord, ...]
    evaluations: tuple[EvaluationRecord, ...]
    cpu_seconds: float


def write_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    standing = checkpoint.standing
    said = {
        "format": _FORMAT,
        "workload": checkpoint.workload,
        "numerics": asdict(checkpoint.numerics),
        "optimizer_step": standing.optimizer.step,
        "round_index": standing.round_index,
        "draws": checkpoint.draws,
        "steps": checkpoint.steps,
        "participations": checkpoint.participations,
        "rounds": [asdict(record) for record in checkpoint.rounds],
        "evaluations": [asdict(record) for record in checkpoint.evaluations],
        "cpu_seconds": checkpoint.cpu_seconds,
    }
    arrays = {
        "weights": standing.weights,
        **{f"{_SLOT}{name}": values for name, values in standing.optimizer.slots.items()},
        **{f"{_RANKED}{version}": values for version, values in standing.ranked.items()},
    }
    write_whole(file, save(arrays, metadata={"said": json.dumps(said)}))


def read_checkpoint(file: Path) -> Checkpoint:
    """Raises OSError, and ValueError for what another version has written."""
    with safe_open(file, framework="numpy") as stored:
        said = json.loads(stored.metadata()["said"])
        if said.get("format") != _FORMAT:
            raise ValueError(
                f"{file} was written by another version, and the run can not go on from it; remove "
                "the file to begin the run again"
            )
        arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    slots, ranked = _with_prefix(arrays, _SLOT), _with_prefix(arrays, _RANKED)
    return Checkpoint(
        workload=said["workload"],
        numerics=Numerics(**said["numerics"]),
        standing=Standing(
            weights=arrays["weights"],
            optimizer=OptimizerState(step=said["optimizer_step"], slots=slots),
            round_index=said["round_index"],
            ranked={int(version): values for version, values in ranked.items()},
        ),
        draws=said["draws"],
        steps=_by_client(said["steps"]),
        # Files without them are of runs without a cap, which ask for none.
        participations=_by_client(said.get("participations", {})),
        rounds=tuple(RoundRecord(**record) for record in said["rounds"]),
        evaluations=tuple(EvaluationRecord(**record) for record in said["evaluations"]),
        cpu_seconds=said["cpu_seconds"],
    )


def _by_client(counts: Mapping[str, int]) -> dict[int, int]:
    return {int(client): count for client, count in counts.items()}


def _with_prefix(
    arrays: Mapping[str, NDArray[np.float32]], prefix: str
) -> dict[str, NDArray[np.float32]]:
    return {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }


def write_whole(file: Path, data: bytes) -> None:
    """Write a file that a crash at any instant leaves as it was, or as it will be."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    with unfinished.open("wb") as written:
        written.write(data)
        written.flush()
        os.fsync(written.fileno())
    unfinished.replace(file)
