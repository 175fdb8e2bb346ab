"""Fixtures that every test may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.stores import (
    memory_store,
    postgres_server,
    postgres_store,
    postgres_template,
    postgres_url,
    sql_store,
    sql_url,
    sqlite_store,
    sqlite_template,
    sqlite_url,
    store,
)

__all__ = [
    "memory_store",
    "postgres_server",
    "postgres_store",
    "postgres_template",
    "postgres_url",
    "sql_store",
    "sql_url",
    "sqlite_store",
    "sqlite_template",
    "sqlite_url",
    "store",
]

# How long an example takes says how busy the machine is.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch works on one thread: sums depend on how many share them, and commands settle it too."""
    import torch  # noqa: PLC0415 - slow to load, and most tests do without

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
