"""An accepted update: an entry of the ledger, and its payload for as long as it is needed.

ACCEPTED ──in an accumulator──▶ FOLDED ──round over, payload destroyed──▶ SCRUBBED
    │ taken back before the close  │
    │                              ▼
    │                          RETRACTING ──out of the accumulator, or round over
    │                                          │
    └──────────payload destroyed───────────────┴──▶ RETRACTED
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum, unique
from uuid import UUID

__all__ = ["FoldProgress", "Update", "UpdateState"]


@unique
class UpdateState(StrEnum):
    ACCEPTED = "ACCEPTED"
    FOLDED = "FOLDED"
    SCRUBBED = "SCRUBBED"
    # Counts no more; an accumulator still holds it, and the payload is needed to take it out.
    RETRACTING = "RETRACTING"
    RETRACTED = "RETRACTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """`payload` holds small payloads themselves, `payload_key` names the blob of larger ones."""

    id: UUID
    round_id: UUID
    device_id: UUID
    assignment_id: UUID
    state: UpdateState
    payload_sha256: bytes
    payload_bytes: int
    nnz: int
    weight: int
    shard: int
    accepted_at: datetime
    payload: bytes | None = None
    payload_key: str | None = None
    # Position in the ledger; given by the store.
    sequence: int = 0

    @property
    def is_retracted(self) -> bool:
        """It counts nowhere any more, whether or not an accumulator still has to lose it."""
        return self.state in (UpdateState.RETRACTING, UpdateState.RETRACTED)

    def retract(self) -> Update:
        """Takes it back: at once where nothing holds it yet, else once it has been subtracted."""
        if self.state is UpdateState.ACCEPTED:
            return replace(self, state=UpdateState.RETRACTED, payload=None)
        if self.state is UpdateState.FOLDED:
            return replace(self, state=UpdateState.RETRACTING)
        raise AssertionError(f"no transition {self.state} -> RETRACTED")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldProgress:
    """One accumulator of a round, and who may write it next.

    `version` counts its commits; a writer whose `lease_token` is no longer the stored one has
    been fenced out and must discard what it summed.
    """

    round_id: UUID
    shard: int
    version: int = 0
    key: str | None = None
    updates_folded: int = 0
    lease_token: UUID | None = None
    lease_expires_at: datetime | None = None
