"""The rows of the in-memory store: dictionaries of frozen values, copied as a whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from uuid import UUID

from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.assignments import Assignment
from aggregator_service.domain.credentials import ApiKey, Device
from aggregator_service.domain.events import Event
from aggregator_service.domain.privacy import Reservation
from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import Task
from aggregator_service.domain.updates import FoldProgress, Update
from flasc_core.errors import Reason

__all__ = ["Bytes", "Tables", "require"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes:
    down: int = 0
    up: int = 0


@dataclass(slots=True, kw_only=True)
class Tables:
    tasks: dict[UUID, Task] = field(default_factory=dict)
    rounds: dict[UUID, Round] = field(default_factory=dict)
    seats_taken: Counter[UUID] = field(default_factory=Counter)
    assignments: dict[UUID, Assignment] = field(default_factory=dict)
    bytes_of: dict[UUID, Bytes] = field(default_factory=dict)
    # By id, in the order of the ledger.
    updates: dict[UUID, Update] = field(default_factory=dict)
    accumulators: dict[tuple[UUID, int], FoldProgress] = field(default_factory=dict)
    reservations: dict[UUID, Reservation] = field(default_factory=dict)
    adapters: dict[tuple[UUID, int], Adapter] = field(default_factory=dict)
    devices: dict[UUID, Device] = field(default_factory=dict)
    api_keys: dict[UUID, ApiKey] = field(default_factory=dict)
    rejections: Counter[tuple[Reason, UUID | None, UUID | None]] = field(default_factory=Counter)
    events: dict[int, Event] = field(default_factory=dict)

    def copy(self) -> Tables:
        return Tables(**{entry.name: getattr(self, entry.name).copy() for entry in fields(self)})


def require(holds: bool, broken: str) -> None:
    """What SQL would answer with an IntegrityError is a bug of the caller here too."""
    if not holds:
        raise AssertionError(broken)
