"""A published adapter version: the master weights and the optimizer state that go on from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

__all__ = ["Adapter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """Version 0 is the initial adapter; every published round adds the next one."""

    task_id: UUID
    version: int
    # The round that published it; None for version 0.
    round_id: UUID | None
    # Little-endian float32 master weights in layout order, a blob named by content.
    weights_key: str
    weights_sha256: bytes
    # The optimizer's step, and its slot arrays as one safetensors blob.
    optimizer_step: int
    optimizer_key: str
    # What devices run: the nonzeros of P*M under the method's download mask.
    mask_nnz: int
    # What the updates' sum was divided by; 0 for version 0.
    divisor: int
    created_at: datetime
