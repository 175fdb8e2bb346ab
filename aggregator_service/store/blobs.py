"""Immutable byte strings named by key: payloads, accumulators, adapters, downloads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

__all__ = ["BlobMissing", "BlobStore"]


class BlobMissing(Exception):
    """No blob has this key."""


class BlobStore(Protocol):
    """Keys are relative paths of lower-case letters, digits, dashes and slashes.

    A key names one content for ever (keys hold the content's SHA-256), so a repeated put is
    harmless and a reader needs no lock.
    """

    def put(self, key: str, data: bytes) -> None:
        """Durable when it returns. Raises StoreUnavailable where it can not be stored."""

    def get(self, key: str) -> bytes:
        """Raises BlobMissing."""

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; empty past the end. Raises BlobMissing."""

    def delete(self, key: str) -> None:
        """Repeating is harmless."""

    def keys(self, prefix: str) -> Iterator[str]: ...

    def check_ready(self) -> None:
        """Raises StoreUnavailable unless a blob could be written now."""
