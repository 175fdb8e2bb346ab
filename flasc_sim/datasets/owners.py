"""Owners of rows as numbers that are the same in every process."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

__all__ = ["number_owners"]


def number_owners(owners: Sequence[int | str | None], *, rows: int) -> NDArray[np.int64]:
    """Number each owner: numbers stay, names become their CRC-32, rows of nobody their own row."""
    if len(owners) != rows:
        raise ValueError(f"{len(owners)} owners for {rows} rows")
    return np.array([_number(owner, row) for row, owner in enumerate(owners)], dtype=np.int64)


def _number(owner: int | str | None, row: int) -> int:
    if isinstance(owner, str):
        return crc32(owner.encode())
    return row if owner is None or owner < 0 else owner
