"""Commands that work on the service's own database, on the machine where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flasc_cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    from pydantic import ValidationError

    from aggregator_service.store.base import Store

__all__ = ["database_errors", "database_url", "opened_store", "settings_error"]


def database_url(given: str | None) -> str:
    """The URL that was given, or the one that the service takes from its environment."""
    if given is not None:
        return given
    from pydantic import ValidationError

    from aggregator_service.settings import ServiceSettings

    try:
        return ServiceSettings().database_url
    except ValidationError as error:
        raise settings_error(error) from error


def settings_error(error: ValidationError) -> CliError:
    fields = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
    return CliError(f"settings: {fields}", ExitCode.USAGE)


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
    """Raises CliError that says what to do."""
    from aggregator_service.store.base import NotDurable, StoreUnavailable, WrongAddress
    from aggregator_service.store.open import shown_url
    from aggregator_service.store.schema import UnknownRevision
    from flasc_core.errors import Refusal

    try:
        yield
    except StoreUnavailable as error:
        raise CliError(f"{shown_url(url)}: {error}", ExitCode.UNREACHABLE) from error
    except NotDurable as error:
        raise CliError(str(error)) from error
    except (WrongAddress, UnknownRevision) as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    except Refusal as refusal:
        raise CliError(refusal.message) from refusal
