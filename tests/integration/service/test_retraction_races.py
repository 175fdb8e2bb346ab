"""Retractions and the close at once: a round closes with just what was not retracted before."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from aggregator_service.app.close_round import CloseRound
from aggregator_service.app.retract_update import RetractUpdate
from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.updates import Update
from aggregator_service.store.base import Store
from aggregator_service.store.memory import MemoryBlobs
from flasc_core.errors import Reason, Refusal
from tests.builders import (
    NOW,
    a_config,
    a_device,
    a_policy,
    a_round,
    a_task,
    an_assignment,
    an_update,
    stored,
)
from tests.support.patience import PATIENCE_SECONDS

ROUNDS, DEVICES, GOAL, OPERATORS = 30, 8, 6, 4


def race(store: Store, current: Round, updates: list[Update]) -> set[UUID]:
    """Operators retract one update each while the round closes; returns what was refused."""
    start = threading.Barrier(OPERATORS + 1)
    retract = RetractUpdate(store=store, blobs=MemoryBlobs(), now=lambda: NOW)
    close = CloseRound(store=store, now=lambda: NOW)

    def ask(update: Update) -> Reason | None:
        start.wait(PATIENCE_SECONDS)
        try:
            retract(current.id, update.device_id, "a reason")
        except Refusal as refusal:
            return refusal.reason
        return None

    with ThreadPoolExecutor(max_workers=OPERATORS) as operators:
        asking = [operators.submit(ask, update) for update in updates[:OPERATORS]]
        start.wait(PATIENCE_SECONDS)
        close(current)
        answers = [one.result() for one in asking]
    assert set(answers) <= {None, Reason.ROUND_CLOSED}
    return {updates[number].id for number, reason in enumerate(answers) if reason}


def test_a_round_closes_with_what_was_not_retracted_before(sql_store: Store) -> None:
    task = a_task(config=a_config(policy=a_policy(goal=GOAL, quorum=1)))
    devices = [a_device() for _ in range(DEVICES)]
    stored(sql_store, task, *devices)
    for number in range(1, ROUNDS + 1):
        current = a_round(task, state=RoundState.COLLECTING, number=number)
        parts = [
            an_assignment(current, device, state=AssignmentState.ACCEPTED) for device in devices
        ]
        updates = [an_update(part) for part in parts]
        stored(sql_store, current, *parts, *updates)
        for _ in devices:
            sql_store.run("seat", lambda tx, new=current: tx.rounds.take_seat(new.id, DEVICES))  # type: ignore[misc]

        refused = race(sql_store, current, updates)

        left, ids = sql_store.read(
            "test",
            lambda tx, new=current: (tx.rounds.get(new.id), tx.updates.ids(new.id)),  # type: ignore[misc]
        )
        kept = {update.id for update in updates[OPERATORS:]}
        assert set(ids) == kept | refused
        assert left is not None
        # Who comes first is the machine's business; either way every update counts or does not.
        if left.state is RoundState.CLOSING:
            assert left.accepted_updates == len(ids)
        else:
            assert len(ids) < GOAL
