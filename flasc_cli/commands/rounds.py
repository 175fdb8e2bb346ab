"""`flasc round`: how a task's rounds go."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from flasc_cli.api import DEFAULT_API, AdminApi, Record
from flasc_cli.options import ApiKeyOption, ApiOption, JsonOption
from flasc_cli.output import (
    Json,
    payload_fields,
    print_fields,
    print_json,
    print_table,
    role_shares,
)

__all__ = ["app"]

app = typer.Typer(help="Rounds of a task.", no_args_is_help=True)

TaskArgument = Annotated[str, typer.Argument(help="A task's name or id.")]
NumberArgument = Annotated[int, typer.Argument(help="The round's number.", min=1)]

_COLUMNS = (
    "round",
    "kind",
    "state",
    "accepted",
    "goal",
    "refused",
    "bytes down",
    "bytes up",
    "wasted",
    "loss",
    "accuracy",
    "seconds",
)


_TIER_COLUMNS = (
    "tier",
    "assigned",
    "accepted",
    "bytes down",
    "bytes up",
    "A / B / head down",
    "A / B / head up",
    "accuracy",
)

_DEVICE_COLUMNS = (
    "device_id",
    "tier",
    "state",
    "payload_bytes_down",
    "payload_bytes_up",
    "wasted_bytes_down",
    "wasted_bytes_up",
    "detail",
)


@app.command(name="list")
def list_rounds(
    task: TaskArgument,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """List a task's rounds, newest first; accuracy is of the version that a round starts from."""
    with AdminApi(api, api_key) as client:
        rounds = list(client.list_all(f"/v1/tasks/{task}/rounds"))
    if as_json:
        print_json(rounds)
    else:
        print_table(f"Rounds of {task}", _COLUMNS, [_row(shown) for shown in rounds])


@app.command()
def show(
    task: TaskArgument,
    number: NumberArgument,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show all figures of one round, and what became of each device in it."""
    with AdminApi(api, api_key) as client:
        shown = client.get(f"/v1/tasks/{task}/rounds/{number}")
        devices = list(client.list_all(f"/v1/rounds/{UUID(shown['id'])}/assignments"))
    if as_json:
        print_json({**shown, "assignments": devices})
        return
    nested = ("devices", "bytes", "downloads", "tiers")
    print_fields({name: value for name, value in shown.items() if name not in nested})
    print_fields(payload_fields(shown["bytes"]))
    print_table("Tiers", _TIER_COLUMNS, _tier_rows(shown))
    print_table("Devices", _DEVICE_COLUMNS, [[row[n] for n in _DEVICE_COLUMNS] for row in devices])


@app.command()
def retract(
    task: TaskArgument,
    number: NumberArgument,
    device_id: Annotated[UUID, typer.Argument(help="The id, as `flasc round show` lists it.")],
    reason: Annotated[str, typer.Option(help="Kept with the device's part in the round.")],
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take a device's update out of a round that still collects, and destroy its payload.

    The round goes on as if the device had not taken part. Repeating is harmless.
    """
    with AdminApi(api, api_key) as client:
        round_id = UUID(client.get(f"/v1/tasks/{task}/rounds/{number}")["id"])
        path = f"/v1/rounds/{round_id}/updates/{device_id}/retract"
        shown = client.post(path, {"reason": reason})
    if as_json:
        print_json(shown)
    else:
        typer.echo(
            f"The update is out of round {number}; {shown['devices']['accepted']} of "
            f"{shown['goal']} are left"
        )


@app.command()
def abort(
    task: TaskArgument,
    number: NumberArgument,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """End a round without a version; its updates are dropped, and the next round starts afresh."""
    with AdminApi(api, api_key) as client:
        round_id = UUID(client.get(f"/v1/tasks/{task}/rounds/{number}")["id"])
        shown = client.post(f"/v1/rounds/{round_id}/abort")
    if as_json:
        print_json(shown)
    else:
        typer.echo(f"round {number} is {shown['state']}")


@app.command()
def watch(
    task: TaskArgument,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Follow a task live until it ends; with --json one line per change."""
    from flasc_cli.watching import watch_lines, watch_table

    with AdminApi(api, api_key) as client:
        if as_json:
            watch_lines(client, task)
        else:
            watch_table(client, task, _COLUMNS, _row)


def _tier_rows(shown: Record) -> list[list[Json]]:
    downloads = {file["tier"]: file for file in shown["downloads"]}
    return [
        [
            part["tier"] or "(none)",
            part["assigned"],
            part["accepted"],
            part["bytes"]["down"],
            part["bytes"]["up"],
            role_shares(downloads.get(part["tier"], {}).get("values_by_role", {})),
            role_shares(part["values_by_role"]),
            part["evaluation"] and part["evaluation"]["accuracy"],
        ]
        for part in shown["tiers"]
    ]


def _row(shown: Record) -> list[Json]:
    seconds = [shown["collecting_seconds"], shown["publishing_seconds"]]
    evaluation = shown["evaluation"] or {}
    return [
        shown["number"],
        shown["kind"],
        shown["state"],
        shown["devices"]["reported"],
        shown["goal"],
        sum(shown["refused"].values()),
        shown["bytes"]["down"],
        shown["bytes"]["up"],
        shown["bytes"]["wasted_down"] + shown["bytes"]["wasted_up"],
        shown["training"]["loss_mean"],
        evaluation.get("accuracy"),
        round(sum(filter(None, seconds)), 1) if any(seconds) else None,
    ]
