"""Payload bytes of rounds and tasks, and what dense tensors would have taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field

from admin_api.schemas.common import Output
from aggregator_service.store.figures import ByteFigures

__all__ = ["DenseBytes", "PayloadBytes"]

_FLOAT32_BYTES = 4
_BFLOAT16_BYTES = 2


class DenseBytes(Output):
    """What dense tensors would have taken for the same work, wasted downloads included."""

    down: int = Field(
        description="In proportion to what was sent of each download.", examples=[26_850_080]
    )
    up: int = Field(description="One for every accepted update.", examples=[26_850_080])
    saving_factor: float | None = Field(
        description="Dense bytes over all bytes, wasted ones too; null before the first byte.",
        examples=[4.0],
    )

    @classmethod
    def of(cls, rounds: Sequence[ByteFigures], dense_bytes: int) -> Self:
        down = sum(
            round(one.down * dense_bytes / one.download_size_bytes)
            for one in rounds
            if one.download_size_bytes
        )
        up = sum(one.updates_accepted for one in rounds) * dense_bytes
        moved = sum(one.down + one.up for one in rounds)
        return cls(down=down, up=up, saving_factor=(down + up) / moved if moved else None)


class PayloadBytes(Output):
    """Payload bytes, to the byte; what TLS and HTTP/2 add is not in them."""

    down: int = Field(description="Sent to devices, repeats included.", examples=[6_710_000])
    up: int = Field(
        description="Received from devices, repeated and refused ones included.",
        examples=[6_650_000],
    )
    wasted_down: int = Field(
        description="Of `down`, all but one whole download of each device that is at work or came "
        "to a result.",
        examples=[1_220_000],
    )
    wasted_up: int = Field(
        description="Of `up`, all but one payload of each accepted update.", examples=[665_000]
    )
    dense_float32: DenseBytes = Field(description="At 4 bytes a value.")
    dense_bfloat16: DenseBytes = Field(description="At 2 bytes a value.")

    @classmethod
    def of(cls, rounds: Sequence[ByteFigures], dimension: int) -> Self:
        """Of these rounds of one task together."""
        return cls(
            down=sum(one.down for one in rounds),
            up=sum(one.up for one in rounds),
            wasted_down=sum(one.wasted_down for one in rounds),
            wasted_up=sum(one.wasted_up for one in rounds),
            dense_float32=DenseBytes.of(rounds, _FLOAT32_BYTES * dimension),
            dense_bfloat16=DenseBytes.of(rounds, _BFLOAT16_BYTES * dimension),
        )
