"""Runs of the tiny workload, whole or killed on the way, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from flasc_sim.run_folder import RunFolder, run
from flasc_sim.settings import RunSettings
from flasc_sim.simulation import Simulation
from tests.support.tiny_workload import a_run, a_workload

__all__ = ["bytes_of", "finished", "killed"]

# What is the same wherever and however often a run is taken up.
_RESULTS: Final = (
    "settings.json",
    "rounds.parquet",
    "evaluations.parquet",
    "weights.safetensors",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "result.json",
)


class _Killed(Exception):
    pass


def bytes_of(folder: RunFolder) -> dict[str, bytes]:
    return {name: (folder.path / name).read_bytes() for name in _RESULTS}


def finished(folder: Path, settings: RunSettings | None = None) -> RunFolder:
    made = RunFolder(path=folder)
    run(settings or a_run(), a_workload, made)
    return made


def killed(
    folder: RunFolder, settings: RunSettings | None = None, *, after: int, checkpoint_every: int
) -> None:
    """Begin or take up the run, and die when so many rounds are done."""

    def die(simulation: Simulation) -> None:
        if simulation.rounds_done == after:
            raise _Killed

    with pytest.raises(_Killed):
        run(
            settings or a_run(), a_workload, folder, checkpoint_every=checkpoint_every, on_round=die
        )
