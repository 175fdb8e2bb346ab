"""Adapter versions."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from admin_api.schemas.common import Digest, Id, Output, Time
from aggregator_service.domain.adapters import Adapter

__all__ = ["AdapterView"]


class AdapterView(Output):
    task_id: Id
    version: int = Field(description="0 is the initial adapter.", examples=[7])
    round_id: Id | None = Field(description="The round that published it; null for version 0.")
    created_at: Time
    weights_sha256: Digest = Field(description="Of the float32 master weights, little-endian.")
    dimension: int = Field(description="Values in the whole adapter.", examples=[671252])
    mask_nnz: int = Field(description="Values that devices run.", examples=[167813])
    updates_averaged: int = Field(
        description="What their sum was divided by, in a private task the goal; 0 for version 0.",
        examples=[10],
    )

    @classmethod
    def of(cls, adapter: Adapter, dimension: int) -> Self:
        return cls(
            task_id=adapter.task_id,
            version=adapter.version,
            round_id=adapter.round_id,
            created_at=adapter.created_at,
            weights_sha256=adapter.weights_sha256.hex(),
            dimension=dimension,
            mask_nnz=adapter.mask_nnz,
            updates_averaged=adapter.divisor,
        )
