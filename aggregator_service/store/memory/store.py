"""Transactions in memory: one at a time, each on a copy that takes the place of what was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from aggregator_service.store.base import LostRace, Transaction
from aggregator_service.store.memory.ledger import (
    MemoryAccumulators,
    MemoryAdapters,
    MemoryUpdates,
)
from aggregator_service.store.memory.parties import (
    MemoryApiKeys,
    MemoryDevices,
    MemoryEvents,
    MemoryRejections,
)
from aggregator_service.store.memory.reservations import MemoryReservations
from aggregator_service.store.memory.rounds import MemoryAssignments, MemoryRounds, MemoryTasks
from aggregator_service.store.memory.tables import Tables

__all__ = ["MemoryStore"]

T = TypeVar("T")

ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class _MemoryTransaction:
    tasks: MemoryTasks
    rounds: MemoryRounds
    assignments: MemoryAssignments
    updates: MemoryUpdates
    accumulators: MemoryAccumulators
    reservations: MemoryReservations
    adapters: MemoryAdapters
    devices: MemoryDevices
    api_keys: MemoryApiKeys
    rejections: MemoryRejections
    events: MemoryEvents


class MemoryStore:
    """Forgets everything when it goes; never waits and never fails."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._writing = threading.Lock()
        self._writer: int | None = None

    def run(self, name: str, body: Callable[[Transaction], T]) -> T:
        del name
        if self._writer == threading.get_ident():
            raise AssertionError("a transaction's body began another transaction")
        with self._writing:
            self._writer = threading.get_ident()
            try:
                return self._commit(body)
            finally:
                self._writer = None

    def _commit(self, body: Callable[[Transaction], T]) -> T:
        for _ in range(ATTEMPTS - 1):
            try:
                return self._attempt(body)
            except LostRace:
                # As on SQL, a body may run more than once.
                continue
        return self._attempt(body)

    def _attempt(self, body: Callable[[Transaction], T]) -> T:
        changed = self._tables.copy()
        result = body(_transaction(changed))
        self._tables = changed
        return result

    def read(self, name: str, body: Callable[[Transaction], T]) -> T:
        del name
        return body(_transaction(self._tables.copy()))

    def check_ready(self) -> None:
        """Memory is always ready."""

    def close(self) -> None:
        """There is nothing to close."""


def _transaction(tables: Tables) -> _MemoryTransaction:
    return _MemoryTransaction(
        tasks=MemoryTasks(tables),
        rounds=MemoryRounds(tables),
        assignments=MemoryAssignments(tables),
        updates=MemoryUpdates(tables),
        accumulators=MemoryAccumulators(tables),
        reservations=MemoryReservations(tables),
        adapters=MemoryAdapters(tables),
        devices=MemoryDevices(tables),
        api_keys=MemoryApiKeys(tables),
        rejections=MemoryRejections(tables),
        events=MemoryEvents(tables),
    )
