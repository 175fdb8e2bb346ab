"""Events of tasks and rounds."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from admin_api.schemas.common import Id, Output, Time
from aggregator_service.domain.events import Event

__all__ = ["EventView"]


class EventView(Output):
    """The data of one server-sent event."""

    sequence: int = Field(description="Also the event's id: pass it as Last-Event-ID.")
    task_id: Id
    round_id: Id | None = Field(description="Null where the task itself changed.")
    state: str = Field(description="The state now; the same as before where only counts moved.")
    at: Time

    @classmethod
    def of(cls, event: Event) -> Self:
        return cls(
            sequence=event.sequence,
            task_id=event.task_id,
            round_id=event.round_id,
            state=event.state,
            at=event.at,
        )
