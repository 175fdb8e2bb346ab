"""What commands print: JSON on request, otherwise tables and lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import typer
from rich.console import Console
from rich.table import Table

__all__ = [
    "Json",
    "payload_fields",
    "print_fields",
    "print_json",
    "print_table",
    "role_shares",
    "say",
    "text",
]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

_ROLES: Final = ("LORA_A", "LORA_B", "HEAD")


def print_json(value: Json) -> None:
    typer.echo(json.dumps(value, indent=2))


def say(line: str) -> None:
    """One line for people; it goes to stderr, so that stdout holds results alone."""
    typer.echo(line, err=True)


def print_fields(fields: Mapping[str, Json]) -> None:
    """One value per line, names aligned."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        typer.echo(f"{name:<{width}}  {text(value)}")


def payload_fields(payload: Mapping[str, Any]) -> dict[str, Json]:
    """The API's payload bytes, one figure a line, beside what dense tensors would have taken."""
    fields: dict[str, Json] = {
        f"bytes {name.replace('_', ' ')}": payload[name]
        for name in ("down", "up", "wasted_down", "wasted_up")
    }
    for name in ("float32", "bfloat16"):
        dense = payload[f"dense_{name}"]
        fields[f"dense {name}"] = dense["down"] + dense["up"]
        fields[f"saving against {name}"] = dense["saving_factor"]
    return fields


def role_shares(values: Mapping[str, Any]) -> str:
    """What of a mask is LoRA's A, its B and the head, in per cent."""
    in_all = sum(values.values())
    if not in_all:
        return "-"
    return " / ".join(f"{100 * values.get(role, 0) / in_all:.0f} %" for role in _ROLES)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Json]]) -> None:
    if not rows:
        typer.echo(f"{title}: none")
        return
    if not sys.stdout.isatty():
        # Nothing that reads a pipe wants boxes, or lines cut to a terminal's width.
        for row in (columns, *rows):
            typer.echo("\t".join(map(text, row)))
        return
    table = Table(title=title, title_justify="left")
    for position, column in enumerate(columns):
        numeric = all(isinstance(row[position], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*map(text, row))
    Console().print(table, markup=False)


def text(value: Json) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, str):
        return json.dumps(value)
    # Devices have a say in some texts: none may steer the terminal, or look like another row.
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in value)
