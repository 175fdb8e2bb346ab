"""A run on disk: its settings, where it stands, and its results.

settings.json        what was run
checkpoint           where it stands; gone once it is finished
rounds.parquet       a row per round and tier
evaluations.parquet  a row per evaluation and tier
adapter/             the final adapter as devices get it, for PEFT
weights.safetensors  the server's own weights
lock                 held by the process that works on the run
machine.json         processor, versions, threads and time: on what it ran
result.json          the run summed up; written last, so that a run with it is finished
failure.json         in its place where training failed, as where it diverges: when, and why
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

from safetensors.numpy import save

from aggregator_service.app.export_adapter import peft_tensors
from client_sdk import TrainingFailed
from client_sdk.file_lock import FileLock
from flasc_core.json_value import JsonValue
from flasc_sim.checkpoint import Checkpoint, read_checkpoint, write_checkpoint, write_whole
from flasc_sim.engine import MakeEngine, SerialEngine
from flasc_sim.processor import processor_name
from flasc_sim.records import EvaluationRecord, RoundRecord, write_records
from flasc_sim.settings import RunSettings
from flasc_sim.simulation import Simulation
from flasc_sim.workload import Workload

__all__ = ["Failure", "RunFolder", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Equal settings fail alike: whoever runs them again gets the same. `round` is from 1."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    path: Path

    @property
    def is_finished(self) -> bool:
        return (self.path / "result.json").exists()

    def result(self) -> Mapping[str, Any]:
        """What `result.json` says. Raises FileNotFoundError for a run that is not finished."""
        said: dict[str, Any] = json.loads((self.path / "result.json").read_bytes())
        return said

    @property
    def failure(self) -> Failure | None:
        file = self.path / "failure.json"
        return Failure(**json.loads(file.read_bytes())) if file.exists() else None

    def cpu_seconds(self) -> float:
        """What the run took so far as far as the folder says, over all processes."""
        file = self.path / "machine.json"
        if file.exists():
            return float(json.loads(file.read_bytes())["cpu_seconds"])
        checkpoint = self.load()
        return checkpoint.cpu_seconds if checkpoint else 0.0

    @contextmanager
    def held_for(self, settings: RunSettings) -> Iterator[None]:
        """Make the folder this run's, and keep others from working on it.

        Raises ValueError where it holds a run of other settings, and BlockingIOError where another
        process works on it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / "lock")
        try:
            self._claim(settings)
            yield
        finally:
            lock.release()

    def _claim(self, settings: RunSettings) -> None:
        file = self.path / "settings.json"
        said = _json(settings.table)
        if not file.exists():
            write_whole(file, said)
        elif file.read_bytes() != said:
            raise ValueError(f"{self.path} holds a run with other settings; name another folder")

    def load(self) -> Checkpoint | None:
        file = self.path / "checkpoint"
        return read_checkpoint(file) if file.exists() else None

    def save(self, simulation: Simulation) -> None:
        write_checkpoint(self.path / "checkpoint", simulation.checkpoint())

    def finish(self, simulation: Simulation, workload: Workload) -> None:
        """Write the results of a run that is done; repeating writes the same."""
        self._write_records(simulation)
        self._write_adapter(simulation)
        write_whole(self.path / "result.json", _json(_result(simulation, workload)))
        (self.path / "checkpoint").unlink(missing_ok=True)

    def fail(self, simulation: Simulation, reason: str) -> Failure:
        """Write that the round under way failed; the run is not begun again."""
        failure = Failure(round=simulation.round_under_way, reason=reason)
        self._write_records(simulation)
        write_whole(self.path / "failure.json", _json(asdict(failure)))
        (self.path / "checkpoint").unlink(missing_ok=True)
        return failure

    def _write_records(self, simulation: Simulation) -> None:
        write_records(self.path / "rounds.parquet", RoundRecord, simulation.rounds)
        write_records(self.path / "evaluations.parquet", EvaluationRecord, simulation.evaluations)
        write_whole(self.path / "machine.json", _json(_machine(simulation)))

    def _write_adapter(self, simulation: Simulation) -> None:
        config, federation = simulation.config, simulation.federation
        folder = self.path / "adapter"
        folder.mkdir(exist_ok=True)
        tensors = peft_tensors(config.layout, federation.device_weights())
        write_whole(folder / "adapter_model.safetensors", tensors)
        write_whole(folder / "adapter_config.json", config.peft_config_json.encode())
        masters = save(config.layout.split(federation.weights))
        write_whole(self.path / "weights.safetensors", masters)


def run(
    settings: RunSettings,
    load: Callable[[], Workload],
    folder: RunFolder,
    *,
    checkpoint_every: int = 10,
    engine: MakeEngine = SerialEngine,
    on_round: Callable[[Simulation], None] = lambda simulation: None,
) -> Mapping[str, Any]:
    """Run to the end, from where the folder stands, and return the result.

    A run that finished or failed is left alone, and `load` not called. Raises ValueError for
    settings that do not fit, BlockingIOError where another process works on this run, and
    TrainingFailed, again for a run that failed before.
    """
    with folder.held_for(settings):
        if folder.failure:
            raise TrainingFailed(f"round {folder.failure.round}: {folder.failure.reason}")
        if not folder.is_finished:
            workload = load()
            simulation = Simulation(settings, workload, folder.load(), engine=engine)
            while not simulation.is_done:
                try:
                    simulation.advance()
                except TrainingFailed as error:
                    failure = folder.fail(simulation, str(error))
                    raise TrainingFailed(f"round {failure.round}: {error}") from error
                on_round(simulation)
                if simulation.rounds_done % checkpoint_every == 0:
                    folder.save(simulation)
            folder.finish(simulation, workload)
        return folder.result()


def _result(simulation: Simulation, workload: Workload) -> dict[str, JsonValue]:
    settings, config, federation = simulation.settings, simulation.config, simulation.federation
    tiers = {name: _tier(simulation, name) for name in simulation.tiers}
    devices = sum(record.devices for record in simulation.rounds)
    return {
        "name": settings.name,
        "seed": settings.seed,
        "workload": {"name": settings.workload_name, **workload.facts},
        "clients": simulation.client_count,
        "dim": config.layout.dim,
        "rounds": simulation.rounds_done,
        "devices": devices,
        # Of all tiers alike, however many devices each has.
        "accuracy": fmean(tier.accuracy for tier in tiers.values()),
        "evaluated_on": settings.evaluation.on,
        "payload_bytes_down": sum(tier.payload_bytes_down for tier in tiers.values()),
        "payload_bytes_up": sum(tier.payload_bytes_up for tier in tiers.values()),
        "dense_float32_bytes": 2 * 4 * config.layout.dim * devices,
        "tiers": {name: asdict(tier) for name, tier in tiers.items()},
        "weights_sha256": sha256(federation.weights.tobytes()).hexdigest(),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tier:
    """Shares are of the values that were sent, by their role."""

    accuracy: float
    accuracies: list[float]
    devices: int
    payload_bytes_down: int
    payload_bytes_up: int
    shares_down: dict[str, float]
    shares_up: dict[str, float]


def _tier(simulation: Simulation, name: str) -> _Tier:
    final = simulation.settings.evaluation.final(simulation.config.ending.rounds)
    rounds = [record for record in simulation.rounds if record.tier == name]
    scores = [
        score.accuracy
        for score in simulation.evaluations
        if score.tier == name and score.round in final
    ]
    return _Tier(
        accuracy=fmean(scores),
        accuracies=scores,
        devices=sum(record.devices for record in rounds),
        payload_bytes_down=sum(record.payload_bytes_down for record in rounds),
        payload_bytes_up=sum(record.payload_bytes_up for record in rounds),
        shares_down=_shares(rounds, "values_down"),
        shares_up=_shares(rounds, "values_up"),
    )


def _shares(rounds: Sequence[RoundRecord], prefix: str) -> dict[str, float]:
    roles = ("lora_a", "lora_b", "head")
    sent = {role: sum(getattr(record, f"{prefix}_{role}") for record in rounds) for role in roles}
    in_all = sum(sent.values())
    return {role: count / in_all if in_all else 0.0 for role, count in sent.items()}


def _machine(simulation: Simulation) -> dict[str, JsonValue]:
    numerics = simulation.numerics
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "device": numerics.device,
        "threads": numerics.threads,
        "instructions": numerics.instructions,
        "cpu_seconds": round(simulation.cpu_seconds, 1),
        "versions": {"python": platform.python_version(), **numerics.versions},
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
