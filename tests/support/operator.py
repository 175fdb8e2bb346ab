"""An operator with a key: the admin API called in process, or over a real socket."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from admin_api.app import create_app
from admin_api.server import AdminServer
from aggregator_service.app.create_api_key import CreateApiKey
from aggregator_service.domain.task_json import config_to_json
from aggregator_service.domain.tasks import TaskConfig
from aggregator_service.settings import ServiceSettings
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from tests.builders import NOW, a_config
from tests.support.patience import PATIENCE_SECONDS

__all__ = ["GRPC_ADDRESS", "Operator", "create_key", "live_admin", "task_parts"]

T = TypeVar("T")

GRPC_ADDRESS = "aggregator.test:8470"


def create_key(store: Store, now: datetime = NOW) -> str:
    create = CreateApiKey(store=store, now=lambda: now)
    _, secret = create("operator", timedelta(days=30), made_by=None)
    return secret


def task_parts(
    name: str = "a-task",
    config: TaskConfig | None = None,
    weights: NDArray[np.float32] | None = None,
    **parts: bytes | str,
) -> dict[str, tuple[str | None, bytes | str]]:
    """The multipart form of a new task; `parts` replaces some."""
    config = config or a_config()
    if weights is None:
        weights = np.linspace(-1, 1, config.layout.dim, dtype=np.float32)
    form = {
        "name": name,
        "config": json.dumps(config_to_json(config)),
        "adapter": save(config.layout.split(weights)),
        **parts,
    }
    files = {"adapter": "adapter.safetensors"}
    return {part: (files.get(part), content) for part, content in form.items()}


@dataclass(slots=True)
class Operator:
    store: Store
    blobs: BlobStore
    at: datetime = NOW
    app: Any = field(init=False)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = create_key(self.store)
        self.app = create_app(
            store=self.store, blobs=self.blobs, now=lambda: self.at, grpc_address=GRPC_ADDRESS
        )

    def get(self, path: str, **request: Any) -> httpx.Response:
        return self.send("GET", path, **request)

    def post(self, path: str, **request: Any) -> httpx.Response:
        return self.send("POST", path, **request)

    def pages(self, path: str, *, limit: int) -> list[list[dict[str, Any]]]:
        """Every page of a list."""
        page = self.get(path, params={"limit": limit}).json()
        found = [page["items"]]
        while page["next_cursor"] is not None:
            cursor = {"limit": limit, "cursor": page["next_cursor"]}
            page = self.get(path, params=cursor).json()
            found.append(page["items"])
        return found

    def send(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **request: Any
    ) -> httpx.Response:
        """With the key, unless `headers` say otherwise."""
        both = {"Authorization": f"Bearer {self.key}", **(headers or {})}

        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
                return await client.request(method, path, headers=both, **request)

        return asyncio.run(call())


@contextmanager
def live_admin(store: Store, blobs: BlobStore, **settings: Any) -> Iterator[str]:
    """The admin API on a loopback port of its own, stopped at the end; yields its address."""
    options = ServiceSettings(http_port=0, drain_seconds=5, **settings)
    server = AdminServer(options, store, blobs)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="admin")
    thread.start()

    def run(step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, loop).result(timeout=PATIENCE_SECONDS)

    try:
        port = run(server.start())
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            run(server.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
