"""Values for tests: name what matters, the rest is sound and the same every time.

Identifiers are new each time. A value that belongs to another takes it as its first argument, or
makes one; SQL stores want the owner stored too, which `stored` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.assignments import (
    Assignment,
    AssignmentState,
    Evaluation,
    TrainingMetrics,
)
from aggregator_service.domain.credentials import ApiKey, Device
from aggregator_service.domain.events import Event
from aggregator_service.domain.privacy import Draw, Privacy, Reservation
from aggregator_service.domain.rounds import (
    AbortReason,
    DownloadFile,
    Round,
    RoundKind,
    RoundPolicy,
    RoundState,
)
from aggregator_service.domain.tasks import (
    BaseModel,
    Encodings,
    Ending,
    Task,
    TaskConfig,
    TaskState,
    TrainingPlan,
)
from aggregator_service.domain.updates import Update, UpdateState
from aggregator_service.store.base import Store, Transaction
from flasc_core.fold import Parts
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.server_update import AdamW
from flasc_core.sparse import SparseVector
from flasc_core.wire import Encoding

NOW: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PLAIN_BOTH_WAYS: Final = Encodings(download=Encoding.parse("plain"), updates=())
SECOND: Final = timedelta(seconds=1)


def digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


def a_layout() -> AdapterLayout:
    """Rank 2 on one 4 x 4 matrix, and a head of 2 x 4: 24 coordinates."""
    return AdapterLayout(
        tensors=(
            TensorSpec(name="layer.lora_A", shape=(2, 4), role=Role.LORA_A),
            TensorSpec(name="layer.lora_B", shape=(4, 2), role=Role.LORA_B),
            TensorSpec(name="head", shape=(2, 4), role=Role.HEAD),
        )
    )


def nonzeros_of(x: NDArray[np.float32]) -> SparseVector:
    indices = np.flatnonzero(x)
    return SparseVector(dim=x.size, indices=indices, values=x[indices])


def in_one_part(vector: SparseVector) -> Parts:
    """As accumulators read a vector."""
    return lambda: iter([(vector.indices, vector.values)])


def a_policy(**changes: Any) -> RoundPolicy:
    return replace(
        RoundPolicy(goal=3, quorum=2, window=timedelta(minutes=10), over_selection=2.0), **changes
    )


def a_privacy(**changes: Any) -> Privacy:
    """A participation cap of 5 that its budget pays for."""
    privacy = Privacy(
        clip_norm=0.5, noise_multiplier=1.0, epsilon=20.0, delta=1e-6, max_participations=5
    )
    return replace(privacy, **changes)


def a_config(**changes: Any) -> TaskConfig:
    config = TaskConfig(
        layout=a_layout(),
        base_model=BaseModel(name="tiny", sha256=digest("base model")),
        peft_config_json='{"peft_type": "LORA", "r": 2}',
        training=TrainingPlan(learning_rate=0.01),
        method=Flasc(download_density=0.5, upload_density=0.25),
        optimizer=AdamW(learning_rate=0.01),
        policy=a_policy(),
        ending=Ending(rounds=2),
        # Values come back as they were sent.
        encodings=PLAIN_BOTH_WAYS,
    )
    return replace(config, **changes)


def a_task(**changes: Any) -> Task:
    identifier = uuid4()
    task = Task(
        id=identifier,
        name=f"task-{identifier.hex[:12]}",
        state=TaskState.RUNNING,
        config=a_config(),
        spec=b"spec",
        spec_sha256=digest("spec"),
        created_at=NOW,
    )
    return replace(task, **changes)


def a_download(**changes: Any) -> DownloadFile:
    download = DownloadFile(
        key="downloads/aa",
        sha256=digest("download"),
        size_bytes=100,
        nnz=12,
        values_by_role={Role.LORA_A: 7, Role.LORA_B: 3, Role.HEAD: 2},
    )
    return replace(download, **changes)


def a_round(task: Task | None = None, *, state: RoundState, **changes: Any) -> Round:
    """A round that came to `state` as the rules have it, opened at NOW with its goal met."""
    task = task or a_task()
    kind = RoundKind.EVALUATION if state is RoundState.EVALUATED else RoundKind.TRAINING
    pending = Round(
        id=uuid4(),
        task_id=task.id,
        number=1,
        kind=kind,
        state=RoundState.PENDING,
        policy=task.config.policy,
        base_version=0,
        created_at=NOW,
    )
    return replace(_advanced(replace(pending, **changes), state), **changes)


def _advanced(pending: Round, state: RoundState) -> Round:
    later = NOW + SECOND
    if state is RoundState.PENDING:
        return pending
    collecting = pending.open(NOW, {"": a_download()})
    if state is RoundState.COLLECTING:
        return collecting
    if state is RoundState.ABORTED:
        return collecting.abort(later, AbortReason.OPERATOR)
    closing = collecting.tick(later, collecting.policy.goal)
    if state in (RoundState.CLOSING, RoundState.EVALUATED):
        return closing
    folding = closing.begin_folding(digest("manifest"))
    return folding if state is RoundState.FOLDING else folding.publish(later)


def a_draw(**changes: Any) -> Draw:
    draw = Draw(seed=digest("draw"), threshold=1 << 60, devices=4, drawn_at=NOW)
    return replace(draw, **changes)


def a_reservation(current: Round, **changes: Any) -> Reservation:
    reservation = Reservation(
        round_id=current.id, task_id=current.task_id, rounds=1, epsilon=4.9, is_last=False
    )
    return replace(reservation, **changes)


def a_device(**changes: Any) -> Device:
    identifier = uuid4()
    device = Device(
        id=identifier,
        name=f"device-{identifier.hex[:12]}",
        credential_sha256=digest("credential"),
        enrolled_at=NOW,
    )
    return replace(device, **changes)


def an_api_key(**changes: Any) -> ApiKey:
    key = ApiKey(
        id=uuid4(),
        name="operator",
        key_sha256=digest("key"),
        created_at=NOW,
        expires_at=NOW + timedelta(days=30),
    )
    return replace(key, **changes)


def some_training(**changes: Any) -> TrainingMetrics:
    return replace(TrainingMetrics(examples=10, steps=5, loss_mean=0.5, seconds=2.0), **changes)


def some_counts(**changes: Any) -> Evaluation:
    return replace(Evaluation(correct=6, total=8, loss_sum=4.0), **changes)


def an_assignment(
    current: Round | None = None,
    device: Device | None = None,
    *,
    state: AssignmentState = AssignmentState.TRAINING,
    **changes: Any,
) -> Assignment:
    current = current or a_round(state=RoundState.COLLECTING)
    training = Assignment(
        id=uuid4(),
        task_id=current.task_id,
        round_id=current.id,
        device_id=(device or a_device()).id,
        state=AssignmentState.TRAINING,
        download_sha256=a_download().sha256,
        download_size_bytes=a_download().size_bytes,
        training_seed=7,
        assigned_at=NOW,
        expires_at=NOW + timedelta(minutes=10),
    )
    if state is AssignmentState.TRAINING:
        return replace(training, **changes)
    if state is AssignmentState.RETRACTED:
        accepted = training.end(AssignmentState.ACCEPTED, NOW + SECOND)
        return replace(accepted.retract(NOW + 2 * SECOND, "a reason"), **changes)
    return replace(training.end(state, NOW + SECOND), **changes)


def an_update(assignment: Assignment | None = None, **changes: Any) -> Update:
    assignment = assignment or an_assignment()
    update = Update(
        id=uuid4(),
        round_id=assignment.round_id,
        device_id=assignment.device_id,
        assignment_id=assignment.id,
        state=UpdateState.ACCEPTED,
        payload_sha256=digest("payload"),
        payload_bytes=7,
        nnz=6,
        weight=1,
        shard=0,
        accepted_at=NOW + SECOND,
        payload=b"payload",
    )
    return replace(update, **changes)


def an_adapter(task: Task | None = None, origin: Round | None = None, **changes: Any) -> Adapter:
    """Version 0, or the one that `origin` published."""
    task = task or a_task()
    adapter = Adapter(
        task_id=task.id,
        version=0 if origin is None else origin.base_version + 1,
        round_id=None if origin is None else origin.id,
        weights_key="adapters/aa",
        weights_sha256=digest("weights"),
        optimizer_step=0,
        optimizer_key="optimizers/aa",
        mask_nnz=12,
        divisor=0 if origin is None else 3,
        created_at=NOW,
    )
    return replace(adapter, **changes)


def an_event(task: Task, **changes: Any) -> Event:
    return replace(Event(task_id=task.id, round_id=None, state=task.state, at=NOW), **changes)


_ADDERS: Final[Mapping[type, Callable[[Transaction, Any], object]]] = {
    Task: lambda tx, task: tx.tasks.add(task),
    Round: lambda tx, new: tx.rounds.add(new),
    Device: lambda tx, device: tx.devices.add(device),
    Assignment: lambda tx, assignment: tx.assignments.add_if_absent(assignment),
    Update: lambda tx, update: tx.updates.add_if_absent(update),
    Reservation: lambda tx, reservation: tx.reservations.add(reservation),
    Adapter: lambda tx, adapter: tx.adapters.add(adapter),
    ApiKey: lambda tx, key: tx.api_keys.add(key),
    Event: lambda tx, event: tx.events.append(event),
}


def stored(
    store: Store,
    *values: Task | Round | Device | Assignment | Update | Reservation | Adapter | ApiKey | Event,
) -> None:
    """Adds `values` in their order, all or none; owners come before what they own."""

    def body(tx: Transaction) -> None:
        for value in values:
            assert _ADDERS[type(value)](tx, value) is not False

    store.run("stored", body)
