"""Payloads and accumulators live until their round is over, retracted payloads less long."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from aggregator_service.app.upload_pieces import UploadPieces
from aggregator_service.domain.updates import Update
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore

__all__ = ["SweepBlobs", "drop_payload", "drop_round_blobs"]


def drop_round_blobs(blobs: BlobStore, round_id: UUID) -> None:
    """Removes what a round that has ended still keeps. Safe to repeat."""
    folder = f"rounds/{round_id}"
    for key in list(blobs.keys(f"{folder}/")):
        blobs.delete(key)
    blobs.forget(folder)


def drop_payload(blobs: BlobStore, retracted: Update) -> None:
    """Removes what is left of a retracted update, pieces that were streamed and all."""
    if retracted.payload_key is not None:
        blobs.delete(retracted.payload_key)
    pieces = UploadPieces(
        blobs=blobs, round_id=retracted.round_id, assignment_id=retracted.assignment_id
    )
    pieces.drop(retracted.payload_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepBlobs:
    store: Store
    blobs: BlobStore

    def __call__(self) -> int:
        """Drops the blobs that a crash or an abort left; returns how many ended rounds had some.

        Rounds that are still open lose the payloads of retracted updates alone, and rounds this
        store does not know are left as they are.
        """
        ids = {UUID(key.split("/")[1]) for key in self.blobs.keys("rounds/")}
        return sum(self._sweep(round_id) for round_id in sorted(ids))

    def _sweep(self, round_id: UUID) -> bool:
        found, retracted = self.store.read(
            "sweep_look", lambda tx: (tx.rounds.get(round_id), tx.updates.retracted(round_id))
        )
        if found is None:
            return False
        if found.state.is_final:
            drop_round_blobs(self.blobs, round_id)
            return True
        for update in retracted:
            drop_payload(self.blobs, update)
        return False
