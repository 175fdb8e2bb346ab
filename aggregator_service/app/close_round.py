"""A collecting round ends on its goal or its deadline."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.events import Event
from aggregator_service.domain.rounds import Round, RoundKind, RoundState
from aggregator_service.store.base import Lock, Store, Transaction
from flasc_core.noise import SEED_BYTES

__all__ = ["CloseRound"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseRound:
    store: Store
    now: Callable[[], datetime]

    def __call__(self, collecting: Round) -> bool:
        """Expires late assignments and closes the round where it is time; True if it closed.

        The exclusive lock waits for uploads in flight, so the count it fixes is final. What the
        noise of a private task's round is drawn from is fixed with it.
        """
        now = self.now()
        noise_seed = secrets.token_bytes(SEED_BYTES)
        # Looking first keeps idle polls from locking uploads out.
        if not self.store.read("close_round_look", lambda tx: _is_due(tx, collecting, now)):
            return False

        def body(tx: Transaction) -> bool:
            current = tx.rounds.get(collecting.id, Lock.EXCLUSIVE)
            if current is None or current.state is not RoundState.COLLECTING:
                return False
            ticked = _tick(tx, current, now)
            if ticked is current:
                return False
            tx.rounds.save(ticked)
            tx.assignments.expire(current.id, now, all_open=True)
            if ticked.state is RoundState.ABORTED:
                tx.updates.scrub(current.id)
                tx.reservations.scrub(current.id)
            elif tx.reservations.get(current.id) is not None:
                # With the set that is accepted: whoever publishes it, draws the same noise.
                tx.reservations.fix_noise(current.id, noise_seed)
            tx.events.append(
                Event(task_id=current.task_id, round_id=current.id, state=ticked.state, at=now)
            )
            return True

        return self.store.run("close_round", body)


def _is_due(tx: Transaction, collecting: Round, now: datetime) -> bool:
    return _tick(tx, collecting, now) is not collecting


def _tick(tx: Transaction, current: Round, now: datetime) -> Round:
    reservation = tx.reservations.get(current.id)
    draw = None if reservation is None else reservation.draw
    drawn = None if draw is None else draw.devices
    return current.tick(now, _reported(tx, current), drawn=drawn)


def _reported(tx: Transaction, current: Round) -> int:
    if current.kind is RoundKind.EVALUATION:
        return tx.assignments.count(current.id, AssignmentState.EVALUATED)
    return tx.updates.count(current.id)
