"""Commands that work on the service's own database, on the machine where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flasc_cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    from aggregator_service.store.base import Store

__all__ = ["database_errors", "database_url", "opened_store", "utc_now"]


def utc_now() -> datetime:
    return datetime.now(UTC)


def database_url(given: str | None) -> str:
    """The URL that was given, or the one that the service takes from its environment."""
    if given is not None:
        return given
    from aggregator_service.settings import ServiceSettings

    return ServiceSettings().database_url


@contextmanager
def opened_store(url: str) -> Iterator[Store]:
    """Open a store that is ready for use. Raises CliError that says what to do."""
    from aggregator_service.store.open import open_store

    with database_errors(url):
        # Nothing is acknowledged to devices here, so the service's durability check is not ours.
        store = open_store(url, pool_size=1, check_durability=False)
        try:
            store.check_ready()
            yield store
        finally:
            store.close()


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    from sqlalchemy.exc import ArgumentError

    from aggregator_service.store.base import StoreUnavailable
    from flasc_core.errors import Refusal

    try:
        yield
    except StoreUnavailable as error:
        raise CliError(f"{_without_password(url)}: {error}", ExitCode.UNREACHABLE) from error
    except (ArgumentError, ValueError) as error:
        raise CliError(f"--database-url: {error}", ExitCode.USAGE) from error
    except Refusal as refusal:
        raise CliError(refusal.message) from refusal


def _without_password(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True)
