"""A device fetches the adapter that its assignment starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from aggregator_service.app.own_assignment import own_work
from aggregator_service.domain.rounds import DownloadFile
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from flasc_core.errors import Reason, Refusal

__all__ = ["ReadDownload"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadDownload:
    store: Store
    blobs: BlobStore
    now: Callable[[], datetime]

    def __call__(self, device_id: UUID, assignment_id: UUID, offset: int) -> DownloadFile:
        """The file to send from `offset` on.

        Refuses ASSIGNMENT_UNKNOWN, ASSIGNMENT_EXPIRED, and OFFSET_RANGE past the file's end.
        """
        work = self.store.read("read_download", lambda tx: own_work(tx, device_id, assignment_id))
        work.assignment.check_open(self.now())
        download = work.round.downloads[work.assignment.tier]
        if offset > download.size_bytes:
            raise Refusal(
                Reason.OFFSET_RANGE,
                f"the download has {download.size_bytes} bytes; start at 0",
                round_id=str(work.round.id),
            )
        return download

    def chunk(self, download: DownloadFile, offset: int, length: int) -> bytes:
        return self.blobs.read(download.key, offset, length)

    def charge(self, assignment_id: UUID, sent_bytes: int) -> None:
        """Enters payload bytes that were sent, whole downloads or not, into the byte ledger."""
        self.store.run(
            "charge_download", lambda tx: tx.assignments.add_bytes(assignment_id, down=sent_bytes)
        )
