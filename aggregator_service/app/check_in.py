"""A device asks for work."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID, uuid4

from aggregator_service.app.private_cohort import may_take_part, seats_of
from aggregator_service.domain.assignments import Assignment, AssignmentState
from aggregator_service.domain.credentials import Device
from aggregator_service.domain.rounds import Round, RoundKind, RoundPolicy
from aggregator_service.domain.tasks import Task, TaskConfig, TaskState
from aggregator_service.store.base import Lock, Store, Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["Assigned", "CheckIn", "CheckInResult", "Finished", "Query", "RetryLater"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a device tells of itself; empty digests where it does not know yet."""

    task_name: str
    layout_fingerprint: bytes = b""
    base_model_sha256: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    task: Task
    round: Round
    assignment: Assignment


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryLater:
    policy: RoundPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    final_version: int


CheckInResult: TypeAlias = Assigned | RetryLater | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckIn:
    store: Store
    now: Callable[[], datetime]

    def __call__(self, device_id: UUID, query: Query) -> CheckInResult:
        """One assignment per device and round; a repeated check-in gets the same one.

        Refuses TASK_UNKNOWN, LAYOUT_MISMATCH and BASE_MODEL_MISMATCH.
        """
        now = self.now()
        # Most check-ins find no work. They only read, so they never wait for a writer.
        answer = self.store.read("check_in_look", lambda tx: self._look(tx, device_id, query, now))
        if answer is not None:
            return answer
        return self.store.run("check_in", lambda tx: self._assign(tx, device_id, query, now))

    def _look(
        self, tx: Transaction, device_id: UUID, query: Query, now: datetime
    ) -> CheckInResult | None:
        """The answer, or None where a seat in the round may be had."""
        task = tx.tasks.get_by_name(query.task_name)
        if task is None:
            raise Refusal(Reason.TASK_UNKNOWN, "no task has this name", task=query.task_name[:63])
        _check_model(task, query)
        wait = RetryLater(policy=task.config.policy)
        if task.state.is_final:
            latest = tx.adapters.latest(task.id)
            return Finished(final_version=0 if latest is None else latest.version)
        current = tx.rounds.latest(task.id)
        if current is None or not current.admits(now):
            return wait
        existing = tx.assignments.of_device(current.id, device_id)
        if existing is not None:
            if existing.state is AssignmentState.TRAINING and now < existing.expires_at:
                return Assigned(task=task, round=current, assignment=existing)
            return wait
        is_open = task.state is TaskState.RUNNING and _may_join(tx, task, current, device_id)
        return None if is_open else wait

    def _assign(
        self, tx: Transaction, device_id: UUID, query: Query, now: datetime
    ) -> CheckInResult:
        answer = self._look(tx, device_id, query, now)
        if answer is not None:
            return answer
        task = tx.tasks.get_by_name(query.task_name)
        latest = None if task is None else tx.rounds.latest(task.id)
        current = None if latest is None else tx.rounds.get(latest.id, Lock.SHARED)
        if task is None or current is None:
            raise AssertionError("a task and its rounds are never removed")
        seats = seats_of(tx, current)
        # Another round may have come since the device was looked at.
        admitted = current.admits(now) and _may_join(tx, task, current, device_id)
        if not admitted or not tx.rounds.take_seat(current.id, seats):
            return RetryLater(policy=task.config.policy)
        device = tx.devices.get(device_id)
        if device is None:
            raise AssertionError("devices are never removed")
        steps = tx.assignments.tier_steps(task.id, device_id)
        assignment = _new_assignment(current, device, task.config, steps, now)
        if not tx.assignments.add_if_absent(assignment):
            tx.rounds.free_seats(current.id, 1)
            return RetryLater(policy=task.config.policy)
        return Assigned(task=task, round=current, assignment=assignment)


def _check_model(task: Task, query: Query) -> None:
    layout = task.config.layout
    if query.layout_fingerprint not in (b"", layout.fingerprint):
        raise Refusal(
            Reason.LAYOUT_MISMATCH,
            "this device's adapter has other tensors than the task's; build it with the rank, "
            "targets and head of the task's PEFT configuration",
            expected=layout.fingerprint.hex(),
        )
    base = task.config.base_model
    if query.base_model_sha256 not in (b"", base.sha256):
        raise Refusal(
            Reason.BASE_MODEL_MISMATCH,
            f"this device's frozen weights are not those of {base.name!r}; load that model",
            expected=base.sha256.hex(),
        )


def _may_join(tx: Transaction, task: Task, current: Round, device_id: UUID) -> bool:
    rests = _must_rest(tx, task, current, device_id)
    return not rests and may_take_part(tx, task, current, device_id)


def _must_rest(tx: Transaction, task: Task, current: Round, device_id: UUID) -> bool:
    separation = current.policy.minimum_separation
    if separation == 0 or current.kind is RoundKind.EVALUATION:
        return False
    last = tx.assignments.last_accepted_round(task.id, device_id)
    return last is not None and current.number - last <= separation


def _new_assignment(
    current: Round, device: Device, config: TaskConfig, steps: int, now: datetime
) -> Assignment:
    if current.deadline is None:
        raise AssertionError("a collecting round has a deadline")
    tier = config.tier_below(config.tier_of(device.tier), steps)
    download = current.downloads[tier]
    return Assignment(
        id=uuid4(),
        task_id=current.task_id,
        round_id=current.id,
        device_id=device.id,
        state=AssignmentState.TRAINING,
        download_sha256=download.sha256,
        download_size_bytes=download.size_bytes,
        tier=tier,
        tier_steps=steps,
        # 63 bits: fits every database's signed integer.
        training_seed=secrets.randbits(63),
        assigned_at=now,
        expires_at=current.deadline,
    )
