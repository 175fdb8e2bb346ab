"""What must be true of a task at its end: nothing was lost, and nothing counted twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from tests.support.one_hot import contributions

__all__ = ["Receipts", "adapters_of", "check_conservation", "rounds_of"]

# The ids of acknowledged updates, by round and then by the number of the device.
Receipts = Mapping[UUID, Mapping[int, UUID]]
_ALL = 100_000


def rounds_of(store: Store, task_id: UUID) -> Sequence[Round]:
    """Oldest first."""
    page = store.read("test", lambda tx: tx.rounds.page(task_id, limit=_ALL, before_number=None))
    return list(reversed(page))


def adapters_of(store: Store, task_id: UUID) -> Sequence[Adapter]:
    """Oldest first."""
    page = store.read("test", lambda tx: tx.adapters.page(task_id, limit=_ALL, before_version=None))
    return list(reversed(page))


def check_conservation(store: Store, blobs: BlobStore, task_id: UUID, receipts: Receipts) -> None:
    """Every acknowledged update is in one published version once, or in a round without one.

    And what was never acknowledged counts nowhere. Versions have no gaps, and no round has two.
    """
    adapters = adapters_of(store, task_id)
    assert [adapter.version for adapter in adapters] == list(range(len(adapters)))
    by_round = {adapter.round_id: adapter for adapter in adapters[1:]}
    assert len(by_round) == len(adapters) - 1
    for one in rounds_of(store, task_id):
        acknowledged = receipts.get(one.id, {})
        ledger = _ledger(store, one.id)
        assert sorted(ledger) == sorted(acknowledged.values()), one
        adapter = by_round.pop(one.id, None)
        assert (adapter is not None) == (one.state is RoundState.PUBLISHED), one
        if adapter is not None:
            counted = contributions(blobs, adapters[adapter.version - 1], adapter)
            assert counted == dict.fromkeys(acknowledged, 1), one
            assert adapter.divisor == len(counted) == one.accepted_updates
    assert not by_round


def _ledger(store: Store, round_id: UUID) -> Sequence[UUID]:
    return store.read("test", lambda tx: tx.updates.ids(round_id))
