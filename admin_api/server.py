"""The admin API on a port, stopped with its streams and not by signals."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from math import ceil

import structlog
import uvicorn

from admin_api.app import create_app
from admin_api.services import Services
from aggregator_service.clock import utc_now
from aggregator_service.settings import ServiceSettings
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore

__all__ = ["AdminServer", "serve"]

log = structlog.get_logger(__name__)


class _Uvicorn(uvicorn.Server):
    """Leaves the process's signals to whoever runs it beside other services."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class AdminServer:
    """The admin API and its page on one port. `start` once, `stop` once."""

    def __init__(self, settings: ServiceSettings, store: Store, blobs: BlobStore) -> None:
        self._settings = settings
        app = create_app(
            store=store,
            blobs=blobs,
            now=utc_now,
            grpc_address=settings.public_grpc_address
            or f"{settings.grpc_host}:{settings.grpc_port}",
        )
        services: Services = app.state.services
        self._feed = services.feed
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                # Uvicorn's own lines would repeat ours.
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_key,
                timeout_graceful_shutdown=ceil(settings.drain_seconds),
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Starts to answer; returns the port.

        Raises OSError where it is taken, and for certificates that can not be read.
        """
        # Here rather than in the task below, where nobody would hear of what it raises.
        self._server.config.load()
        listener = _listen(self._settings.http_host, self._settings.http_port)
        port: int = listener.getsockname()[1]
        # The listener queues connections from here on, so nobody needs to wait for the loop.
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        log.info("admin_started", port=port, tls=self._settings.tls_key is not None)
        return port

    async def stop(self) -> None:
        """Ends the event streams, lets requests in progress end, then returns."""
        self._feed.stop()
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        log.info("admin_stopped")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


async def serve(
    settings: ServiceSettings, store: Store, blobs: BlobStore, *, until: asyncio.Event
) -> None:
    """Answers operators until the event is set, then ends streams and drains."""
    server = AdminServer(settings, store, blobs)
    await server.start()
    try:
        await until.wait()
    finally:
        await server.stop()
