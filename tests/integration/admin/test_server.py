"""The admin API's server: its port, its certificates, its end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import httpx
import pytest
import trustme

from admin_api.server import AdminServer, serve
from aggregator_service.settings import ServiceSettings
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from tests.support.logged import logged
from tests.support.operator import live_admin
from tests.support.patience import PATIENCE_SECONDS


def test_with_certificates_the_api_speaks_tls_alone(
    memory_store: Store, blobs: BlobStore, tmp_path: Path
) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    pair.cert_chain_pems[0].write_to_path(certificate)
    pair.private_key_pem.write_to_path(key)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    with live_admin(memory_store, blobs, tls_certificate=certificate, tls_key=key) as address:
        secure = address.replace("http://", "https://")
        answer = httpx.get(f"{secure}/healthz", verify=trusting, timeout=PATIENCE_SECONDS)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address}/healthz", timeout=PATIENCE_SECONDS)

    assert answer.json() == {"status": "ok"}
    assert "server" not in answer.headers


def test_certificates_that_can_not_be_read_are_told_at_the_start(
    memory_store: Store, blobs: BlobStore, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.pem"
    settings = ServiceSettings(http_port=0, tls_certificate=missing, tls_key=missing)

    with pytest.raises(OSError, match="No such file"):
        asyncio.run(AdminServer(settings, memory_store, blobs).start())


def test_a_port_that_is_taken_is_told_at_the_start(memory_store: Store, blobs: BlobStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServiceSettings(http_port=taken.getsockname()[1])

        with pytest.raises(OSError, match="in use"):
            asyncio.run(AdminServer(settings, memory_store, blobs).start())


def test_serving_ends_with_its_event_and_frees_the_port(
    memory_store: Store, blobs: BlobStore
) -> None:
    async def serve_briefly() -> None:
        until = asyncio.Event()
        until.set()
        await serve(ServiceSettings(http_port=0), memory_store, blobs, until=until)

    with logged() as log:
        asyncio.run(serve_briefly())

    socket.create_server(("127.0.0.1", log.take("admin_started")["port"])).close()
