"""What the service asks of a database, as protocols that SQL and the in-memory store both keep.

Times are aware UTC and always passed in. A method that changes rows does so inside the
transaction it was called in; nobody commits by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, unique
from typing import Protocol, TypeVar
from uuid import UUID

from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.assignments import Assignment, AssignmentState, Evaluation
from aggregator_service.domain.credentials import ApiKey, Device
from aggregator_service.domain.events import Event
from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import Task, TaskState
from aggregator_service.domain.updates import FoldProgress, Update
from aggregator_service.store.figures import RoundFigures, TierRound
from aggregator_service.store.reservations import Reservations
from flasc_core.errors import Reason

__all__ = [
    "Accumulators",
    "Adapters",
    "ApiKeys",
    "Assignments",
    "DeviceCounts",
    "Devices",
    "Events",
    "LedgerSummary",
    "Lock",
    "LostRace",
    "NotDurable",
    "Rejections",
    "Rounds",
    "Store",
    "StoreUnavailable",
    "Tasks",
    "Transaction",
    "Updates",
    "WrongAddress",
]

T = TypeVar("T")


class LostRace(Exception):
    """Somebody else changed the row first; the transaction starts over."""


class StoreUnavailable(Exception):
    """The database can not be reached or can not write now; trying again later can help."""


class NotDurable(Exception):
    """The database may forget what it has committed; the service refuses to run on it."""


class WrongAddress(ValueError):
    """No database or blob store of the service's has such a URL."""


@unique
class Lock(Enum):
    NONE = "NONE"
    # Others may read and share; nobody may change the row until this transaction ends.
    SHARED = "SHARED"
    EXCLUSIVE = "EXCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSummary:
    """The accepted set of one round in three numbers that an accumulator must agree with."""

    count: int
    weight_sum: int
    # XOR over SHA-256(update id bytes), 32 bytes.
    id_xor: bytes


class Tasks(Protocol):
    def add(self, task: Task) -> None:
        """Raises Refusal(NAME_TAKEN) where the name exists."""

    def get(self, task_id: UUID, lock: Lock = Lock.NONE) -> Task | None: ...

    def get_by_name(self, name: str) -> Task | None: ...

    def in_state(self, state: TaskState) -> Sequence[Task]: ...

    def page(self, *, limit: int, after: UUID | None) -> Sequence[Task]:
        """Newest first; `after` is the last id of the page before."""

    def save(self, task: Task) -> None:
        """Stores task with revision + 1; raises LostRace if its revision is no longer current."""


class Rounds(Protocol):
    def add(self, new: Round) -> None:
        """Adds the round with no seats taken; raises LostRace where (task, number) exists."""

    def get(self, round_id: UUID, lock: Lock = Lock.NONE) -> Round | None: ...

    def numbered(self, task_id: UUID, number: int) -> Round | None: ...

    def latest(self, task_id: UUID) -> Round | None:
        """The round with the highest number."""

    def latest_of(self, task_ids: Collection[UUID]) -> Mapping[UUID, Round]:
        """By task, the round with the highest number; tasks without rounds are absent."""

    def page(self, task_id: UUID, *, limit: int, before_number: int | None) -> Sequence[Round]:
        """Newest first."""

    def save(self, changed: Round) -> None:
        """Stores the round with revision + 1; raises LostRace if its revision has moved on."""

    def take_seat(self, round_id: UUID, seats: int) -> bool:
        """Takes one of the round's `seats` unless all are taken; exact under concurrency."""

    def free_seats(self, round_id: UUID, count: int) -> None: ...


class Assignments(Protocol):
    def add_if_absent(self, assignment: Assignment) -> bool:
        """False where the device already has an assignment in the round; nothing is changed."""

    def get(self, assignment_id: UUID) -> Assignment | None: ...

    def of_device(self, round_id: UUID, device_id: UUID) -> Assignment | None: ...

    def save(self, changed: Assignment) -> None:
        """Stores it with revision + 1; raises LostRace if its revision has moved on."""

    def expire(self, round_id: UUID, now: datetime, *, all_open: bool = False) -> int:
        """Ends as EXPIRED the open ones past their time (or every open one); returns how many."""

    def count(self, round_id: UUID, state: AssignmentState) -> int: ...

    def participations(self, task_id: UUID, device_id: UUID) -> int:
        """In how many rounds an update of this device was accepted, aborted ones not counted."""

    def tier_steps(self, task_id: UUID, device_id: UUID) -> int:
        """The most of this device's accepted updates in the task; 0 before the first."""

    def last_accepted_round(self, task_id: UUID, device_id: UUID) -> int | None:
        """Number of the last round in which an update of this device was accepted, as above."""

    def add_bytes(self, assignment_id: UUID, *, down: int = 0, up: int = 0) -> None:
        """Adds to the byte ledger; no revision is checked or raised."""

    def evaluation(self, round_id: UUID) -> Evaluation | None:
        """Summed over every device of the round that reported one; None before the first."""

    def figures(self, round_ids: Collection[UUID]) -> Mapping[UUID, RoundFigures]:
        """Of every one of these rounds, whether or not it has assignments."""

    def rounds_by_tier(self, task_id: UUID) -> Mapping[str, Sequence[TierRound]]:
        """Of tiers with assignments, in order of name; the rounds of each, oldest first."""

    def page(self, round_id: UUID, *, limit: int, after: UUID | None) -> Sequence[AssignmentRecord]:
        """In order of id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentRecord:
    """An assignment with its entry in the byte ledger."""

    assignment: Assignment
    payload_bytes_down: int
    payload_bytes_up: int
    # As in ByteFigures.
    wasted_bytes_down: int
    wasted_bytes_up: int


class Updates(Protocol):
    def add_if_absent(self, update: Update) -> bool:
        """False where (round, device) already has an update; nothing is changed."""

    def get(self, round_id: UUID, device_id: UUID) -> Update | None: ...

    def pending(self, round_id: UUID, shard: int, limit: int) -> Sequence[Update]:
        """What one shard's accumulator has yet to learn, in ledger order, with its payloads.

        ACCEPTED updates are to be added, RETRACTING ones to be taken out.
        """

    def pending_count(self, round_id: UUID) -> int: ...

    def retracting_count(self, round_id: UUID) -> int: ...

    def mark_folded(self, update_ids: Sequence[UUID]) -> None:
        """Raises LostRace unless every one of them was ACCEPTED."""

    def retract(self, update: Update) -> Update:
        """Stores update.retract(), or raises LostRace if its state has moved on."""

    def mark_retracted(self, update_ids: Sequence[UUID]) -> None:
        """Drops their inline payloads; raises LostRace unless every one of them was RETRACTING."""

    def retracted(self, round_id: UUID) -> Sequence[Update]:
        """RETRACTED updates in ledger order, whether or not their blobs still exist."""

    def count(self, round_id: UUID) -> int:
        """Of the accepted set: here and below, retracted updates are none of it."""

    def ids(self, round_id: UUID) -> Sequence[UUID]:
        """In ledger order."""

    def summary(self, round_id: UUID) -> LedgerSummary: ...

    def weights_by_tier(self, round_id: UUID) -> Mapping[str, int]:
        """Sums over the accepted set, by the tiers of its assignments."""

    def scrub(self, round_id: UUID) -> Sequence[str]:
        """Drops inline payloads, and returns the keys of all blobs.

        FOLDED and ACCEPTED updates become SCRUBBED, RETRACTING ones RETRACTED. Repeating returns
        the same keys, so that a crash before their deletion loses none.
        """


class Accumulators(Protocol):
    def ensure(self, round_id: UUID, shards: int) -> None:
        """Creates the missing rows of shards 0 to shards - 1."""

    def lease(
        self, round_id: UUID, shard: int, *, token: UUID, now: datetime, duration: timedelta
    ) -> FoldProgress | None:
        """Takes the shard until now + duration; None while somebody else holds it."""

    def commit(self, progress: FoldProgress, *, token: UUID) -> None:
        """Stores key and updates_folded with version + 1 and ends the lease.

        Raises LostRace where the lease is no longer `token`'s or the version has moved on.
        """

    def release(self, round_id: UUID, shard: int, *, token: UUID) -> None:
        """Ends `token`'s lease, if it still has it."""

    def all(self, round_id: UUID) -> Sequence[FoldProgress]:
        """In order of shard."""


class Adapters(Protocol):
    def add(self, adapter: Adapter) -> None:
        """Raises LostRace where (task, version) exists."""

    def get(self, task_id: UUID, version: int) -> Adapter | None: ...

    def latest(self, task_id: UUID) -> Adapter | None: ...

    def latest_versions(self, task_ids: Collection[UUID]) -> Mapping[UUID, int]:
        """By task; tasks without adapters are absent."""

    def page(self, task_id: UUID, *, limit: int, before_version: int | None) -> Sequence[Adapter]:
        """Newest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCounts:
    # Trusted now: revoked ones are not among them.
    enrolled: int
    revoked: int
    # Enrolled, and heard of at or after the time asked for.
    seen: int


class Devices(Protocol):
    def add(self, device: Device) -> None:
        """Raises Refusal(NAME_TAKEN) where the name exists."""

    def get(self, device_id: UUID) -> Device | None: ...

    def page(self, *, limit: int, after: UUID | None) -> Sequence[Device]:
        """In order of id."""

    def revoke(self, device_id: UUID, now: datetime) -> None:
        """Repeating keeps the first time."""

    def set_tier(self, device_id: UUID, tier: str) -> None: ...

    def touch(self, device_id: UUID, now: datetime) -> None: ...

    def counts(self, *, seen_since: datetime) -> DeviceCounts: ...

    def enrolled_before(self, when: datetime) -> Sequence[UUID]:
        """Those that are not revoked, in no order."""


class ApiKeys(Protocol):
    def add(self, key: ApiKey) -> None: ...

    def get(self, key_id: UUID, lock: Lock = Lock.NONE) -> ApiKey | None: ...

    def page(self, *, limit: int, after: UUID | None) -> Sequence[ApiKey]: ...

    def revoke(self, key_id: UUID, now: datetime) -> None:
        """With all keys that were made with it, and with those; ended ones keep their time.

        Whoever makes one has its maker exclusively, so that none is left out.
        """


class Rejections(Protocol):
    def count(self, reason: Reason, *, task_id: UUID | None, round_id: UUID | None) -> None:
        """Adds one."""

    def by_round(self, round_ids: Collection[UUID]) -> Mapping[UUID, Mapping[Reason, int]]:
        """Of every one of these rounds; reasons that it has no refusals for are absent."""

    def of_task(self, task_id: UUID) -> Mapping[Reason, int]:
        """Over all rounds of a task."""

    def totals(self) -> Mapping[Reason, int]:
        """Over everything, refusals that name no round included."""


class Events(Protocol):
    def append(self, event: Event) -> None:
        """Best done last: from here to its commit, readers of events may wait for this one."""

    def after(self, sequence: int, *, limit: int, task_id: UUID | None = None) -> Sequence[Event]:
        """Events with a higher sequence, oldest first."""

    def last_sequence(self) -> int: ...


class Transaction(Protocol):
    @property
    def tasks(self) -> Tasks: ...
    @property
    def rounds(self) -> Rounds: ...
    @property
    def assignments(self) -> Assignments: ...
    @property
    def updates(self) -> Updates: ...
    @property
    def accumulators(self) -> Accumulators: ...
    @property
    def reservations(self) -> Reservations: ...
    @property
    def adapters(self) -> Adapters: ...
    @property
    def devices(self) -> Devices: ...
    @property
    def api_keys(self) -> ApiKeys: ...
    @property
    def rejections(self) -> Rejections: ...
    @property
    def events(self) -> Events: ...


class Store(Protocol):
    def run(self, name: str, body: Callable[[Transaction], T]) -> T:
        """Runs `body` in one transaction and commits it, retrying lost races.

        `body` may run more than once, so it touches nothing but the transaction. `name` labels
        metrics and logs. Exceptions roll back and pass through; StoreUnavailable is raised where
        the database itself fails.
        """

    def read(self, name: str, body: Callable[[Transaction], T]) -> T:
        """Runs a `body` that only reads; on SQLite it does not wait for the one writer."""

    def check_ready(self) -> None:
        """Raises StoreUnavailable unless the database answers and has the expected revision."""

    def close(self) -> None: ...
