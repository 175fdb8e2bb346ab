"""Live views of a task's rounds, told of changes by server-sent events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from flasc_cli.api import AdminApi, Record
from flasc_cli.output import Json, print_table, text

__all__ = ["states", "watch_lines", "watch_table"]

_SHOWN_ROUNDS = 20
_FINAL = frozenset({"COMPLETED", "CANCELLED"})


def watch_lines(client: AdminApi, task: str) -> None:
    """Print the task as one JSON line, now and after every change, until it has ended."""
    for shown in states(client, task):
        typer.echo(json.dumps({"task": shown["task"], "rounds": shown["rounds"][:1]}))


def watch_table(
    client: AdminApi, task: str, columns: Sequence[str], row: Callable[[Record], list[Json]]
) -> None:
    """Show the newest rounds as a table that changes in place; without a terminal, line by line."""
    console = Console()
    if not console.is_terminal:
        for shown in states(client, task):
            print_table(_title(shown), columns, [row(item) for item in shown["rounds"][:1]])
        return
    with Live(console=console, auto_refresh=False) as live:
        for shown in states(client, task):
            table = Table(*columns, title=_title(shown), title_justify="left")
            for item in reversed(shown["rounds"]):
                table.add_row(*map(text, row(item)))
            live.update(table, refresh=True)


def states(client: AdminApi, task: str) -> Iterator[Record]:
    """The task and its newest rounds, now and after each event; events only say when to look."""
    last_id: str | None = None
    while True:
        for event in client.events(task, last_id=last_id):
            last_id = event.id
            shown = _read(client, task)
            yield shown
            if shown["task"]["state"] in _FINAL:
                return


def _read(client: AdminApi, task: str) -> Record:
    rounds = client.get(f"/v1/tasks/{task}/rounds", limit=_SHOWN_ROUNDS)["items"]
    summary = client.get(f"/v1/tasks/{task}")
    # Its configuration never changes, and is most of it.
    del summary["config"]
    return {"task": summary, "rounds": rounds}


def _title(shown: Record) -> str:
    task = shown["task"]
    return (
        f"{task['name']}: {task['state']}, version {task['latest_version']} "
        f"of {task['rounds_wanted']}"
    )
