"""`flasc search`: the configuration that an accuracy or a byte budget asks for."""

from __future__ import annotations

from enum import StrEnum, unique
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flasc_cli.errors import CliError, ExitCode
from flasc_cli.options import DataOption, JsonOption
from flasc_cli.output import print_fields, print_json

if TYPE_CHECKING:
    from flasc_sim.search.goals import Goal

__all__ = ["search"]


@unique
class SearchMethod(StrEnum):
    BOTH = "both"
    GROWTH = "growth"
    HALVING = "halving"


def search(
    config: Annotated[
        Path, typer.Argument(help="A settings file, as flasc simulate's; [search] is the space.")
    ],
    *,
    target_accuracy: Annotated[
        float | None,
        typer.Option(help="Find the fewest bytes for this share of validation rows, as 0.65."),
    ] = None,
    byte_budget: Annotated[
        int | None,
        typer.Option(help="Find the best accuracy for payload bytes, of all devices, both ways."),
    ] = None,
    method: Annotated[
        SearchMethod,
        typer.Option(help="growth: FLASC-Search-style (reconstructed). halving: Optuna's."),
    ] = SearchMethod.BOTH,
    trials: Annotated[int, typer.Option(help="The most candidates per method.", min=1)] = 40,
    factor: Annotated[int, typer.Option(help="growth: of each step.", min=2)] = 2,
    reduction: Annotated[
        int, typer.Option(help="halving: 1 in so many runs goes on at a rung.", min=2)
    ] = 3,
    finalists: Annotated[
        int, typer.Option(help="How many of the best are run again with further seeds.", min=1)
    ] = 3,
    further_seeds: Annotated[
        int, typer.Option(help="With how many; 0 recommends by the search's own seed.", min=0)
    ] = 2,
    seed: Annotated[int | None, typer.Option(help="In place of the file's.", min=0)] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, as ending.rounds=10; repeatable."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Holds all runs and results; a search goes on there.")
    ] = Path("search"),
    data: DataOption = None,
    cache: Annotated[
        Path | None, typer.Option(help="Keeps what frozen layers make of the data, for next time.")
    ] = None,
    threads: Annotated[
        int, typer.Option(help="Of this process; sums depend on their number.", min=1)
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Simulate configurations until the cheapest or the best is found, and write it as a task."""
    import torch

    from flasc_cli.searching import Search
    from flasc_cli.searching import search as run_search
    from flasc_sim.workload import Sources

    torch.set_num_threads(threads)
    seeded = [*(assignments or ()), *([] if seed is None else [f"seed={seed}"])]
    asked = Search(
        goal=_goal(target_accuracy, byte_budget),
        grows=method is not SearchMethod.HALVING,
        halves=method is not SearchMethod.GROWTH,
        trials=trials,
        factor=factor,
        reduction=reduction,
        finalists=finalists,
        further_seeds=further_seeds,
    )
    found = run_search(asked, config, seeded, Sources(data=data, cache=cache), out)
    if as_json:
        print_json(found)
        return
    print_fields(
        {
            **found["recommended"],
            "meets the goal": found["goal"]["is_met"],
            "task": str(out / found["task"]) if found["task"] else "none: see docs/search.md",
            "settings": str(out / "recommended.toml"),
            "report": str(out / "report.html"),
        }
    )


def _goal(target_accuracy: float | None, byte_budget: int | None) -> Goal:
    from flasc_sim.search.goals import ByteBudget, TargetAccuracy

    if (target_accuracy is None) == (byte_budget is None):
        raise CliError("give either --target-accuracy or --byte-budget", ExitCode.USAGE)
    try:
        if target_accuracy is not None:
            return TargetAccuracy(accuracy=target_accuracy)
        return ByteBudget(payload_bytes=byte_budget or 0)
    except ValueError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
