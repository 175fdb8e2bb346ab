"""A service's rounds once more in process: the cohorts that its ledger holds, device by device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import TaskConfig
from aggregator_service.store.base import Store, Transaction
from client_sdk.trainer import Trainer
from flasc_sim.federation import Federation, Participation

__all__ = ["RecordedRound", "RecordedSeat", "recorded_rounds", "replay"]

_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSeat:
    """A device whose update is a part of a version, with the seed that its assignment gave it."""

    device_id: UUID
    seed: int
    tier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRound:
    """A round that made version `version` of `base_version`."""

    base_version: int
    seats: tuple[RecordedSeat, ...]


def recorded_rounds(store: Store, task_id: UUID) -> list[RecordedRound]:
    """Read the rounds that published a version, oldest first."""
    return store.read("recorded rounds", lambda tx: list(reversed(list(_newest(tx, task_id)))))


def _newest(tx: Transaction, task_id: UUID) -> Iterator[RecordedRound]:
    before: int | None = None
    while page := tx.rounds.page(task_id, limit=_PAGE, before_number=before):
        for stored in page:
            if stored.state is RoundState.PUBLISHED:
                seats = tuple(_seats(tx, stored.id))
                yield RecordedRound(base_version=stored.base_version, seats=seats)
        before = page[-1].number


def _seats(tx: Transaction, round_id: UUID) -> Iterator[RecordedSeat]:
    after: UUID | None = None
    while page := tx.assignments.page(round_id, limit=_PAGE, after=after):
        for record in page:
            given = record.assignment
            if given.state is AssignmentState.ACCEPTED:
                yield RecordedSeat(
                    device_id=given.device_id, seed=given.training_seed, tier=given.tier
                )
        after = page[-1].assignment.id


def replay(
    config: TaskConfig,
    weights: NDArray[np.float32],
    rounds: Iterable[RecordedRound],
    trainers: Mapping[UUID, Trainer],
) -> Iterator[bytes]:
    """Yield the SHA-256 of the version that each round makes, from the task's initial `weights`.

    They are the versions that the service published, if trainers are what the devices had: the
    same model, rows, caching and number of threads. A private task's noise is not replayed.
    """
    federation = Federation(config, weights)
    for recorded in rounds:
        if recorded.base_version != federation.round_index:
            raise ValueError(
                f"the ledger goes from version {federation.round_index} to "
                f"{recorded.base_version}; a round is missing"
            )
        federation.run_round(
            Participation(trainer=trainers[seat.device_id], seed=seat.seed, tier=seat.tier)
            for seat in recorded.seats
        )
        yield sha256(federation.weights.tobytes()).digest()
