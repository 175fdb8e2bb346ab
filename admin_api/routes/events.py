"""The live stream of changes."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from admin_api.lookup import find_task
from admin_api.problems import refusals
from admin_api.services import CallerDep, ServicesDep
from flasc_core.errors import Reason

__all__ = ["router"]

router = APIRouter(prefix="/v1/events", tags=["events"])

LastEventId = Annotated[
    int | None,
    Header(ge=0, description="Go on after this event; without it, from now on."),
]
TaskFilter = Annotated[
    str | None, Query(alias="task", description="Only events of the task with this id or name.")
]

_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Server-sent events named task or round; data as EventView; comments as a "
        "heartbeat. The stream ends when the service stops or the key is no longer valid.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'event: round\nid: 42\ndata: {"sequence": 42, '
                '"task_id": "7f8c1d52-3c1e-4a7b-9d5b-0e2f6a1c4b8d", '
                '"round_id": "0b9a0a4e-7a53-4d4d-8b8e-5a4f4e0f5c11", '
                '"state": "COLLECTING", "at": "2026-05-04T10:00:00Z"}\n\n',
            }
        },
    }
}


@router.get(
    "",
    response_class=StreamingResponse,
    responses={**_STREAM, **refusals(Reason.TASK_UNKNOWN)},
)
async def stream_events(
    services: ServicesDep,
    caller: CallerDep,
    last_event_id: LastEventId = None,
    reference: TaskFilter = None,
) -> StreamingResponse:
    """Follow the changes of tasks and rounds."""
    task_id = None
    if reference is not None:
        found = await run_in_threadpool(
            services.store.read, "find_task", lambda tx: find_task(tx, reference)
        )
        task_id = found.id
    return StreamingResponse(
        services.feed.follow(caller, after=last_event_id, task_id=task_id),
        media_type="text/event-stream",
        # For proxies that would otherwise hold the stream back.
        headers={"X-Accel-Buffering": "no"},
    )
