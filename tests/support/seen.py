"""What tests look up in the store that no device is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.assignments import Assignment
from aggregator_service.domain.credentials import SecretKind, claimed_id
from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import Task, TaskState
from aggregator_service.domain.updates import Update
from aggregator_service.store.base import AssignmentRecord, Store, Transaction
from aggregator_service.store.figures import RoundFigures
from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.support.device import SyntheticDevice


def device_id_of(device: SyntheticDevice) -> UUID:
    return claimed_id(SecretKind.DEVICE, device.credential)


def task_state(store: Store, task: Task) -> TaskState:
    found = store.read("seen", lambda tx: tx.tasks.get(task.id))
    assert found is not None
    return found.state


def rounds_of(store: Store, task: Task) -> list[Round]:
    """Oldest first."""
    page = store.read("seen", lambda tx: tx.rounds.page(task.id, limit=100, before_number=None))
    return list(reversed(page))


def figures_of(store: Store, current: Round) -> RoundFigures:
    return store.read("seen", lambda tx: tx.assignments.figures([current.id])[current.id])


def assignment_of(store: Store, given: pb.Assignment) -> Assignment:
    return record_of(store, given).assignment


def record_of(store: Store, given: pb.Assignment) -> AssignmentRecord:
    """The assignment with its bytes."""
    records = store.read("seen", lambda tx: _records(tx, UUID(bytes=given.round_id)))
    return next(one for one in records if one.assignment.id.bytes == given.assignment_id)


def updates_of(store: Store, current: Round) -> list[Update]:
    """In no order."""

    def body(tx: Transaction) -> list[Update]:
        devices = [one.assignment.device_id for one in _records(tx, current.id)]
        found = [tx.updates.get(current.id, device) for device in devices]
        return [update for update in found if update is not None]

    return store.read("seen", body)


def rejections_of(store: Store, current: Round) -> Mapping[Reason, int]:
    return store.read("seen", lambda tx: tx.rejections.by_round([current.id])[current.id])


def all_rejections(store: Store) -> Mapping[Reason, int]:
    return store.read("seen", lambda tx: dict(tx.rejections.totals()))


def adapters_of(store: Store, task: Task) -> list[Adapter]:
    """Oldest first."""
    page = store.read("seen", lambda tx: tx.adapters.page(task.id, limit=100, before_version=None))
    return list(reversed(page))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All of a round that decides anything: not its bytes, not its counts of refusals."""

    round: Round
    assignments: tuple[Assignment, ...]
    updates: tuple[Update | None, ...]
    versions: int
    events: int


def standing_of(store: Store, current: Round) -> Standing:
    def body(tx: Transaction) -> Standing:
        stored = tx.rounds.get(current.id)
        latest = tx.adapters.latest(current.task_id)
        assert stored is not None
        assert latest is not None
        assignments = tuple(one.assignment for one in _records(tx, current.id))
        return Standing(
            round=stored,
            assignments=assignments,
            updates=tuple(tx.updates.get(current.id, one.device_id) for one in assignments),
            versions=latest.version,
            events=tx.events.last_sequence(),
        )

    return store.read("seen", body)


def _records(tx: Transaction, round_id: UUID) -> list[AssignmentRecord]:
    return list(tx.assignments.page(round_id, limit=1_000, after=None))
