"""`flasc compare`: finished simulations beside each other."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from flasc_cli.errors import CliError
from flasc_cli.options import JsonOption
from flasc_cli.output import print_json, print_table, say

__all__ = ["compare"]

_COLUMNS: Final = (
    "name",
    "seeds",
    "accuracy",
    "deviation",
    "parameters",
    "bytes_down",
    "bytes_up",
    "saving",
)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or folders of those.")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Also write a report here: HTML, figures and JSON.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what each configuration reached over its seeds, and the bytes that it took.

    The saving is what the largest adapter of them would send dense in float32, over what was sent.
    """
    from flasc_sim import comparison

    try:
        for failed in comparison.find_failures(runs):
            say(
                f"left out: {failed.name}, seed {failed.seed}, failed in round {failed.round}: "
                f"{failed.reason}"
            )
        found = comparison.find_runs(runs)
        rows = comparison.compare(found)
        if out is not None:
            from flasc_sim.comparison_report import write_report

            for file in write_report(found, out):
                say(f"wrote {file}")
    except (OSError, ValueError) as error:
        raise CliError(str(error)) from error
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    shown = [
        (
            row.name,
            len(row.seeds),
            row.accuracy,
            row.accuracy_deviation,
            row.parameters,
            row.payload_bytes_down,
            row.payload_bytes_up,
            row.saving,
        )
        for row in rows
    ]
    print_table("Configurations", _COLUMNS, shown)
