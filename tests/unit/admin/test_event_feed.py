"""The feed of events, poll by poll."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from admin_api.event_feed import EventFeed
from aggregator_service.store.base import Store, StoreUnavailable
from tests.builders import NOW, a_task, an_api_key, an_event, stored
from tests.support.faults import Trap, TrappedStore


def a_feed(store: Store, *, polls_per_heartbeat: int = 1000) -> EventFeed:
    return EventFeed(
        store,
        lambda: NOW,
        interval=timedelta(microseconds=1),
        polls_per_heartbeat=polls_per_heartbeat,
    )


async def rest_of(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [frame async for frame in stream]


def test_a_quiet_stream_is_kept_alive_by_comments(memory_store: Store) -> None:
    key = an_api_key()
    stored(memory_store, key)
    feed = a_feed(memory_store, polls_per_heartbeat=2)

    async def listen() -> list[bytes]:
        stream = feed.follow(key, after=None, task_id=None)
        return [await anext(stream) for _ in range(3)]

    start, *heartbeats = asyncio.run(listen())

    assert start == b"retry: 2000\nid: 0\n\n"
    assert all(frame.startswith(b":") and frame.endswith(b"\n\n") for frame in heartbeats)


def test_what_happened_before_the_stop_is_still_sent(memory_store: Store) -> None:
    key, task = an_api_key(), a_task()
    stored(memory_store, key, task)
    feed = a_feed(memory_store)

    async def listen() -> list[bytes]:
        stream = feed.follow(key, after=None, task_id=None)
        await anext(stream)
        stored(memory_store, an_event(task))
        feed.stop()
        return await rest_of(stream)

    (frame,) = asyncio.run(listen())

    assert b"id: 1\n" in frame


@pytest.mark.parametrize("ended", ["revoked", "expired"])
def test_a_stream_ends_with_the_key_it_was_opened_with(memory_store: Store, ended: str) -> None:
    task = a_task()
    expires_at = NOW if ended == "expired" else NOW + timedelta(days=1)
    key = an_api_key(expires_at=expires_at)
    stored(memory_store, key, task)
    feed = a_feed(memory_store)

    async def listen() -> list[bytes]:
        stream = feed.follow(key, after=None, task_id=None)
        await anext(stream)
        if ended == "revoked":
            memory_store.run("revoke", lambda tx: tx.api_keys.revoke(key.id, NOW))
        stored(memory_store, an_event(task))
        return await rest_of(stream)

    assert asyncio.run(listen()) == []


def test_a_stream_ends_when_the_database_fails_so_that_clients_come_back(
    memory_store: Store,
) -> None:
    key = an_api_key()
    stored(memory_store, key)

    def fail() -> None:
        raise StoreUnavailable("gone")

    feed = a_feed(TrappedStore(memory_store, Trap(at="poll_events", action=fail)))

    async def listen() -> list[bytes]:
        stream = feed.follow(key, after=None, task_id=None)
        await anext(stream)
        return await rest_of(stream)

    assert asyncio.run(listen()) == []
