"""A closed round gets the manifest of what it folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from aggregator_service.domain.events import Event
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.store.base import Lock, Store, Transaction

__all__ = ["BeginFolding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginFolding:
    store: Store
    now: Callable[[], datetime]

    def __call__(self, closing: Round) -> None:
        """Fixes the manifest of a closed round. Safe to repeat."""

        def body(tx: Transaction) -> None:
            current = tx.rounds.get(closing.id, Lock.EXCLUSIVE)
            if current is None or current.state is not RoundState.CLOSING:
                return
            ids = tx.updates.ids(current.id)
            if len(ids) != current.accepted_updates:
                raise AssertionError("an update was accepted after its round had closed")
            manifest = sha256(b"".join(update_id.bytes for update_id in ids)).digest()
            folding = current.begin_folding(manifest)
            tx.rounds.save(folding)
            tx.events.append(
                Event(
                    task_id=current.task_id, round_id=current.id, state=folding.state, at=self.now()
                )
            )

        self.store.run("begin_folding", body)
