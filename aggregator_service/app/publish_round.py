"""A folded round becomes the next adapter version, exactly once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from aggregator_service.app.adapter_files import load_masters, load_state, put_state, put_weights
from aggregator_service.app.fold_updates import load_accumulator
from aggregator_service.app.follow_up import follow_up
from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.averaging import average, take_step
from aggregator_service.domain.downloads import Masters, mean_update
from aggregator_service.domain.events import Event
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import LedgerSummary, Lock, LostRace, Store, Transaction
from aggregator_service.store.blobs import BlobStore
from flasc_core.fold import Accumulator

__all__ = ["ConservationBroken", "PublishRound"]


class ConservationBroken(Exception):
    """The accumulators do not hold exactly the accepted set; nothing is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRound:
    store: Store
    blobs: BlobStore
    now: Callable[[], datetime]

    def __call__(self, task: Task, folding: Round) -> None:
        """Computes and publishes the next version once every update is folded. Safe to repeat.

        Everything is computed and durable before the one transaction that makes it visible; the
        loser of a race finds the round published and leaves it. The result depends on nothing but
        the base version, the accepted set, the task's configuration and, where it is private, the
        seed that was fixed as the round closed.
        """
        adapter = self._next_adapter(task, folding)

        def body(tx: Transaction) -> None:
            current = tx.rounds.get(folding.id, Lock.EXCLUSIVE)
            if current is None or current.state is not RoundState.FOLDING:
                return
            now = adapter.created_at
            tx.adapters.add(adapter)
            published = current.publish(now)
            tx.rounds.save(published)
            tx.updates.scrub(current.id)
            tx.reservations.scrub(current.id)
            tx.events.append(
                Event(task_id=task.id, round_id=current.id, state=published.state, at=now)
            )
            follow_up(tx, task.id, published, now)

        self.store.run("publish_round", body)

    def _next_adapter(self, task: Task, folding: Round) -> Adapter:
        config = task.config
        base, noise_seed = self.store.read("publish_look", lambda tx: _look(tx, folding))
        mean = average(config, self._total(task, folding), folding.index, noise_seed)

        @cache
        def masters_of(tier: str) -> Masters:
            return load_masters(self.store, self.blobs, task, folding.base_version, tier)

        by_tier = self.store.read(
            "publish_tiers", lambda tx: tx.updates.weights_by_tier(folding.id)
        )
        moved = mean_update(config, mean.values, masters_of, by_tier)
        weights, state = take_step(
            config, folding.index, masters_of("").weights, moved, load_state(self.blobs, base)
        )
        weights_key, weights_sha256 = put_weights(self.blobs, task.id, weights)
        return Adapter(
            task_id=task.id,
            version=folding.base_version + 1,
            round_id=folding.id,
            weights_key=weights_key,
            weights_sha256=weights_sha256,
            optimizer_step=state.step,
            optimizer_key=put_state(self.blobs, task.id, state),
            mask_nnz=config.count_widest_download(folding.base_version + 1),
            divisor=mean.divisor,
            created_at=self.now(),
        )

    def _total(self, task: Task, folding: Round) -> Accumulator:
        shards, ledger = self.store.read(
            "publish_accumulators",
            lambda tx: (tx.accumulators.all(folding.id), tx.updates.summary(folding.id)),
        )
        dim = task.config.layout.dim
        total = Accumulator.zeros(dim)
        for progress in shards:
            total.merge(load_accumulator(self.blobs, progress, dim))
        held = LedgerSummary(count=total.count, weight_sum=total.weight_sum, id_xor=total.id_xor)
        if held != ledger or held.count != folding.accepted_updates:
            raise ConservationBroken(
                f"round {folding.id}: accumulators hold {held.count} updates of weight "
                f"{held.weight_sum}, the ledger {ledger.count} of weight {ledger.weight_sum}, "
                f"the closed round {folding.accepted_updates}"
            )
        return total


def _look(tx: Transaction, folding: Round) -> tuple[Adapter, bytes | None]:
    """The version that the round started from, and the seed of its noise."""
    base = tx.adapters.get(folding.task_id, folding.base_version)
    current, reservation = tx.rounds.get(folding.id), tx.reservations.get(folding.id)
    if base is None or current is None:
        raise AssertionError("a round's base version exists")
    if current.state is not RoundState.FOLDING:
        raise LostRace(f"round {folding.id} is {current.state} already")
    return base, None if reservation is None else reservation.noise_seed
