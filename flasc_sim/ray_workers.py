"""The engine whose devices train on Ray workers, and what such a worker is.

Every worker holds the workload and a model of its own and gets the round's downloads; payloads come
back, and are folded here as a server folds them. So whoever trains a device changes nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

import ray
import torch
from ray.exceptions import RayTaskError

from aggregator_service.domain.tasks import TaskConfig
from client_sdk import TrainingFailed
from client_sdk.peft_trainer import base_model_sha256
from flasc_sim.device_work import Assignment, DeviceUpdate, TierWork
from flasc_sim.engine import EngineParts, Seat, Trainers
from flasc_sim.numerics import device_name
from flasc_sim.partition import Rows
from flasc_sim.workload import AdapterShape, Workload

__all__ = ["RayEngine"]


class RayEngine:
    cpu_seconds = 0.0

    def __init__(self, parts: EngineParts, *, workers: int, gpus_per_worker: float) -> None:
        # Once for all workers of a machine.
        data = ray.put((parts.workload, parts.clients))
        make: Any = ray.remote(_Worker).options(num_cpus=1, num_gpus=gpus_per_worker)
        self._workers: Final = [
            make.remote(
                data,
                config=parts.config,
                adapter=parts.adapter,
                model_seed=parts.model_seed,
                device="cuda" if gpus_per_worker else "cpu",
                threads=torch.get_num_threads(),
            )
            for _ in range(workers)
        ]
        # By the workers, since the GPUs of a cluster are not this machine's.
        names: list[str] = ray.get([worker.device_name.remote() for worker in self._workers])
        self.device: Final = " and ".join(sorted(set(names)))

    def train(
        self, assignments: Mapping[str, Assignment], cohort: Sequence[Seat]
    ) -> Iterator[DeviceUpdate]:
        given = ray.put(dict(assignments))
        # A worker does what it is asked for in turn: this comes before the seats.
        for worker in self._workers:
            worker.open.remote(given)
        waiting, idle = deque(enumerate(cohort)), deque(self._workers)
        busy: dict[Any, tuple[int, Any]] = {}
        done: dict[int, DeviceUpdate | TrainingFailed] = {}
        for number in range(len(cohort)):
            while number not in done:
                while waiting and idle:
                    place, seat = waiting.popleft()
                    worker = idle.popleft()
                    busy[worker.train.remote(seat)] = (place, worker)
                (ended, *_), _ = ray.wait(list(busy), num_returns=1)
                place, worker = busy.pop(ended)
                idle.append(worker)
                done[place] = self._result(ended)
            update = done.pop(number)
            if isinstance(update, TrainingFailed):
                raise update
            yield update

    def _result(self, ended: Any) -> DeviceUpdate | TrainingFailed:
        """A failure waits for its turn, so that of several the same one is told in every run."""
        try:
            update, seconds = ray.get(ended)
        except RayTaskError as error:
            if isinstance(error.cause, TrainingFailed):
                return error.cause
            raise
        self.cpu_seconds += seconds
        return cast("DeviceUpdate", update)


class _Worker:
    """One process of a cluster, with a model of its own."""

    def __init__(
        self,
        data: tuple[Workload, Sequence[Rows]],
        *,
        config: TaskConfig,
        adapter: AdapterShape,
        model_seed: int,
        device: str,
        threads: int,
    ) -> None:
        # Sums of floats depend on how many threads share them.
        torch.set_num_threads(threads)
        workload, clients = data
        model = workload.build(adapter, model_seed)
        self._config: Final = config
        self._device: Final = device
        self._trainers: Final = Trainers(
            workload, clients, model, base_model_sha256(model), device=device
        )
        self._work: dict[str, TierWork] = {}

    def device_name(self) -> str:
        return device_name(self._device)

    def open(self, assignments: Mapping[str, Assignment]) -> None:
        self._work = {tier: TierWork(self._config, given) for tier, given in assignments.items()}

    def train(self, seat: Seat) -> tuple[DeviceUpdate, float]:
        """With the CPU seconds that it took."""
        began = time.process_time()
        update = self._work[seat.tier].do(self._trainers.of(seat.client), seat.seed)
        return update, time.process_time() - began
