"""Fields and shapes that several schemas share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Digest", "Id", "Input", "Output", "Page", "Positive", "Seconds", "Time", "Whole"]

T = TypeVar("T")

Id = Annotated[UUID, Field(examples=["7f8c1d52-3c1e-4a7b-9d5b-0e2f6a1c4b8d"])]
Time = Annotated[datetime, Field(examples=["2026-05-04T10:00:00Z"])]
Seconds = Annotated[float, Field(ge=0, examples=[12.5])]
Whole = Annotated[int, Field(ge=0, le=2**31 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Digest = Annotated[
    str,
    Field(
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 in hexadecimal digits.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ),
]


class Input(BaseModel):
    """What clients send: a field that is not known is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Output(BaseModel):
    model_config = ConfigDict(frozen=True)


class Page(Output, Generic[T]):
    """Some items of a list, and where the next ones start."""

    items: list[T]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for the next page; null on the last one.",
        examples=["7f8c1d52-3c1e-4a7b-9d5b-0e2f6a1c4b8d"],
    )
