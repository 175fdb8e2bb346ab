"""An operator ends a round without an adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from aggregator_service.domain.events import Event
from aggregator_service.domain.rounds import AbortReason, Round
from aggregator_service.store.base import Lock, Store, Transaction
from flasc_core.errors import Reason, Refusal

__all__ = ["AbortRound", "abort_open_round"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortRound:
    store: Store
    now: Callable[[], datetime]

    def __call__(self, round_id: UUID) -> Round:
        """Its updates are dropped, and the task goes on with the next round.

        A round that has ended stays as it is. Refuses ROUND_UNKNOWN.
        """
        now = self.now()
        return self.store.run("abort_round", lambda tx: abort_open_round(tx, round_id, now))


def abort_open_round(tx: Transaction, round_id: UUID, now: datetime) -> Round:
    current = tx.rounds.get(round_id, Lock.EXCLUSIVE)
    if current is None:
        raise Refusal(Reason.ROUND_UNKNOWN, "no such round", round_id=str(round_id))
    if current.state.is_final:
        return current
    aborted = current.abort(now, AbortReason.OPERATOR)
    tx.rounds.save(aborted)
    tx.assignments.expire(round_id, now, all_open=True)
    tx.updates.scrub(round_id)
    tx.reservations.scrub(round_id)
    tx.events.append(Event(task_id=current.task_id, round_id=round_id, state=aborted.state, at=now))
    return aborted
