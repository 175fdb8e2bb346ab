"""`flasc serve`: the service itself."""

from __future__ import annotations

from enum import StrEnum, unique
from pathlib import Path
from typing import Annotated, Any

import typer

from flasc_cli.options import DatabaseOption, JsonOption

__all__ = ["Role", "serve"]


@unique
class Role(StrEnum):
    ALL = "all"
    AGGREGATOR = "aggregator"
    DRIVER = "driver"
    ADMIN = "admin"


def serve(
    *,
    role: Annotated[
        Role,
        typer.Option(
            help="aggregator: answers devices. driver: advances rounds. admin: API and web page. "
            "all: the three in one process."
        ),
    ] = Role.ALL,
    database_url: DatabaseOption = None,
    blobs: Annotated[
        str | None, typer.Option(help="Folder for adapters and large updates.", show_default=False)
    ] = None,
    grpc_host: Annotated[str | None, typer.Option(help="Where devices connect.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="8470 by default; 0: any.")] = None,
    http_host: Annotated[str | None, typer.Option(help="Where the admin API listens.")] = None,
    http_port: Annotated[int | None, typer.Option(help="8471 by default.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="This process's Prometheus metrics over plain HTTP.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM key.")] = None,
    insecure_dev: Annotated[
        bool, typer.Option("--insecure-dev", help="Serve without TLS: your own machine only.")
    ] = False,
    reflection: Annotated[
        bool, typer.Option("--reflection", help="Tell gRPC clients the schema.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the service until SIGTERM or Ctrl-C, then let calls in progress end.

    Whatever is not given here comes from the environment (FLASC_GRPC_PORT and so on). Run
    `flasc migrate` first. With --json the log, too, is one JSON object per line.
    """
    from flasc_cli.serving import run_service

    given: dict[str, Any] = {
        "database_url": database_url,
        "blobs": blobs,
        "grpc_host": grpc_host,
        "grpc_port": grpc_port,
        "http_host": http_host,
        "http_port": http_port,
        "metrics_port": metrics_port,
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
        "insecure_dev": insecure_dev or None,
        "reflection": reflection or None,
        "log_json": as_json or None,
    }
    run_service(role.value, {name: value for name, value in given.items() if value is not None})
