"""An operator takes one device's update out of a round that still collects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from aggregator_service.app.round_blobs import drop_payload
from aggregator_service.domain.events import Event
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.updates import Update, UpdateState
from aggregator_service.store.base import Lock, Store, Transaction
from aggregator_service.store.blobs import BlobStore
from flasc_core.errors import Reason, Refusal

__all__ = ["RetractUpdate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetractUpdate:
    store: Store
    blobs: BlobStore
    now: Callable[[], datetime]

    def __call__(self, round_id: UUID, device_id: UUID, reason: str) -> Update:
        """The update counts no more, as if the device had never taken part; safe to repeat.

        Its payload is destroyed: at once, or, where an accumulator holds the update already, by
        the driver that takes it out, exactly and before the round can be published. The
        assignment ends as RETRACTED with `reason`, its seat is free for another device, and this
        one gets no other in the round. Refuses ROUND_UNKNOWN, UPDATE_UNKNOWN, and ROUND_CLOSED
        once the round has closed.
        """
        now = self.now()
        update = self.store.run(
            "retract_update", lambda tx: _retract(tx, round_id, device_id, reason, now)
        )
        if update.state is UpdateState.RETRACTED:
            drop_payload(self.blobs, update)
        return update


def _retract(
    tx: Transaction, round_id: UUID, device_id: UUID, reason: str, now: datetime
) -> Update:
    # Shared, as for an upload: the closer waits, so the set that it counts is final.
    current = tx.rounds.get(round_id, Lock.SHARED)
    if current is None:
        raise Refusal(Reason.ROUND_UNKNOWN, "no such round", round_id=str(round_id))
    update = tx.updates.get(round_id, device_id)
    if update is None:
        raise Refusal(
            Reason.UPDATE_UNKNOWN,
            "this device has handed in no update in this round; revoke it to keep it from doing so",
            round_id=str(round_id),
            device_id=str(device_id),
        )
    if update.is_retracted:
        return update
    _check_collects(current)
    assignment = tx.assignments.get(update.assignment_id)
    if assignment is None:
        raise AssertionError("an update has its assignment")
    retracted = tx.updates.retract(update)
    tx.assignments.save(assignment.retract(now, reason))
    tx.rounds.free_seats(round_id, 1)
    tx.events.append(Event(task_id=current.task_id, round_id=round_id, state=current.state, at=now))
    return retracted


def _check_collects(current: Round) -> None:
    if current.state is RoundState.COLLECTING:
        return
    if current.state.is_final:
        what_next = (
            "its payloads are destroyed; a version that it published stays as it is, and an "
            "earlier one can be exported instead"
        )
    else:
        what_next = "abort the round, and nothing of it is published"
    raise Refusal(
        Reason.ROUND_CLOSED,
        f"the round is {current.state}, and its updates are fixed: {what_next}",
        round_id=str(current.id),
    )
