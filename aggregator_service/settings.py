"""What a service process can be told, read once from the environment and the command line."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["ServiceSettings"]


class ServiceSettings(BaseSettings):
    """Every field is also an environment variable: FLASC_DATABASE_URL and so on."""

    model_config = SettingsConfigDict(env_prefix="FLASC_", extra="forbid", frozen=True)

    database_url: str = "sqlite:///flasc-data/flasc.db"
    # A folder; shared by all replicas.
    blobs: str = "flasc-data/blobs"
    # Off only for throw-away databases: PostgreSQL without fsync loses acknowledged updates.
    check_postgres_durability: bool = True

    grpc_host: str = "127.0.0.1"
    grpc_port: int = Field(default=8470, ge=0, le=65_535)
    # What newly enrolled devices are told to connect to; None: grpc_host and grpc_port.
    public_grpc_address: str | None = None
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8471, ge=0, le=65_535)
    # Prometheus text of this process, over plain HTTP to whoever reaches the port; None: nowhere.
    # The admin API's own /metrics needs no port.
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    # PEM files. Both or neither; without them the service starts only with insecure_dev.
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    insecure_dev: bool = False
    # gRPC server reflection tells anybody the whole schema.
    reflection: bool = False

    # Threads for use cases; as many database connections.
    worker_threads: int = Field(default=8, ge=1, le=256)
    driver_interval_seconds: float = Field(default=0.5, gt=0, le=60)
    # How long calls in progress may take to end after SIGTERM.
    drain_seconds: float = Field(default=10, ge=0, le=600)
    # A stream of which no whole message arrives for so long is ended; on the slowest links that
    # the SDK puts up with, 512 KiB take 32 s.
    chunk_idle_seconds: float = Field(default=45, gt=0, le=600)
    # One upload or download may take this long.
    transfer_seconds: float = Field(default=120, gt=0, le=3600)
    # Bytes of uploads that may be in memory at once, over all devices.
    upload_bytes_in_flight: int = Field(default=256 << 20, ge=1 << 20)

    log_level: str = "INFO"
    # None: text on a terminal, JSON otherwise.
    log_json: bool | None = None
