"""`flasc adapter`: published versions as files."""

from __future__ import annotations

from enum import StrEnum, unique
from pathlib import Path
from typing import Annotated

import typer

from flasc_cli.api import DEFAULT_API, AdminApi
from flasc_cli.options import ApiKeyOption, ApiOption, JsonOption, Weights, WeightsOption
from flasc_cli.output import print_json, print_table

__all__ = ["app"]

app = typer.Typer(help="Published adapter versions.", no_args_is_help=True)

TaskArgument = Annotated[str, typer.Argument(help="A task's name or id.")]

_COLUMNS = ("version", "created_at", "updates_averaged", "mask_nnz", "dimension", "weights_sha256")


@unique
class Format(StrEnum):
    PEFT = "peft"
    SAFETENSORS = "safetensors"


@app.command(name="list")
def list_adapters(
    task: TaskArgument,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """List a task's versions, newest first."""
    with AdminApi(api, api_key) as client:
        adapters = list(client.list_all(f"/v1/tasks/{task}/adapters"))
    if as_json:
        print_json(adapters)
    else:
        rows = [[row[name] for name in _COLUMNS] for row in adapters]
        print_table(f"Adapters of {task}", _COLUMNS, rows)


@app.command()
def export(
    task: TaskArgument,
    target: Annotated[Path, typer.Argument(help="Folder (peft) or file (safetensors) to write.")],
    version: Annotated[str, typer.Option(help="A version's number, or latest.")] = "latest",
    weights: WeightsOption = Weights.MASKED,
    form: Annotated[
        Format, typer.Option("--format", help="A folder for PeftModel.from_pretrained, or a file.")
    ] = Format.PEFT,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write a version to disk. An existing folder must be empty, an existing file is replaced."""
    from flasc_cli.exporting import export_adapter

    with AdminApi(api, api_key) as client:
        sha256 = export_adapter(
            client,
            task,
            target,
            version=version,
            weights=weights.value,
            as_folder=form is Format.PEFT,
        )
    if as_json:
        print_json({"path": str(target), "weights": weights.value, "adapter_sha256": sha256})
    else:
        typer.echo(f"{target}: {weights.value} weights, tensors with SHA-256 {sha256}")
