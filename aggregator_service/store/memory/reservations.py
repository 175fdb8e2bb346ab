"""What rounds hold of private tasks' budgets, in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from aggregator_service.domain.privacy import Budget, Reservation
from aggregator_service.domain.rounds import RoundState
from aggregator_service.store.base import LostRace
from aggregator_service.store.memory.tables import Tables, require

__all__ = ["MemoryReservations"]


@dataclass(frozen=True, slots=True)
class MemoryReservations:
    tables: Tables

    def add(self, reservation: Reservation) -> None:
        round_id = reservation.round_id
        if round_id in self.tables.reservations:
            raise LostRace(f"round {round_id} has its reservation already")
        require(round_id in self.tables.rounds, f"there is no round {round_id}")
        self.tables.reservations[round_id] = reservation

    def get(self, round_id: UUID) -> Reservation | None:
        return self.tables.reservations.get(round_id)

    def of_rounds(self, round_ids: Collection[UUID]) -> Mapping[UUID, Reservation]:
        known = self.tables.reservations
        return {round_id: known[round_id] for round_id in round_ids if round_id in known}

    def fix_noise(self, round_id: UUID, seed: bytes) -> None:
        known = self.get(round_id)
        if known is None or known.noise_seed is not None:
            raise LostRace(f"round {round_id} has its noise already")
        self.tables.reservations[round_id] = replace(known, noise_seed=seed)

    def scrub(self, round_id: UUID) -> None:
        known = self.get(round_id)
        if known is not None:
            self.tables.reservations[round_id] = replace(known, draw=None, noise_seed=None)

    def budget(self, task_id: UUID) -> Budget:
        states = {
            one: self.tables.rounds[one.round_id].state
            for one in self.tables.reservations.values()
            if one.task_id == task_id
        }
        held = [one for one, state in states.items() if state is not RoundState.ABORTED]
        published = [one for one, state in states.items() if state is RoundState.PUBLISHED]
        return Budget(
            rounds_reserved=len(held),
            epsilon_reserved=max((one.epsilon for one in held), default=0.0),
            rounds_published=len(published),
            epsilon_spent=max((one.epsilon for one in published), default=0.0),
            is_exhausted=any(one.is_last for one in held),
        )
