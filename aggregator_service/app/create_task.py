"""An operator creates a task from a layout, a configuration and an initial adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from aggregator_service.app.adapter_files import put_state, put_weights
from aggregator_service.app.task_spec import encode_task_spec
from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.events import Event
from aggregator_service.domain.schedule import first_round
from aggregator_service.domain.tasks import Task, TaskConfig, TaskState, check_name
from aggregator_service.store.base import Store, Transaction
from aggregator_service.store.blobs import BlobStore
from flasc_core.errors import Reason, Refusal

__all__ = ["CreateTask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTask:
    store: Store
    blobs: BlobStore
    now: Callable[[], datetime]

    def __call__(self, name: str, config: TaskConfig, weights: NDArray[np.float32]) -> Task:
        """Stores version 0 from `weights`, shape (dim,), and the first round.

        Refuses CONFIGURATION for settings that could not run, NON_FINITE and VALUE_RANGE for the
        adapter's values, NAME_TAKEN for the name. A refused task leaves nothing behind in the
        database.
        """
        check_name(name)
        config.check()
        _check_weights(config, weights)
        spec = encode_task_spec(name, config)
        now = self.now()
        task = Task(
            id=uuid4(),
            name=name,
            state=TaskState.RUNNING,
            config=config,
            spec=spec,
            spec_sha256=sha256(spec).digest(),
            created_at=now,
        )
        adapter = self._initial_adapter(task, weights, now)
        opening = first_round(task, uuid4(), now)

        def body(tx: Transaction) -> None:
            tx.tasks.add(task)
            tx.adapters.add(adapter)
            tx.rounds.add(opening)
            tx.events.append(Event(task_id=task.id, round_id=None, state=task.state, at=now))

        self.store.run("create_task", body)
        return task

    def _initial_adapter(self, task: Task, weights: NDArray[np.float32], now: datetime) -> Adapter:
        config = task.config
        state = config.optimizer.init(config.layout.dim)
        weights_key, weights_sha256 = put_weights(self.blobs, task.id, weights)
        return Adapter(
            task_id=task.id,
            version=0,
            round_id=None,
            weights_key=weights_key,
            weights_sha256=weights_sha256,
            optimizer_step=state.step,
            optimizer_key=put_state(self.blobs, task.id, state),
            mask_nnz=config.count_widest_download(0),
            divisor=0,
            created_at=now,
        )


def _check_weights(config: TaskConfig, weights: NDArray[np.float32]) -> None:
    if weights.shape != (config.layout.dim,):
        raise Refusal(
            Reason.DIMENSION_MISMATCH,
            f"the adapter has {weights.size} values, its layout {config.layout.dim}",
        )
    if not np.isfinite(weights).all():
        raise Refusal(Reason.NON_FINITE, "the initial adapter holds NaN or infinite values")
    config.base.check(config.layout, weights)
