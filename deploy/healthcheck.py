"""Exits 0 if the service in this container is ready: `healthcheck.py grpc|http`.

It reads the service's own FLASC_* variables. With TLS it trusts exactly the certificate that the
service was given, whatever name it carries: the question is readiness, not identity.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
TIMEOUT_SECONDS: Final = 4.0
SERVICE: Final = "flasc.v1.DeviceService"


def main() -> int:
    check = {"grpc": grpc_serving, "http": http_ready}[sys.argv[1]]
    certificate = os.environ.get("FLASC_TLS_CERTIFICATE")
    return 0 if check(Path(certificate) if certificate else None) else 1


def grpc_serving(certificate: Path | None) -> bool:
    """Asks grpc.health.v1 for the device service."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    port = int(os.environ.get("FLASC_GRPC_PORT", "8470"))
    address = f"{HOST}:{port}"
    if certificate is None:
        channel = grpc.insecure_channel(address)
    else:
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        name = ("grpc.ssl_target_name_override", _name_in(certificate, port))
        channel = grpc.secure_channel(address, credentials, options=(name,))
    request = health_pb2.HealthCheckRequest(service=SERVICE)
    with channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_SECONDS)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def http_ready(certificate: Path | None) -> bool:
    """Asks /readyz, which asks the database and the blob folder."""
    port = int(os.environ.get("FLASC_HTTP_PORT", "8471"))
    if certificate is None:
        connection = HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)
    else:
        context = _trusting(certificate)
        connection = HTTPSConnection(HOST, port, timeout=TIMEOUT_SECONDS, context=context)
    connection.request("GET", "/readyz")
    return connection.getresponse().status == 200


def _trusting(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    # The file may hold a leaf alone, without the authority that signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _name_in(certificate: Path, port: int) -> str:
    """A name that the certificate is good for, which gRPC insists on."""
    context = _trusting(certificate)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((HOST, port), TIMEOUT_SECONDS) as plain,
        context.wrap_socket(plain) as secured,
    ):
        peer = secured.getpeercert() or {}
    names = [str(entry[1]) for entry in peer.get("subjectAltName", ())]
    return names[0].replace("*", "any") if names else "localhost"


if __name__ == "__main__":
    sys.exit(main())
