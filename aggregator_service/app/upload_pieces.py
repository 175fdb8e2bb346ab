"""The part of a streamed payload that has arrived: pieces in the blob store, until it is whole.

rounds/<round>/uploads/<..>/<assignment>-<payload sha256>-<size>-<start>-<end>-<piece sha256>

A key names its content, so streams of one payload may write side by side and never mix with those
of another. The folder in between bounds both how many there are and how many files each holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from uuid import UUID

from aggregator_service.store.blobs import BlobMissing, BlobStore

__all__ = ["UploadPieces"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPieces:
    """What one assignment keeps. A payload is named by its SHA-256 and its size."""

    blobs: BlobStore
    round_id: UUID
    assignment_id: UUID

    def durable_bytes(self, payload_sha256: bytes, size_bytes: int | None = None) -> int:
        """How many leading bytes there are of that payload, of whichever size if none is named."""
        digest = payload_sha256.hex()
        name = digest if size_bytes is None else _name(payload_sha256, size_bytes)
        return max((end for end, _ in self._in_order(name)), default=0)

    def read(self, payload_sha256: bytes, size_bytes: int) -> bytes:
        """The whole payload, its digest not checked; raises BlobMissing unless all is there."""
        found = list(self._in_order(_name(payload_sha256, size_bytes)))
        if size_bytes and (not found or found[-1][0] != size_bytes):
            raise BlobMissing(f"a piece of an upload of assignment {self.assignment_id}")
        # Written into its place piece by piece: a join would hold all of them beside the whole.
        payload = BytesIO(bytes(size_bytes))
        for _, key in found:
            payload.write(self.blobs.get(key))
        return payload.getvalue()

    def put(self, payload_sha256: bytes, size_bytes: int, start: int, data: bytes) -> None:
        """Durable when it returns; keeps one piece for each start, and one payload.

        So an assignment takes up no more than its payload, whatever its device sends.
        """
        payload = f"{self._prefix}{_name(payload_sha256, size_bytes)}"
        place = f"{payload}{start:012d}-"
        end = start + len(data)
        self.blobs.put(f"{place}{end:012d}-{sha256(data).hexdigest()}", data)
        keys = sorted(self.blobs.keys(self._prefix))
        # All who write here at once agree on which one stays.
        rivals = [key for key in keys if key.startswith(place)][1:]
        others = [key for key in keys if not key.startswith(payload)]
        for key in rivals + others:
            self.blobs.delete(key)

    def drop(self, payload_sha256: bytes) -> None:
        for key in list(self.blobs.keys(f"{self._prefix}{payload_sha256.hex()}-")):
            self.blobs.delete(key)

    @property
    def _prefix(self) -> str:
        last_digits = str(self.assignment_id)[-2:]
        return f"rounds/{self.round_id}/uploads/{last_digits}/{self.assignment_id}-"

    def _in_order(self, name: str) -> Iterator[tuple[int, str]]:
        """Where each piece ends and its key, from the beginning to the first gap."""
        reached = 0
        for key in sorted(self.blobs.keys(f"{self._prefix}{name}")):
            start, end, _ = key.rsplit("-", 3)[1:]
            if int(start) == reached:
                reached = int(end)
                yield reached, key


def _name(payload_sha256: bytes, size_bytes: int) -> str:
    return f"{payload_sha256.hex()}-{size_bytes}-"
