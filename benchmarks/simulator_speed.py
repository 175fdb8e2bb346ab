"""The simulator's speed against a bare training loop, and its memory with ten thousand clients.

Both train the same model on the same batches: a bare loop of torch alone, without loader, seeds,
modes, selection, encoding or sums, is what the simulator can at best be as quick as. They take
turns, round by round, so that a busy machine disturbs both alike.

    python -m benchmarks.simulator_speed
    python -m benchmarks.simulator_speed --data 20news_bydate.parquet --cache FOLDER
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import pstats
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from benchmarks._report import RESULTS, machine_facts
from flasc_sim.device_work import Assignment, DeviceUpdate
from flasc_sim.engine import EngineParts, Seat, SerialEngine
from flasc_sim.settings import RunSettings, changed_table, read_settings
from flasc_sim.simulation import Simulation
from flasc_sim.workload import AdapterShape, Sources, Workload, load_workload

ROUNDS: Final = 12
BATCH: Final = 16
_TABLE: Final[dict[str, Any]] = {
    "workload": {"name": "newsgroups"},
    "partition": {"name": "dirichlet", "clients": 350, "concentration": 0.1},
    "training": {"learning_rate": 0.3, "batch_size": BATCH, "momentum": 0.9},
    "method": {
        "name": "flasc",
        "download_density": 0.25,
        "upload_density": 0.25,
        "head_density": 1.0,
    },
    "optimizer": {"name": "adamw", "learning_rate": 5e-3, "weight_decay": 0.0},
    "policy": {"goal": 10},
    "ending": {"rounds": 10_000},
}
# Without the corpus: texts that come with the package, and the same two layers to train.
_BUNDLED: Final = ('workload={"name":"debian","frozen_layers":4,"tokens":24}',)
# All six layers, so that the adapter is larger too.
_MANY: Final = (
    'workload={"name":"debian","tokens":24}',
    'partition={"name":"uniform","clients":10000}',
)
_MANY_ROUNDS: Final = 2
# At least so much of the bare loop's speed, and at most so much memory.
_SPEED: Final = 0.9
_GIBIBYTES: Final = 8


def main(words: Sequence[str] | None = None) -> int:
    arguments = _arguments(words)
    torch.set_num_threads(1)
    if arguments.many:
        return _run_many(arguments.devices)
    settings = _settings(() if arguments.data else _BUNDLED)
    workload = _load(settings, Sources(data=arguments.data, cache=arguments.cache))
    ratios = _compare(settings, workload, arguments.rounds)
    profile = _profile(Simulation(settings, workload))
    many = _measure_many(arguments.devices)
    report = {
        "benchmark": "simulator_speed",
        "workload": settings.workload_name,
        **machine_facts("torch", "peft", "transformers"),
        "rounds": arguments.rounds,
        "share_of_the_bare_loops_speed": round(median(ratios), 4),
        "share_by_round": [round(ratio, 4) for ratio in ratios],
        "reached": median(ratios) >= _SPEED and many["peak_gibibytes"] <= _GIBIBYTES,
        "ten_thousand_clients": many,
    }
    (arguments.folder / "simulator_speed.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.folder / "simulator_speed-profile.txt").write_text(profile)
    print(json.dumps(report, indent=1))
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a parquet copy of 20 Newsgroups")
    parser.add_argument("--cache", type=Path, help="keeps what frozen layers make of the data")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--devices", type=int, default=100, help="in a round of ten thousand")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where results go")
    parser.add_argument("--many", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def _settings(assignments: Sequence[str]) -> RunSettings:
    return read_settings(changed_table(_TABLE, assignments), name="speed")


def _load(settings: RunSettings, sources: Sources) -> Workload:
    return load_workload(settings.workload_name, settings.workload_options, sources)


class _Watched(SerialEngine):
    """Remembers whom it trained."""

    cohort: Sequence[Seat] = ()

    def train(
        self, assignments: Mapping[str, Assignment], cohort: Sequence[Seat]
    ) -> Iterator[DeviceUpdate]:
        self.cohort = cohort
        return super().train(assignments, cohort)


def _compare(settings: RunSettings, workload: Workload, rounds: int) -> list[float]:
    """Return the bare loop's CPU seconds over the simulator's, round by round."""
    engines: list[_Watched] = []

    def engine(parts: EngineParts) -> _Watched:
        engines.append(_Watched(parts))
        return engines[0]

    models: list[PeftModel] = []

    def build(shape: AdapterShape, seed: int) -> PeftModel:
        models.append(workload.build(shape, seed))
        return models[0]

    # Both train the one model: copies are up to 5 % faster or slower, by where their weights lie.
    simulation = Simulation(settings, replace(workload, build=build), engine=engine)
    clients = settings.partition.divide(workload, settings.seed)
    bare = _Bare(models[0])
    ratios: list[float] = []
    # One round more than is told: first steps allocate.
    for number in range(rounds + 1):
        started = time.process_time()
        simulation.advance()
        simulated = time.process_time() - started
        devices = [
            _batches(workload, clients[seat.client].tolist(), seat.seed)
            for seat in engines[0].cohort
        ]
        started = time.process_time()
        for batches in devices:
            bare.train(batches)
        ratios.append((time.process_time() - started) / simulated)
        print(f"round {number} of {rounds}: {ratios[-1]:.3f}", flush=True)
    return ratios[1:]


def _batches(workload: Workload, rows: list[int], seed: int) -> list[dict[str, Tensor]]:
    order = torch.Generator().manual_seed(seed)
    rows_of_client = Subset(workload.train, rows)
    return list(
        DataLoader(
            rows_of_client, BATCH, shuffle=True, generator=order, collate_fn=workload.collate
        )
    )


class _Bare:
    """What anybody would write who only wants to train."""

    def __init__(self, model: nn.Module) -> None:
        self._model: Final = model
        self._parameters: Final = [p for p in model.parameters() if p.requires_grad]
        self._start: Final = [p.detach().clone() for p in self._parameters]

    def train(self, batches: list[dict[str, Tensor]]) -> None:
        with torch.no_grad():
            for parameter, start in zip(self._parameters, self._start, strict=True):
                parameter.copy_(start)
        optimizer = torch.optim.SGD(self._parameters, lr=0.3, momentum=0.9)
        for batch in batches:
            optimizer.zero_grad()
            self._model(**batch).loss.backward()
            optimizer.step()


def _profile(simulation: Simulation) -> str:
    simulation.advance()
    profile = cProfile.Profile()
    profile.enable()
    simulation.advance()
    profile.disable()
    told = io.StringIO()
    stats = pstats.Stats(profile, stream=told).strip_dirs()
    stats.sort_stats("cumulative").print_stats(40)
    stats.sort_stats("tottime").print_stats(40)
    return re.sub(r"[ \t]+$", "", told.getvalue(), flags=re.MULTILINE).strip() + "\n"


def _measure_many(devices: int) -> dict[str, Any]:
    """In a process of its own: what another did before must not count."""
    command = [sys.executable, "-m", "benchmarks.simulator_speed", "--many"]
    command += ["--devices", str(devices)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured: dict[str, Any] = json.loads(told)
    return measured


def _run_many(devices: int) -> int:
    settings = _settings((*_MANY, f"policy.goal={devices}"))
    simulation = Simulation(settings, _load(settings, Sources()))
    for _ in range(_MANY_ROUNDS):
        simulation.advance()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    measured = {
        "clients": simulation.client_count,
        "devices_per_round": simulation.config.policy.goal,
        "adapter_values": simulation.config.layout.dim,
        "rounds": simulation.rounds_done,
        "peak_gibibytes": round(peak / 2**30, 2),
    }
    print(json.dumps(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
