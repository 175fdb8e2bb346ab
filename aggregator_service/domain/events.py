"""What happened to tasks and rounds, in order: the source of live views."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

__all__ = ["Event"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`state` is the task's or round's new state, or its unchanged one when only counts moved."""

    task_id: UUID
    round_id: UUID | None
    state: str
    at: datetime
    # Position in the stream; given by the store.
    sequence: int = 0
