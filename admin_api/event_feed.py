"""Changes of tasks and rounds as server-sent events, read from the database.

Every replica of the service writes to one table of events and every feed polls it, so a client may
be connected to any of them, and goes on where it was after a reconnect by the last id it saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from admin_api.schemas.events import EventView
from aggregator_service.domain.credentials import ApiKey
from aggregator_service.domain.events import Event
from aggregator_service.store.base import Store, StoreUnavailable, Transaction
from flasc_core.errors import Refusal

__all__ = ["EventFeed"]

_BATCH: Final = 200
_HEARTBEAT: Final = b": still here\n\n"


class EventFeed:
    """Feeds any number of clients until it is stopped."""

    def __init__(
        self,
        store: Store,
        now: Callable[[], datetime],
        *,
        interval: timedelta = timedelta(milliseconds=500),
        polls_per_heartbeat: int = 30,
    ) -> None:
        self._store = store
        self._now = now
        self._interval = interval
        self._polls_per_heartbeat = polls_per_heartbeat
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ends every stream, after what has already happened has been sent."""
        self._stopping.set()

    async def follow(
        self, caller: ApiKey, *, after: int | None, task_id: UUID | None
    ) -> AsyncIterator[bytes]:
        """Frames of events after sequence `after`, or from now on where it is None.

        Ends when the feed stops, when the caller's key is no longer valid, and when the database
        fails; a client then connects again.
        """
        with suppress(StoreUnavailable, Refusal):
            position = await run_in_threadpool(self._start, after)
            # An id without data: a client that reconnects before the first event resumes here.
            yield f"retry: 2000\nid: {position}\n\n".encode()
            quiet_polls = 0
            while True:
                # Read before the poll, so that the last poll sees everything before the stop.
                stopping = self._stopping.is_set()
                events = await run_in_threadpool(self._poll, caller, position, task_id)
                for event in events:
                    yield _frame(event)
                    position = event.sequence
                if len(events) == _BATCH:
                    continue
                if stopping:
                    return
                quiet_polls = 0 if events else quiet_polls + 1
                if quiet_polls == self._polls_per_heartbeat:
                    quiet_polls = 0
                    yield _HEARTBEAT
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._interval.total_seconds()):
                        await self._stopping.wait()

    def _start(self, after: int | None) -> int:
        last = self._store.read("last_event", lambda tx: tx.events.last_sequence())
        # A database restored from a backup may not know the event that the client saw last.
        return last if after is None else min(after, last)

    def _poll(self, caller: ApiKey, after: int, task_id: UUID | None) -> Sequence[Event]:
        def body(tx: Transaction) -> tuple[ApiKey | None, Sequence[Event]]:
            key = tx.api_keys.get(caller.id)
            return key, tx.events.after(after, limit=_BATCH, task_id=task_id)

        key, events = self._store.read("poll_events", body)
        # Keys end while streams go on, and a stream outlives the check at its start.
        (key or caller).check_valid(self._now())
        return events


def _frame(event: Event) -> bytes:
    kind = "task" if event.round_id is None else "round"
    data = EventView.of(event).model_dump_json()
    return f"event: {kind}\nid: {event.sequence}\ndata: {data}\n\n".encode()
