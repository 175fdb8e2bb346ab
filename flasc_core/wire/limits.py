"""What a reader accepts of a payload before it looks at a single value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from flasc_core.errors import Reason, Refusal
from flasc_core.wire.encoding import Encoding

__all__ = ["SEGMENT_NNZ", "DecodeLimits"]

# The largest number of nonzeros in one segment.
SEGMENT_NNZ: Final = 65_536
# Segments cost time however few values they hold; this many may be partly filled.
_PARTIAL_SEGMENTS: Final = 4_096
# Beside its segments: an update's own fields, and those that a later version may add.
_OTHER_FIELDS: Final = 64
_ANY_WEIGHT: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """The vector's own `dim`, how many nonzeros it may have, and how large one may be.

    `encodings` are the ones that are read beside the plain profile, all of them if it is None.
    ValueError for a `max_abs_value` that would let infinity or nothing pass. A payload that
    `was_read` before, without being told so, may be inflated by isal: it takes streams that zlib
    refuses, and not every reader has it.
    """

    dim: int
    max_nnz: int
    max_abs_value: float
    min_nnz: int = 1
    encodings: frozenset[Encoding] | None = None
    was_read: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.max_abs_value < math.inf:
            raise ValueError(f"max_abs_value must be above 0 and finite, not {self.max_abs_value}")

    @classmethod
    def of_download(cls, dim: int) -> Self:
        """Return what a device accepts: weights are the service's own business, so all of them."""
        return cls(dim=dim, max_nnz=dim, max_abs_value=_ANY_WEIGHT, min_nnz=0)

    @property
    def max_segments(self) -> int:
        return self.max_nnz // SEGMENT_NNZ + _PARTIAL_SEGMENTS

    @property
    def max_fields(self) -> int:
        return self.max_segments + _OTHER_FIELDS

    def check(self, encoding: Encoding) -> None:
        """Refuses VALUE_FORMAT, naming what is read, for an encoding that is not."""
        if self.encodings is None or encoding in self.encodings or encoding.name == "plain":
            return
        names = {"plain", *(each.name for each in self.encodings)}
        accepted = ", ".join(name for name in Encoding.names() if name in names)
        raise Refusal(
            Reason.VALUE_FORMAT,
            f"{encoding.name} is not accepted here; accepted are {accepted}",
            encoding=encoding.name,
            accepted=accepted,
        )
