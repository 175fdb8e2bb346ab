"""Keys that are made while their makers are revoked: none is left that could be used."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

from aggregator_service.app.create_api_key import CreateApiKey
from aggregator_service.app.revoke_api_key import RevokeApiKey
from aggregator_service.domain.credentials import ApiKey
from aggregator_service.store.base import Store
from flasc_core.errors import Refusal
from tests.builders import NOW, an_api_key, stored
from tests.support.patience import PATIENCE_SECONDS

ROUNDS, WRITERS, MANY = 10, 4, 1_000


def make_keys_until_refused(store: Store, maker: ApiKey, start: threading.Barrier) -> int:
    """A chain: each is made with the one before, and the second once everybody has the first."""
    create, made = CreateApiKey(store=store, now=lambda: NOW), 0
    with suppress(Refusal):
        while made < MANY:
            maker, _ = create("chained", timedelta(days=1), made_by=maker)
            made += 1
            if made == 1:
                start.wait(PATIENCE_SECONDS)
    return made


def test_no_key_that_was_made_meanwhile_outlasts_the_first(store: Store) -> None:
    for _ in range(ROUNDS):
        first = an_api_key()
        stored(store, first)
        start = threading.Barrier(WRITERS + 1)
        with ThreadPoolExecutor(WRITERS) as pool:
            making = [
                pool.submit(make_keys_until_refused, store, first, start) for _ in range(WRITERS)
            ]
            start.wait(PATIENCE_SECONDS)
            RevokeApiKey(store=store, now=lambda: NOW)(first.id)
            assert all(1 <= one.result(PATIENCE_SECONDS) < MANY for one in making)
    keys = store.read("keys", lambda tx: tx.api_keys.page(limit=100_000, after=None))
    assert [key for key in keys if key.revoked_at is None] == []
