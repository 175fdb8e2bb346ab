"""What rounds hold of private tasks' budgets, in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, select, update

from aggregator_service.domain.privacy import Budget, Draw, Reservation
from aggregator_service.domain.rounds import RoundState
from aggregator_service.store.base import LostRace
from aggregator_service.store.sql.statements import insert_if_absent
from aggregator_service.store.sql.tables import reservations, rounds

__all__ = ["SqlReservations"]


@dataclass(frozen=True, slots=True)
class SqlReservations:
    connection: Connection

    def add(self, reservation: Reservation) -> None:
        draw = reservation.draw
        row = {
            "round_id": reservation.round_id,
            "task_id": reservation.task_id,
            "rounds": reservation.rounds,
            "epsilon": reservation.epsilon,
            "is_last": reservation.is_last,
            "draw_seed": None if draw is None else draw.seed,
            "draw_threshold": None if draw is None else draw.threshold,
            "draw_devices": None if draw is None else draw.devices,
            "drawn_at": None if draw is None else draw.drawn_at,
            "noise_seed": reservation.noise_seed,
        }
        if not insert_if_absent(self.connection, reservations, row, "round_id"):
            raise LostRace(f"round {reservation.round_id} has its reservation already")

    def get(self, round_id: UUID) -> Reservation | None:
        query = select(reservations).where(reservations.c.round_id == round_id)
        row = self.connection.execute(query).first()
        return None if row is None else _from_row(row)

    def of_rounds(self, round_ids: Collection[UUID]) -> Mapping[UUID, Reservation]:
        query = select(reservations).where(reservations.c.round_id.in_(round_ids))
        return {row.round_id: _from_row(row) for row in self.connection.execute(query)}

    def fix_noise(self, round_id: UUID, seed: bytes) -> None:
        query = update(reservations).where(
            reservations.c.round_id == round_id, reservations.c.noise_seed.is_(None)
        )
        if self.connection.execute(query.values(noise_seed=seed)).rowcount != 1:
            raise LostRace(f"round {round_id} has its noise already")

    def scrub(self, round_id: UUID) -> None:
        secrets = ("draw_seed", "draw_threshold", "draw_devices", "drawn_at", "noise_seed")
        query = update(reservations).where(reservations.c.round_id == round_id)
        self.connection.execute(query.values(dict.fromkeys(secrets)))

    def budget(self, task_id: UUID) -> Budget:
        is_held = rounds.c.state != RoundState.ABORTED.value
        is_published = rounds.c.state == RoundState.PUBLISHED.value
        query = (
            select(
                func.count().filter(is_held).label("rounds_reserved"),
                func.max(reservations.c.epsilon).filter(is_held).label("epsilon_reserved"),
                func.count().filter(is_published).label("rounds_published"),
                func.max(reservations.c.epsilon).filter(is_published).label("epsilon_spent"),
                func.count().filter(is_held, reservations.c.is_last).label("last_ones"),
            )
            .select_from(reservations.join(rounds, rounds.c.id == reservations.c.round_id))
            .where(reservations.c.task_id == task_id)
        )
        row = self.connection.execute(query).one()
        return Budget(
            rounds_reserved=row.rounds_reserved,
            epsilon_reserved=row.epsilon_reserved or 0.0,
            rounds_published=row.rounds_published,
            epsilon_spent=row.epsilon_spent or 0.0,
            is_exhausted=row.last_ones > 0,
        )


def _from_row(row: Row[Any]) -> Reservation:
    draw = None
    if row.draw_seed is not None:
        draw = Draw(
            seed=row.draw_seed,
            threshold=row.draw_threshold,
            devices=row.draw_devices,
            drawn_at=row.drawn_at,
        )
    return Reservation(
        round_id=row.round_id,
        task_id=row.task_id,
        rounds=row.rounds,
        epsilon=row.epsilon,
        is_last=row.is_last,
        draw=draw,
        noise_seed=row.noise_seed,
    )
