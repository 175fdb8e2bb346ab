"""`flasc device`: which devices may take part."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from flasc_cli.api import DEFAULT_API, AdminApi
from flasc_cli.options import ApiKeyOption, ApiOption, JsonOption
from flasc_cli.output import print_fields, print_json, print_table

__all__ = ["app"]

app = typer.Typer(help="Devices that may take part.", no_args_is_help=True)

_COLUMNS = ("id", "name", "tier", "enrolled_at", "last_seen_at", "revoked_at")


@app.command()
def enroll(
    name: Annotated[str, typer.Argument(help="A name for operators; unique.")],
    tier: Annotated[str, typer.Option(help="What tasks' tiers call devices like this one.")] = "",
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a device known and show its credential: this once, since only its hash is kept."""
    with AdminApi(api, api_key) as client:
        enrolled = client.post("/v1/devices", {"name": name, "tier": tier})
    if as_json:
        print_json(enrolled)
    else:
        print_fields(
            {
                "device": enrolled["device"]["id"],
                "credential": enrolled["credential"],
                "service": enrolled["grpc_address"],
            }
        )


@app.command(name="list")
def list_devices(
    api: ApiOption = DEFAULT_API, api_key: ApiKeyOption = "", as_json: JsonOption = False
) -> None:
    """List devices, revoked ones included."""
    with AdminApi(api, api_key) as client:
        devices = list(client.list_all("/v1/devices"))
    if as_json:
        print_json(devices)
    else:
        print_table("Devices", _COLUMNS, [[row[name] for name in _COLUMNS] for row in devices])


@app.command(name="tier")
def set_tier(
    device_id: Annotated[UUID, typer.Argument(help="The id, as `flasc device list` shows it.")],
    tier: Annotated[str, typer.Argument(help='A name as in tasks\' tiers; "" for none.')],
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Say which tier a device is of, from its next assignment on."""
    with AdminApi(api, api_key) as client:
        device = client.post(f"/v1/devices/{device_id}/tier", {"tier": tier})
    (print_json if as_json else print_fields)(device)


@app.command()
def revoke(
    device_id: Annotated[UUID, typer.Argument(help="The id, as `flasc device list` shows it.")],
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Refuse a device from its next call on. Repeating is harmless."""
    with AdminApi(api, api_key) as client:
        device = client.post(f"/v1/devices/{device_id}/revoke")
    (print_json if as_json else print_fields)(device)
