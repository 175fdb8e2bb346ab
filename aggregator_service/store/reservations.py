"""What the service asks of a database about private tasks' budgets, as a protocol like `base`'s."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol
from uuid import UUID

from aggregator_service.domain.privacy import Budget, Reservation

__all__ = ["Reservations"]


class Reservations(Protocol):
    def add(self, reservation: Reservation) -> None:
        """Raises LostRace where the round has one."""

    def get(self, round_id: UUID) -> Reservation | None: ...

    def of_rounds(self, round_ids: Collection[UUID]) -> Mapping[UUID, Reservation]:
        """Rounds without a reservation are absent."""

    def fix_noise(self, round_id: UUID, seed: bytes) -> None:
        """Stores the seed of the round's noise; raises LostRace where there is one already."""

    def scrub(self, round_id: UUID) -> None:
        """Forgets the draw and the seed of the round's noise, if it has any."""

    def budget(self, task_id: UUID) -> Budget: ...
