"""Payloads and accumulators live only until their round is over."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore

__all__ = ["SweepBlobs", "drop_round_blobs"]


def drop_round_blobs(blobs: BlobStore, round_id: UUID) -> None:
    """Removes what a round that has ended still keeps. Safe to repeat."""
    for key in list(blobs.keys(f"rounds/{round_id}/")):
        blobs.delete(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepBlobs:
    store: Store
    blobs: BlobStore

    def __call__(self) -> int:
        """Drops the blobs that a crash or an abort left to ended rounds; returns how many had some.

        Rounds that are still open, and rounds this store does not know, are left alone.
        """
        ids = {UUID(key.split("/")[1]) for key in self.blobs.keys("rounds/")}
        ended = [round_id for round_id in sorted(ids) if self._has_ended(round_id)]
        for round_id in ended:
            drop_round_blobs(self.blobs, round_id)
        return len(ended)

    def _has_ended(self, round_id: UUID) -> bool:
        found = self.store.read("sweep_look", lambda tx: tx.rounds.get(round_id))
        return found is not None and found.state.is_final
