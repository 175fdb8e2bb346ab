"""The entry point: all commands, and what a failure looks like.

Exit codes: 0 done; 1 failed or refused; 2 wrong options; 3 the service or the database can not be
reached; 4 the API key is missing or refused; 5 a check came out negative; 130 and 143 interrupted.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from flasc_cli.commands import (
    adapter,
    compare,
    demo,
    device,
    dp,
    evaluate,
    keys,
    migrate,
    rounds,
    search,
    serve,
    simulate,
    task,
)
from flasc_cli.errors import CliError, ExitCode

__all__ = ["app", "main"]

app = typer.Typer(
    help="Federated LoRA with sparse communication: run the service, steer it, try it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(migrate.app, name="migrate")
app.add_typer(keys.app, name="keys")
app.add_typer(device.app, name="device")
app.add_typer(task.app, name="task")
app.add_typer(rounds.app, name="round")
app.add_typer(adapter.app, name="adapter")
app.add_typer(dp.app, name="dp")
app.command()(serve.serve)
app.command()(evaluate.evaluate)
app.command()(simulate.simulate)
app.command()(compare.compare)
app.command()(search.search)
app.command()(demo.demo)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("flasc-service"))
        raise typer.Exit


@app.callback()
def _flasc(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Federated LoRA with sparse communication: run the service, steer it, try it."""


def main() -> None:
    try:
        app()
    except CliError as error:
        _fail(error.message, error.exit_code)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(("flasc", "aggregator", "client_sdk")):
            _fail(
                f"this command needs more than is installed ({error}): "
                "pip install 'flasc-service[demo,search]' has everything",
                ExitCode.FAILED,
            )
        raise


def _fail(message: str, exit_code: ExitCode) -> None:
    if "--json" in sys.argv:
        typer.echo(json.dumps({"error": message, "exit_code": exit_code}), err=True)
    else:
        typer.echo(f"Error: {message}", err=True)
    sys.exit(exit_code)
