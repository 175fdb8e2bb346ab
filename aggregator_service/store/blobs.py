"""Immutable byte strings named by key: payloads, accumulators, adapters, downloads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Protocol

__all__ = ["BlobMissing", "BlobStore", "check_key", "check_prefix"]

_KEY: Final = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)*")
_PREFIX: Final = re.compile(r"([a-z0-9-]+/)*[a-z0-9-]*")


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

    def forget(self, folder: str) -> None:
        """Let go of whatever the store still has of keys below `folder` that were deleted.

        Blobs that are there, or are put at the same time, stay; repeating is harmless.
        """

    def check_ready(self) -> None:
        """Raises StoreUnavailable unless a blob could be written now."""


def check_key(key: str) -> None:
    """Raises ValueError for what is no key: a store must never be led to another file."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no blob key")


def check_prefix(prefix: str) -> None:
    """Raises ValueError for what no key begins with."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{prefix!r} is no beginning of a blob key")
