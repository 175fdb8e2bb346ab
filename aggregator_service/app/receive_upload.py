"""A device streams an update: what arrives is kept piece by piece, so that a broken stream resumes.

begin ──▶ keep, keep, … ──▶ __call__ ──▶ receipt, or refused: the pieces go
             └── broken ──▶ the pieces stay ──▶ durable_bytes ──▶ begin …
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from aggregator_service.app.own_assignment import Work, own_work
from aggregator_service.app.submit_update import SubmitUpdate
from aggregator_service.app.upload_pieces import UploadPieces
from aggregator_service.app.upload_rules import (
    Receipt,
    UpdateHeader,
    check_header,
    check_repeats,
    check_size,
    repeated,
)
from aggregator_service.domain.updates import Update
from aggregator_service.store.base import Store, Transaction
from aggregator_service.store.blobs import BlobMissing, BlobStore
from flasc_core.errors import Reason, Refusal

__all__ = ["PIECE_BYTES", "ReceiveUpload", "Upload"]

# What a broken stream may lose, and what each holds in memory; as large as the SDK's messages.
PIECE_BYTES: Final = 512 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A payload that its device may send: the header has been checked."""

    header: UpdateHeader
    round_id: UUID
    # A stream may start at any offset up to here.
    durable_bytes: int
    piece_bytes: int

    @property
    def size_bytes(self) -> int:
        return self.header.payload_size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveUpload:
    store: Store
    blobs: BlobStore
    submit_update: SubmitUpdate
    now: Callable[[], datetime]
    piece_bytes: int = PIECE_BYTES

    def durable_bytes(self, device_id: UUID, assignment_id: UUID, payload_sha256: bytes) -> int:
        """How many leading bytes of that payload are durable; all of an accepted update's.

        Refuses ASSIGNMENT_UNKNOWN, ASSIGNMENT_EXPIRED, ROUND_CLOSED, UPDATE_RETRACTED and
        UPDATE_CONFLICT.
        """
        work, accepted = self._look(device_id, assignment_id, payload_sha256)
        if accepted is not None:
            return accepted.payload_bytes
        return self._pieces(work.round.id, assignment_id).durable_bytes(payload_sha256)

    def begin(self, device_id: UUID, header: UpdateHeader) -> Upload:
        """Refuses what a header alone can be refused for."""
        work, accepted = self._look(device_id, header.assignment_id, header.payload_sha256)
        size = header.payload_size_bytes
        try:
            check_size(work, size)
            check_header(work, header)
        except Refusal as refusal:
            raise _about(refusal, work) from refusal
        durable = size
        if accepted is None:
            pieces = self._pieces(work.round.id, header.assignment_id)
            durable = pieces.durable_bytes(header.payload_sha256, size)
        return Upload(
            header=header,
            round_id=work.round.id,
            durable_bytes=durable,
            piece_bytes=self.piece_bytes,
        )

    def keep(self, upload: Upload, start: int, data: bytes, received_bytes: int) -> None:
        """Makes a piece durable, and charges what has been received since the last one.

        Pieces of another payload go.
        """
        self.charge(upload, received_bytes)
        header = upload.header
        pieces = self._pieces(upload.round_id, header.assignment_id)
        pieces.put(header.payload_sha256, upload.size_bytes, start, data)

    def charge(self, upload: Upload, received_bytes: int) -> None:
        """Enters payload bytes that arrived, whatever became of them, into the byte ledger."""
        self.store.run(
            "charge_upload",
            lambda tx: tx.assignments.add_bytes(upload.header.assignment_id, up=received_bytes),
        )

    def __call__(self, device_id: UUID, upload: Upload) -> Receipt:
        """Hands in the payload, all of which is durable; repeating is as harmless as SubmitUpdate.

        A refused payload is dropped: were it kept, a damaged one could never be sent again.
        """
        header = upload.header
        pieces = self._pieces(upload.round_id, header.assignment_id)
        try:
            receipt = self._submit(device_id, header, pieces)
        except Refusal:
            pieces.drop(header.payload_sha256)
            raise
        pieces.drop(header.payload_sha256)
        return receipt

    def _submit(self, device_id: UUID, header: UpdateHeader, pieces: UploadPieces) -> Receipt:
        try:
            payload = pieces.read(header.payload_sha256, header.payload_size_bytes)
        except BlobMissing:
            return self._repeat(device_id, header)
        return self.submit_update(device_id, header, payload, is_charged=True)

    def _repeat(self, device_id: UUID, header: UpdateHeader) -> Receipt:
        """The receipt again, where another stream's success is what dropped the pieces."""
        work, accepted = self._look(device_id, header.assignment_id, header.payload_sha256)
        if accepted is None:
            refusal = Refusal(
                Reason.DIGEST_MISMATCH,
                "another stream dropped parts of the payload; send the same bytes again",
            )
            raise _about(refusal, work)
        return repeated(accepted, work.round.policy)

    def _look(
        self, device_id: UUID, assignment_id: UUID, payload_sha256: bytes
    ) -> tuple[Work, Update | None]:
        """The assignment, and its update where that payload is the accepted one."""

        def body(tx: Transaction) -> tuple[Work, Update | None]:
            work = own_work(tx, device_id, assignment_id)
            return work, tx.updates.get(work.round.id, device_id)

        work, accepted = self.store.read("upload_look", body)
        try:
            if accepted is not None:
                check_repeats(accepted, payload_sha256)
            else:
                now = self.now()
                work.round.check_admits(now)
                work.assignment.check_open(now)
        except Refusal as refusal:
            raise _about(refusal, work) from refusal
        return work, accepted

    def _pieces(self, round_id: UUID, assignment_id: UUID) -> UploadPieces:
        return UploadPieces(blobs=self.blobs, round_id=round_id, assignment_id=assignment_id)


def _about(refusal: Refusal, work: Work) -> Refusal:
    return refusal.about(round_id=str(work.round.id), task_id=str(work.task.id))
