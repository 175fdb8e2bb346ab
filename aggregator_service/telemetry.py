"""Logs and metrics of the service: one place that names them all."""

from __future__ import annotations

import logging
import sys
from typing import Final

import structlog
from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "HTTP_REQUESTS",
    "PAYLOAD_BYTES",
    "REFUSALS",
    "RPC_SECONDS",
    "TASKS_RUNNING",
    "TRANSACTION_RETRIES",
    "TRANSACTION_SECONDS",
    "UPDATES_ACCEPTED",
    "configure_logging",
]

RPC_SECONDS: Final = Histogram(
    "flasc_rpc_seconds", "Time to answer a device's call.", ["method", "code"]
)
HTTP_REQUESTS: Final = Counter(
    "flasc_http_requests", "Requests to the admin API.", ["method", "route", "status"]
)
REFUSALS: Final = Counter("flasc_refusals", "Requests refused, by reason.", ["reason"])
UPDATES_ACCEPTED: Final = Counter("flasc_updates_accepted", "Updates that count, repeats left out.")
PAYLOAD_BYTES: Final = Counter(
    "flasc_payload_bytes", "Payload bytes sent to and received from devices.", ["direction"]
)
TASKS_RUNNING: Final = Gauge("flasc_tasks_running", "Tasks that open rounds.")
TRANSACTION_SECONDS: Final = Histogram(
    "flasc_transaction_seconds", "Time of one database transaction, retries included.", ["name"]
)
TRANSACTION_RETRIES: Final = Counter(
    "flasc_transaction_retries", "Transactions started over.", ["name"]
)


def configure_logging(*, level: str = "INFO", as_json: bool | None = None) -> None:
    """One line per event on stderr: JSON for machines, or text where stderr is a terminal.

    So are warnings of the libraries, which log by the standard module.
    """
    if as_json is None:
        as_json = not sys.stderr.isatty()
    threshold = logging.getLevelName(level.upper())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    facts: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Formatted here, since on a terminal the renderer would show the variables of every frame.
    rendering: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, renderer]
    structlog.configure(
        processors=[*facts, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    of_libraries = logging.StreamHandler(sys.stderr)
    of_libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *facts],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[of_libraries], level=max(threshold, logging.WARNING), force=True)
