"""Blobs in memory."""

from __future__ import annotations

from collections.abc import Iterator

from aggregator_service.store.blobs import BlobMissing, check_key, check_prefix

__all__ = ["MemoryBlobs"]


class MemoryBlobs:
    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        check_key(key)
        self._blobs.setdefault(key, bytes(data))

    def get(self, key: str) -> bytes:
        check_key(key)
        try:
            return self._blobs[key]
        except KeyError:
            raise BlobMissing(key) from None

    def read(self, key: str, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        return self.get(key)[offset : offset + length]

    def delete(self, key: str) -> None:
        check_key(key)
        self._blobs.pop(key, None)

    def keys(self, prefix: str) -> Iterator[str]:
        check_prefix(prefix)
        return iter([key for key in self._blobs if key.startswith(prefix)])

    def forget(self, folder: str) -> None:
        """A dictionary has no folders."""
        check_key(folder)

    def check_ready(self) -> None:
        """Memory is always ready."""
