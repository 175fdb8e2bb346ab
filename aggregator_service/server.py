"""The composition root: settings to store to use cases to grpc.aio."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_NAME
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from aggregator_service.app.authenticate_device import AuthenticateDevice
from aggregator_service.app.check_in import CheckIn
from aggregator_service.app.count_refusal import CountRefusal
from aggregator_service.app.read_download import ReadDownload
from aggregator_service.app.receive_upload import ReceiveUpload
from aggregator_service.app.report_outcome import ReportOutcome
from aggregator_service.app.submit_update import SubmitUpdate
from aggregator_service.app.task_spec import MAX_UNARY_PAYLOAD_BYTES
from aggregator_service.clock import utc_now
from aggregator_service.driver import Driver
from aggregator_service.rpc.calls import Calls
from aggregator_service.rpc.device_service import SERVICE_NAME, DeviceService
from aggregator_service.rpc.upload_stream import UploadStreams
from aggregator_service.settings import ServiceSettings
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore

__all__ = ["Aggregator", "InsecureRefused", "drive", "serve"]

# One message holds a unary payload and its header.
_MAX_MESSAGE_BYTES: Final = MAX_UNARY_PAYLOAD_BYTES + (64 << 10)
# Against peers that stall, idle, ping or reconnect without end.
_CHANNEL_LIMITS: Final = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_metadata_size", 8_192),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.max_connection_age_ms", 1_800_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Two processes on one port would share its devices by accident.
    ("grpc.so_reuseport", 0),
)

log = structlog.get_logger(__name__)


class InsecureRefused(Exception):
    """The service does not start without TLS unless it is told to."""


class Aggregator:
    """The device service on one port. `start` once, `stop` once."""

    def __init__(self, settings: ServiceSettings, store: Store, blobs: BlobStore) -> None:
        self._settings = settings
        self._workers = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="rpc")
        self._calls = Calls(
            authenticate=AuthenticateDevice(store=store, now=utc_now),
            count_refusal=CountRefusal(store=store),
            workers=self._workers,
        )
        submit_update = SubmitUpdate(store=store, blobs=blobs, now=utc_now)
        self._service = DeviceService(
            calls=self._calls,
            check_in=CheckIn(store=store, now=utc_now),
            read_download=ReadDownload(store=store, blobs=blobs, now=utc_now),
            submit_update=submit_update,
            receive_upload=ReceiveUpload(
                store=store, blobs=blobs, submit_update=submit_update, now=utc_now
            ),
            report_outcome=ReportOutcome(store=store, now=utc_now),
            uploads=UploadStreams(
                bytes_in_flight=settings.upload_bytes_in_flight,
                chunk_idle_seconds=settings.chunk_idle_seconds,
                transfer_seconds=settings.transfer_seconds,
            ),
            transfer_seconds=settings.transfer_seconds,
        )
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(
            options=_CHANNEL_LIMITS, compression=grpc.Compression.NoCompression
        )

    async def start(self) -> int:
        """Starts to answer devices; returns the port.

        Raises InsecureRefused without certificates, and OSError where the port is taken.
        """
        server = self._server
        server.add_generic_rpc_handlers((self._service.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.reflection:
            names = (SERVICE_NAME, HEALTH_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        port = self._bind()
        await server.start()
        for name in ("", SERVICE_NAME):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("aggregator_started", port=port, tls=self._settings.tls_key is not None)
        return port

    async def stop(self) -> None:
        """Tells balancers, refuses new calls, lets those in progress end, then returns."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.drain_seconds)
        await self._calls.settle()
        self._workers.shutdown()
        log.info("aggregator_stopped")

    def _bind(self) -> int:
        address = f"{self._settings.grpc_host}:{self._settings.grpc_port}"
        credentials = _credentials(self._settings)
        try:
            if credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"can not listen on {address}: {error}") from error


def _credentials(settings: ServiceSettings) -> grpc.ServerCredentials | None:
    if settings.tls_certificate is not None and settings.tls_key is not None:
        pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
        return grpc.ssl_server_credentials([pair])
    if settings.tls_certificate is not None or settings.tls_key is not None:
        raise InsecureRefused("give both tls_certificate and tls_key, or neither")
    if not settings.insecure_dev:
        raise InsecureRefused(
            "without TLS, credentials and updates travel in the clear: give --tls-certificate and "
            "--tls-key, or --insecure-dev on a machine of your own"
        )
    return None


async def serve(
    settings: ServiceSettings, store: Store, blobs: BlobStore, *, until: asyncio.Event
) -> None:
    """Answers devices until the event is set, then drains."""
    aggregator = Aggregator(settings, store, blobs)
    await aggregator.start()
    try:
        await until.wait()
    finally:
        await aggregator.stop()


async def drive(
    settings: ServiceSettings, store: Store, blobs: BlobStore, *, until: asyncio.Event
) -> None:
    """Advances rounds in a thread until the event is set and the step in progress has ended."""
    driver = Driver(
        store=store,
        blobs=blobs,
        now=utc_now,
        interval=timedelta(seconds=settings.driver_interval_seconds),
    )
    stop = threading.Event()
    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(None, driver.run, stop)
    try:
        await until.wait()
    finally:
        stop.set()
        await running
