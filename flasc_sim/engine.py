"""Who trains a round's devices: this process one after another, or whatever else keeps to this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from peft import PeftModel
from torch.utils.data import Subset

from aggregator_service.domain.tasks import TaskConfig
from client_sdk.peft_trainer import PeftTrainer
from flasc_sim.device_work import Assignment, DeviceUpdate, TierWork
from flasc_sim.partition import Rows
from flasc_sim.workload import Workload

__all__ = ["Engine", "Seat", "SerialEngine", "Trainers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A client in a round, with the seed of its training."""

    client: int
    tier: str
    seed: int


class Engine(Protocol):
    def train(
        self, assignments: Mapping[str, Assignment], cohort: Sequence[Seat]
    ) -> Iterator[DeviceUpdate]:
        """Yield the update of every seat in order; `assignments` are by tier.

        Equal seats and assignments give equal bytes, whoever trains. Raises TrainingFailed.
        """
        ...


class Trainers:
    """Trainers of clients that all share one model; a client is no more than its rows."""

    def __init__(
        self, workload: Workload, clients: Sequence[Rows], model: PeftModel, base_sha256: bytes
    ) -> None:
        self._workload: Final = workload
        self._clients: Final = clients
        self._model: Final = model
        self._base_sha256: Final = base_sha256

    def of(self, client: int) -> PeftTrainer:
        return PeftTrainer(
            self._model,
            Subset(self._workload.train, self._clients[client].tolist()),
            loss=self._workload.loss,
            collate=self._workload.collate,
            base_model_sha256=self._base_sha256,
        )


class SerialEngine:
    """One device after another in this process."""

    def __init__(self, config: TaskConfig, trainers: Trainers) -> None:
        self._config: Final = config
        self._trainers: Final = trainers

    def train(
        self, assignments: Mapping[str, Assignment], cohort: Sequence[Seat]
    ) -> Iterator[DeviceUpdate]:
        work = {tier: TierWork(self._config, given) for tier, given in assignments.items()}
        for seat in cohort:
            yield work[seat.tier].do(self._trainers.of(seat.client), seat.seed)
