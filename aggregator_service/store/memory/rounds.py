"""Tasks, rounds and assignments in memory."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from aggregator_service.domain.assignments import Assignment, AssignmentState, Evaluation
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import Task, TaskState
from aggregator_service.store.base import AssignmentRecord, Lock, LostRace
from aggregator_service.store.figures import ByteFigures, RoundFigures, TierFigures, TierRound
from aggregator_service.store.memory.tables import Bytes, Tables, require
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import Role

__all__ = ["MemoryAssignments", "MemoryRounds", "MemoryTasks"]


@dataclass(frozen=True, slots=True)
class MemoryTasks:
    tables: Tables

    def add(self, task: Task) -> None:
        if self.get_by_name(task.name) is not None:
            raise Refusal(
                Reason.NAME_TAKEN, f"a task named {task.name!r} exists already", name=task.name
            )
        require(task.id not in self.tables.tasks, f"task {task.id} exists already")
        self.tables.tasks[task.id] = task

    def get(self, task_id: UUID, lock: Lock = Lock.NONE) -> Task | None:
        del lock
        return self.tables.tasks.get(task_id)

    def get_by_name(self, name: str) -> Task | None:
        return next((task for task in self.tables.tasks.values() if task.name == name), None)

    def in_state(self, state: TaskState) -> Sequence[Task]:
        return [task for task in reversed(self._newest_first()) if task.state is state]

    def page(self, *, limit: int, after: UUID | None) -> Sequence[Task]:
        tasks = self._newest_first()
        if after is not None:
            last = self.tables.tasks.get(after)
            tasks = [] if last is None else [task for task in tasks if _age(task) < _age(last)]
        return tasks[:limit]

    def save(self, task: Task) -> None:
        stored = self.tables.tasks.get(task.id)
        if stored is None or stored.revision != task.revision:
            raise LostRace(f"task {task.id} has moved past revision {task.revision}")
        self.tables.tasks[task.id] = replace(task, revision=task.revision + 1)

    def _newest_first(self) -> list[Task]:
        return sorted(self.tables.tasks.values(), key=_age, reverse=True)


@dataclass(frozen=True, slots=True)
class MemoryRounds:
    tables: Tables

    def add(self, new: Round) -> None:
        if any(known.number == new.number for known in self._of_task(new.task_id)):
            raise LostRace(f"task {new.task_id} has a round {new.number} already")
        require(new.id not in self.tables.rounds, f"round {new.id} exists already")
        require(new.task_id in self.tables.tasks, f"there is no task {new.task_id}")
        self.tables.rounds[new.id] = new

    def get(self, round_id: UUID, lock: Lock = Lock.NONE) -> Round | None:
        del lock
        return self.tables.rounds.get(round_id)

    def numbered(self, task_id: UUID, number: int) -> Round | None:
        return next((one for one in self._of_task(task_id) if one.number == number), None)

    def latest(self, task_id: UUID) -> Round | None:
        return max(self._of_task(task_id), key=_number, default=None)

    def latest_of(self, task_ids: Collection[UUID]) -> Mapping[UUID, Round]:
        found = {task_id: self.latest(task_id) for task_id in task_ids}
        return {task_id: newest for task_id, newest in found.items() if newest is not None}

    def page(self, task_id: UUID, *, limit: int, before_number: int | None) -> Sequence[Round]:
        before = math.inf if before_number is None else before_number
        older = [one for one in self._of_task(task_id) if one.number < before]
        return sorted(older, key=_number, reverse=True)[:limit]

    def save(self, changed: Round) -> None:
        stored = self.tables.rounds.get(changed.id)
        if stored is None or stored.revision != changed.revision:
            raise LostRace(f"round {changed.id} has moved past revision {changed.revision}")
        self.tables.rounds[changed.id] = replace(changed, revision=changed.revision + 1)

    def take_seat(self, round_id: UUID, seats: int) -> bool:
        if round_id not in self.tables.rounds or self.tables.seats_taken[round_id] >= seats:
            return False
        self.tables.seats_taken[round_id] += 1
        return True

    def free_seats(self, round_id: UUID, count: int) -> None:
        require(
            self.tables.seats_taken[round_id] >= count,
            f"round {round_id} has fewer than {count} seats taken",
        )
        self.tables.seats_taken[round_id] -= count

    def _of_task(self, task_id: UUID) -> list[Round]:
        return [known for known in self.tables.rounds.values() if known.task_id == task_id]


@dataclass(frozen=True, slots=True)
class MemoryAssignments:
    tables: Tables

    def add_if_absent(self, assignment: Assignment) -> bool:
        if self.of_device(assignment.round_id, assignment.device_id) is not None:
            return False
        tables, identifier = self.tables, assignment.id
        require(identifier not in tables.assignments, f"assignment {identifier} exists already")
        require(assignment.round_id in tables.rounds, f"there is no round {assignment.round_id}")
        require(assignment.device_id in tables.devices, f"no device {assignment.device_id}")
        _check_finite(assignment)
        tables.assignments[identifier] = assignment
        tables.bytes_of[identifier] = Bytes()
        return True

    def get(self, assignment_id: UUID) -> Assignment | None:
        return self.tables.assignments.get(assignment_id)

    def of_device(self, round_id: UUID, device_id: UUID) -> Assignment | None:
        return next((one for one in self._of_round(round_id) if one.device_id == device_id), None)

    def save(self, changed: Assignment) -> None:
        stored = self.tables.assignments.get(changed.id)
        if stored is None or stored.revision != changed.revision:
            raise LostRace(f"assignment {changed.id} has moved past revision {changed.revision}")
        _check_finite(changed)
        self._store(changed)

    def expire(self, round_id: UUID, now: datetime, *, all_open: bool = False) -> int:
        late = [
            one
            for one in self._of_round(round_id)
            if one.state is AssignmentState.TRAINING and (all_open or one.expires_at <= now)
        ]
        for assignment in late:
            self._store(assignment.end(AssignmentState.EXPIRED, now))
        return len(late)

    def count(self, round_id: UUID, state: AssignmentState) -> int:
        return sum(one.state is state for one in self._of_round(round_id))

    def participations(self, task_id: UUID, device_id: UUID) -> int:
        return len(self._took_part(task_id, device_id))

    def tier_steps(self, task_id: UUID, device_id: UUID) -> int:
        return max(
            (
                one.tier_steps
                for one in self.tables.assignments.values()
                if one.task_id == task_id
                and one.device_id == device_id
                and one.state is AssignmentState.ACCEPTED
            ),
            default=0,
        )

    def last_accepted_round(self, task_id: UUID, device_id: UUID) -> int | None:
        rounds = self._took_part(task_id, device_id)
        return max((one.number for one in rounds), default=None)

    def _took_part(self, task_id: UUID, device_id: UUID) -> list[Round]:
        accepted = (
            self.tables.rounds[one.round_id]
            for one in self.tables.assignments.values()
            if one.task_id == task_id
            and one.device_id == device_id
            and one.state is AssignmentState.ACCEPTED
        )
        return [one for one in accepted if one.state is not RoundState.ABORTED]

    def add_bytes(self, assignment_id: UUID, *, down: int = 0, up: int = 0) -> None:
        known = self.tables.bytes_of.get(assignment_id)
        if known is not None:
            self.tables.bytes_of[assignment_id] = Bytes(down=known.down + down, up=known.up + up)

    def evaluation(self, round_id: UUID) -> Evaluation | None:
        return _summed([one.evaluation for one in self._of_round(round_id) if one.evaluation])

    def figures(self, round_ids: Collection[UUID]) -> Mapping[UUID, RoundFigures]:
        return {round_id: self._figures(round_id) for round_id in round_ids}

    def _figures(self, round_id: UUID) -> RoundFigures:
        assignments = self._of_round(round_id)
        states = Counter(one.state for one in assignments)
        trained = [
            one.training_metrics
            for one in assignments
            if one.state is AssignmentState.ACCEPTED and one.training_metrics is not None
        ]
        examples = sum(one.examples for one in trained)
        weighted_loss = sum(one.loss_mean * one.examples for one in trained)
        return RoundFigures(
            assignments={state: states[state] for state in AssignmentState},
            examples=examples,
            steps=sum(one.steps for one in trained),
            loss_mean=weighted_loss / examples if examples else None,
            evaluation=self.evaluation(round_id),
            tiers={
                tier: self._tier([one for one in assignments if one.tier == tier])
                for tier in sorted({one.tier for one in assignments})
            },
        )

    def page(self, round_id: UUID, *, limit: int, after: UUID | None) -> Sequence[AssignmentRecord]:
        in_order = sorted(self._of_round(round_id), key=lambda one: one.id)
        return [self._record(one) for one in in_order if after is None or one.id > after][:limit]

    def rounds_by_tier(self, task_id: UUID) -> Mapping[str, Sequence[TierRound]]:
        rounds = [one for one in self.tables.rounds.values() if one.task_id == task_id]
        found: defaultdict[str, list[TierRound]] = defaultdict(list)
        for one in sorted(rounds, key=_number):
            for tier, figures in self._figures(one.id).tiers.items():
                part = TierRound(number=one.number, base_version=one.base_version, figures=figures)
                found[tier].append(part)
        return dict(sorted(found.items()))

    def _tier(self, assignments: Sequence[Assignment]) -> TierFigures:
        return TierFigures(
            assigned=len(assignments),
            bytes=self._bytes(assignments),
            evaluation=_summed([one.evaluation for one in assignments if one.evaluation]),
            values_by_role={
                role: sum(one.values_by_role.get(role, 0) for one in assignments) for role in Role
            },
        )

    def _bytes(self, assignments: Sequence[Assignment]) -> ByteFigures:
        records = [self._record(one) for one in assignments]
        states = [one.assignment.state for one in records]
        return ByteFigures(
            down=sum(one.payload_bytes_down for one in records),
            up=sum(one.payload_bytes_up for one in records),
            wasted_down=sum(one.wasted_bytes_down for one in records),
            wasted_up=sum(one.wasted_bytes_up for one in records),
            download_size_bytes=max(one.assignment.download_size_bytes for one in records),
            updates_accepted=states.count(AssignmentState.ACCEPTED),
        )

    def _record(self, assignment: Assignment) -> AssignmentRecord:
        moved = self.tables.bytes_of[assignment.id]
        used_down = used_up = 0
        if assignment.state.uses_download:
            used_down = min(moved.down, assignment.download_size_bytes)
        if assignment.state is AssignmentState.ACCEPTED:
            used_up = sum(
                one.payload_bytes
                for one in self.tables.updates.values()
                if one.assignment_id == assignment.id
            )
        return AssignmentRecord(
            assignment=assignment,
            payload_bytes_down=moved.down,
            payload_bytes_up=moved.up,
            wasted_bytes_down=moved.down - used_down,
            wasted_bytes_up=moved.up - used_up,
        )

    def _of_round(self, round_id: UUID) -> list[Assignment]:
        return [one for one in self.tables.assignments.values() if one.round_id == round_id]

    def _store(self, changed: Assignment) -> None:
        self.tables.assignments[changed.id] = replace(changed, revision=changed.revision + 1)


def _age(task: Task) -> tuple[datetime, UUID]:
    return task.created_at, task.id


def _number(one: Round) -> int:
    return one.number


def _summed(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    if not evaluations:
        return None
    return Evaluation(
        correct=sum(one.correct for one in evaluations),
        total=sum(one.total for one in evaluations),
        loss_sum=sum(one.loss_sum for one in evaluations),
    )


def _check_finite(assignment: Assignment) -> None:
    """As on SQL, whose databases do not all keep NaN."""
    training, evaluation = assignment.training_metrics, assignment.evaluation
    numbers = [] if training is None else [training.loss_mean, training.seconds]
    numbers += [] if evaluation is None else [evaluation.loss_sum]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a number that is not finite can not be stored")
