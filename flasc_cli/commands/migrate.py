"""`flasc migrate`: the database's schema."""

from __future__ import annotations

from typing import Annotated

import typer

from flasc_cli.errors import CliError, ExitCode
from flasc_cli.options import DatabaseOption, JsonOption
from flasc_cli.output import print_fields, print_json

__all__ = ["app"]

app = typer.Typer(help="Bring a database to the schema that this version needs.")


@app.callback(invoke_without_command=True)
def migrate(
    context: typer.Context, database_url: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """Apply the migrations that are missing; the same as `migrate up`."""
    command = context.invoked_subcommand
    if command is None:
        up(database_url=database_url, as_json=as_json)
    elif as_json or _is_typed(context, "database_url"):
        # It would work on another database than the one that is named.
        raise CliError(f"give options after the command: flasc migrate {command} …", ExitCode.USAGE)


def _is_typed(context: typer.Context, name: str) -> bool:
    """Whether the option was given, and not found in the environment."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command()
def up(
    revision: Annotated[str, typer.Argument(help="Revision to stop at.")] = "head",
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Apply the migrations that are missing, all or none. SQLite's folder is created."""
    from aggregator_service.store.schema import upgrade
    from flasc_cli import database

    url = database.database_url(database_url)
    with database.database_errors(url):
        upgrade(url, revision)
    _print_revisions(url, as_json=as_json)


@app.command()
def down(
    revision: Annotated[str, typer.Argument(help='Revision to go back to; "base" drops all.')],
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take migrations back, all or none. What is in dropped tables is lost."""
    from aggregator_service.store.schema import downgrade
    from flasc_cli import database

    url = database.database_url(database_url)
    with database.database_errors(url):
        downgrade(url, revision)
    _print_revisions(url, as_json=as_json)


@app.command()
def current(database_url: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Show the database's revision, and the one that this version needs."""
    from flasc_cli import database

    _print_revisions(database.database_url(database_url), as_json=as_json)


def _print_revisions(url: str, *, as_json: bool) -> None:
    from aggregator_service.store.schema import current_revision, head_revision
    from flasc_cli import database

    with database.database_errors(url):
        revisions = {"current": current_revision(url), "needed": head_revision()}
    (print_json if as_json else print_fields)(revisions)
