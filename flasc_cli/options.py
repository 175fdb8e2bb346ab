"""Options that many commands share."""

from __future__ import annotations

from enum import StrEnum, unique
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "ApiKeyOption",
    "ApiOption",
    "DataOption",
    "DatabaseOption",
    "Dtype",
    "DtypeOption",
    "JsonOption",
    "Weights",
    "WeightsOption",
]


@unique
class Dtype(StrEnum):
    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


@unique
class Weights(StrEnum):
    MASKED = "masked"
    MASTER = "master"


WeightsOption = Annotated[
    Weights, typer.Option(help="masked: what devices run. master: all that the server keeps.")
]
DtypeOption = Annotated[
    Dtype,
    typer.Option(help="Of the frozen weights; auto measures which this processor is faster at."),
]
DataOption = Annotated[
    Path | None,
    typer.Option(help="A parquet file with columns text, label, split and client or author."),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ApiOption = Annotated[
    str, typer.Option("--api", envvar="FLASC_API", help="Address of the admin API.")
]
ApiKeyOption = Annotated[
    str,
    typer.Option(
        "--api-key",
        envvar="FLASC_API_KEY",
        help="Key to the admin API; better given by the environment than here.",
        show_default=False,
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        envvar="FLASC_DATABASE_URL",
        help="SQLAlchemy URL; SQLite in ./flasc-data by default.",
        show_default=False,
    ),
]
