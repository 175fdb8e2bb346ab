"""`flasc keys`: who may use the admin API. Works on the database itself, without a key."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from flasc_cli.options import DatabaseOption, JsonOption
from flasc_cli.output import Json, print_fields, print_json, print_table

if TYPE_CHECKING:
    from aggregator_service.domain.credentials import ApiKey

__all__ = ["app"]

app = typer.Typer(help="Keys to the admin API.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What or whom the key is for.")],
    days: Annotated[float, typer.Option(help="How long it is valid.", min=0.001)] = 90,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and show it: this once, since only its hash is kept."""
    from aggregator_service.app.create_api_key import CreateApiKey
    from aggregator_service.clock import utc_now
    from flasc_cli import database

    with database.opened_store(database.database_url(database_url)) as store:
        make = CreateApiKey(store=store, now=utc_now)
        key, secret = make(name, timedelta(days=days), made_by=None)
    if as_json:
        print_json({**_describe(key), "secret": secret})
    else:
        typer.echo(secret)


@app.command(name="list")
def list_keys(database_url: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List the keys, ended ones included."""
    from flasc_cli import database

    keys: list[ApiKey] = []
    with database.opened_store(database.database_url(database_url)) as store:
        while True:
            after = keys[-1].id if keys else None
            page = store.read("list_keys", lambda tx: tx.api_keys.page(limit=200, after=after))  # noqa: B023
            if not page:
                break
            keys.extend(page)
    rows = [_describe(key) for key in keys]
    if as_json:
        print_json(rows)
    else:
        columns = ("id", "name", "created_at", "expires_at", "revoked_at", "made_by")
        print_table("API keys", columns, [[row[name] for name in columns] for row in rows])


@app.command()
def revoke(
    key_id: Annotated[UUID, typer.Argument(help="The key's id, as `flasc keys list` shows it.")],
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key at once, and all keys that were made with it. Repeating is harmless."""
    from aggregator_service.app.revoke_api_key import RevokeApiKey
    from aggregator_service.clock import utc_now
    from flasc_cli import database

    with database.opened_store(database.database_url(database_url)) as store:
        key = RevokeApiKey(store=store, now=utc_now)(key_id)
    (print_json if as_json else print_fields)(_describe(key))


def _describe(key: ApiKey) -> dict[str, Json]:
    return {
        "id": str(key.id),
        "name": key.name,
        "created_at": key.created_at.isoformat(),
        "expires_at": key.expires_at.isoformat(),
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        "made_by": str(key.made_by) if key.made_by else None,
    }
