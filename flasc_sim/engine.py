"""Who trains a round's devices: this process one after another, or whatever else keeps to this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from peft import PeftModel
from torch.utils.data import Dataset, Subset

from aggregator_service.domain.tasks import TaskConfig
from client_sdk.peft_trainer import PeftTrainer
from flasc_sim.device_work import Assignment, DeviceUpdate, TierWork
from flasc_sim.partition import Rows
from flasc_sim.workload import AdapterShape, Workload

__all__ = ["Engine", "EngineParts", "MakeEngine", "Seat", "SerialEngine", "Trainers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A client in a round, with the seed of its training."""

    client: int
    tier: str
    seed: int


class Engine(Protocol):
    @property
    def device(self) -> str:
        """What devices train on: "cpu", or a GPU by its model."""
        ...

    @property
    def cpu_seconds(self) -> float:
        """What other processes than this one took so far to train devices."""
        ...

    def train(
        self, assignments: Mapping[str, Assignment], cohort: Sequence[Seat]
    ) -> Iterator[DeviceUpdate]:
        """Yield the update of every seat in order; `assignments` are by tier.

        Equal seats and assignments give equal bytes, whoever trains under equal numerics. Raises
        TrainingFailed.
        """
        ...


class Trainers:
    """Trainers of clients that all share one model; a client is no more than its rows."""

    def __init__(
        self,
        workload: Workload,
        clients: Sequence[Rows],
        model: PeftModel,
        base_sha256: bytes,
        *,
        device: str = "cpu",
    ) -> None:
        self._train: Final = workload.train
        self._clients: Final = clients
        self._shared: Final = PeftTrainer(
            model,
            workload.train,
            loss=workload.loss,
            predict=workload.predict,
            count=workload.count,
            collate=workload.collate,
            device=device,
            base_model_sha256=base_sha256,
        )

    def of(self, client: int) -> PeftTrainer:
        return self._shared.with_examples(Subset(self._train, self._clients[client].tolist()))

    def scoring(self, held_out: Dataset[Any]) -> PeftTrainer:
        return self._shared.with_examples(self._train, held_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParts:
    """What engines train with. `trainers` are of this process; `model_seed` draws their model."""

    config: TaskConfig
    workload: Workload
    clients: Sequence[Rows]
    adapter: AdapterShape
    model_seed: int
    trainers: Trainers


class SerialEngine:
    """One device after another in this process."""

    def __init__(self, parts: EngineParts) -> None:
        self._config: Final = parts.config
        self._trainers: Final = parts.trainers

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def cpu_seconds(self) -> float:
        return 0.0

    def train(
        self, assignments: Mapping[str, Assignment], cohort: Sequence[Seat]
    ) -> Iterator[DeviceUpdate]:
        work = {tier: TierWork(self._config, given) for tier, given in assignments.items()}
        for seat in cohort:
            yield work[seat.tier].do(self._trainers.of(seat.client), seat.seed)


MakeEngine: TypeAlias = Callable[[EngineParts], Engine]
