"""The service in one process: which parts run, what they share, and how they end together."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import typer
from prometheus_client import start_http_server
from pydantic import ValidationError

from aggregator_service.heap import share_heap
from aggregator_service.server import Aggregator, InsecureRefused, drive
from aggregator_service.settings import ServiceSettings
from aggregator_service.store.base import Store, StoreUnavailable
from aggregator_service.store.blobs import BlobStore
from aggregator_service.store.open import open_blobs, open_store
from aggregator_service.telemetry import (
    TRANSACTION_RETRIES,
    TRANSACTION_SECONDS,
    configure_logging,
)
from flasc_cli import database
from flasc_cli.errors import CliError, ExitCode

__all__ = ["run_service", "stopped_together"]


def run_service(role: str, given: Mapping[str, Any]) -> None:
    """Run one role, or "all", until SIGTERM or SIGINT. `given` overrides the environment.

    Prints where it listens once it does, as JSON with `log_json`. Raises CliError.
    """
    try:
        settings = ServiceSettings(**given)
    except ValidationError as error:
        raise database.settings_error(error) from error
    _check_safe(role, settings)
    share_heap()
    configure_logging(level=settings.log_level, as_json=settings.log_json)
    with database.database_errors(settings.database_url):
        store = open_store(
            settings.database_url,
            pool_size=settings.worker_threads,
            check_durability=settings.check_postgres_durability,
            observe=_observe,
        )
        try:
            store.check_ready()
            _run(role, settings, store, open_blobs(settings.blobs))
        finally:
            store.close()


def _run(role: str, settings: ServiceSettings, store: Store, blobs: BlobStore) -> None:
    try:
        asyncio.run(_serve(role, settings, store, blobs))
    except InsecureRefused as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    except StoreUnavailable:
        raise
    except OSError as error:
        raise CliError(f"{error}; is another service running? choose other ports") from error


async def _serve(role: str, settings: ServiceSettings, store: Store, blobs: BlobStore) -> None:
    until = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Windows has no such handlers; there Ctrl-C cancels this coroutine.
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, until.set)
    addresses: dict[str, str] = {}
    async with AsyncExitStack() as last, stopped_together() as stops:
        if settings.metrics_port is not None:
            server, thread = start_http_server(settings.metrics_port, settings.metrics_host)
            last.callback(thread.join)
            last.callback(server.shutdown)
            addresses["metrics"] = f"http://{settings.metrics_host}:{server.server_port}/metrics"
        if role in {"all", "aggregator"}:
            aggregator = Aggregator(settings, store, blobs)
            stops.append(aggregator.stop)
            settings = settings.model_copy(update={"grpc_port": await aggregator.start()})
            addresses["devices"] = f"{settings.grpc_host}:{settings.grpc_port}"
        if role in {"all", "admin"}:
            from admin_api.server import AdminServer

            admin = AdminServer(settings, store, blobs)
            stops.append(admin.stop)
            scheme = "http" if settings.tls_key is None else "https"
            addresses["admin"] = f"{scheme}://{settings.http_host}:{await admin.start()}"
        if role in {"all", "driver"}:
            driving = asyncio.create_task(drive(settings, store, blobs, until=until))
            # Without its driver a service only pretends to work: end, and be started again.
            driving.add_done_callback(lambda _: until.set())
            stops.append(lambda: driving)
        _print_addresses(addresses, as_json=bool(settings.log_json))
        await until.wait()


@asynccontextmanager
async def stopped_together() -> AsyncIterator[list[Callable[[], Awaitable[None]]]]:
    """Stops in the end what was put on the list, all at once: the longest grace is all it takes.

    Each is waited for whatever becomes of the others.
    """
    stops: list[Callable[[], Awaitable[None]]] = []
    try:
        yield stops
    finally:
        async with AsyncExitStack() as ending:
            for stopping in [asyncio.ensure_future(stop()) for stop in stops]:
                ending.push_async_callback(asyncio.wait_for, stopping, None)


def _print_addresses(addresses: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"event": "ready", **addresses}))
        return
    labels = {
        "devices": "devices connect to",
        "admin": "admin API and page at",
        "metrics": "metrics at",
    }
    for name, address in addresses.items():
        typer.echo(f"{labels[name]} {address}")


def _check_safe(role: str, settings: ServiceSettings) -> None:
    """API keys and updates must not travel in the clear unless the operator says so."""
    if role != "driver" and settings.tls_key is None and not settings.insecure_dev:
        raise CliError(
            "without TLS, keys, credentials and updates travel in the clear: give "
            "--tls-certificate and --tls-key, or --insecure-dev on a machine of your own",
            ExitCode.USAGE,
        )


def _observe(name: str, seconds: float, attempts: int) -> None:
    TRANSACTION_SECONDS.labels(name).observe(seconds)
    if attempts > 1:
        TRANSACTION_RETRIES.labels(name).inc(attempts - 1)
