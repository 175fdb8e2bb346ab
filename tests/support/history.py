"""A task with rounds behind it, for what shows them: every figure known, none computed here."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import uuid4

import numpy as np

from aggregator_service.app.adapter_files import put_weights
from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.assignments import Assignment, AssignmentState
from aggregator_service.domain.credentials import Device
from aggregator_service.domain.rounds import AbortReason, Round, RoundState
from aggregator_service.domain.tasks import Task, TaskConfig
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from flasc_core.errors import Reason
from tests.builders import (
    NOW,
    a_config,
    a_device,
    a_download,
    a_policy,
    a_round,
    a_task,
    an_adapter,
    an_update,
    some_counts,
    some_training,
    stored,
)

__all__ = ["History", "a_history"]

DEVICES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    task: Task
    # In order of number: all published but an aborted one and the last, which is collecting.
    rounds: tuple[Round, ...]
    devices: tuple[Device, ...]


def a_history(
    store: Store,
    blobs: BlobStore,
    *,
    name: str = "debian-sections",
    rounds: int = 5,
    aborted: int = 3,
    config: TaskConfig | None = None,
    start: datetime = NOW,
    download_bytes: int = 50,
    update_bytes: int = 60,
) -> History:
    """`rounds` of a task with four devices, each with three accepted updates and one expired.

    The download went twice to each device, and an update came back from each that was accepted;
    one update of the second round was refused for NON_FINITE. Devices got 20 + 4 per version
    of 100 examples right.
    """
    task = a_task(
        name=name,
        created_at=start,
        config=config or a_config(policy=a_policy(goal=3, quorum=2)),
    )
    devices = tuple(a_device(name=f"{name}-{i}", last_seen_at=start) for i in range(DEVICES))
    stored(store, task, *devices, _adapter(blobs, task, None))
    version, history = 0, []
    for number in range(1, rounds + 1):
        opened = start + timedelta(minutes=3 * number)
        ended = RoundState.PUBLISHED
        if number in (aborted, rounds):
            ended = RoundState.ABORTED if number == aborted else RoundState.COLLECTING
        downloads = {"": a_download(size_bytes=download_bytes)}
        shown = replace(_round(task, number, version, ended, opened), downloads=downloads)
        history.append(shown)
        stored(store, shown)
        for index, device in enumerate(devices):
            part = _take_part(store, shown, device, expired=index == 0)
            sent = 0 if index == 0 else update_bytes
            _count_bytes(store, part, down=2 * download_bytes, up=sent)
            if sent:
                stored(store, an_update(part, payload_bytes=sent))
        if ended is RoundState.PUBLISHED:
            stored(store, _adapter(blobs, task, shown))
            version += 1
    refused = history[min(1, rounds - 1)]
    store.run(
        "refuse",
        lambda tx: tx.rejections.count(Reason.NON_FINITE, task_id=task.id, round_id=refused.id),
    )
    return History(task=task, rounds=tuple(history), devices=devices)


def _round(task: Task, number: int, version: int, state: RoundState, opened: datetime) -> Round:
    shown = a_round(task, state=state, number=number, base_version=version)
    closed = None if state is RoundState.COLLECTING else opened + timedelta(seconds=40 + number)
    return replace(
        shown,
        created_at=opened,
        opened_at=opened,
        closed_at=closed,
        ended_at=None if closed is None else closed + timedelta(seconds=1),
        abort_reason=AbortReason.OPERATOR if state is RoundState.ABORTED else None,
    )


def _take_part(store: Store, shown: Round, device: Device, *, expired: bool) -> Assignment:
    opened = shown.opened_at
    assert opened is not None
    part = Assignment(
        id=uuid4(),
        task_id=shown.task_id,
        round_id=shown.id,
        device_id=device.id,
        state=AssignmentState.TRAINING,
        download_sha256=a_download().sha256,
        download_size_bytes=shown.downloads[""].size_bytes,
        training_seed=1,
        assigned_at=opened,
        expires_at=opened + timedelta(minutes=10),
    )
    stored(store, part)
    if expired:
        done = part.end(AssignmentState.EXPIRED, opened + timedelta(seconds=30))
    else:
        correct = min(20 + 4 * shown.base_version, 92)
        done = part.end(
            AssignmentState.ACCEPTED,
            opened + timedelta(seconds=30),
            training_metrics=some_training(
                examples=10, loss_mean=2.5 * math.exp(-0.05 * shown.number)
            ),
            evaluation=some_counts(correct=correct, total=100, loss_sum=300 - 2.5 * correct),
        )
    store.run("end", lambda tx: tx.assignments.save(done))
    return part


def _count_bytes(store: Store, part: Assignment, *, down: int, up: int) -> None:
    store.run("count", lambda tx: tx.assignments.add_bytes(part.id, down=down, up=up))


def _adapter(blobs: BlobStore, task: Task, origin: Round | None) -> Adapter:
    dim = task.config.layout.dim
    version = 0 if origin is None else origin.base_version + 1
    weights = np.sin(np.arange(dim, dtype=np.float32) + version)
    key, digest = put_weights(blobs, task.id, weights)
    mask_nnz = task.config.count_widest_download(version)
    return an_adapter(task, origin, weights_key=key, weights_sha256=digest, mask_nnz=mask_nnz)
