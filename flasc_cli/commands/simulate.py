"""`flasc simulate`: whole federated runs on this machine, by settings files."""

from __future__ import annotations

from enum import StrEnum, unique
from pathlib import Path
from typing import Annotated, Final

import typer

from flasc_cli.options import JsonOption
from flasc_cli.output import print_json, print_table

__all__ = ["simulate"]

COLUMNS: Final = ("name", "seed", "accuracy", "rounds", "payload_bytes_down", "payload_bytes_up")


@unique
class EngineName(StrEnum):
    SERIAL = "serial"
    RAY = "ray"


def simulate(
    configs: Annotated[list[Path], typer.Argument(help="Settings files, TOML.")],
    *,
    seeds: Annotated[
        list[int] | None,
        typer.Option("--seed", help="In place of the file's; repeatable.", min=0),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, as ending.rounds=10; repeatable."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Runs go to OUT/NAME/seedN, and go on there where they stopped.")
    ] = Path("runs"),
    data: Annotated[
        Path | None, typer.Option(help="A copy of the workload's data; fetched where left out.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="The model's file, of mobilenet-v1.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Keeps what frozen layers make of the data, for next time.")
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option(help="Rounds between two checkpoints.", min=1)
    ] = 10,
    threads: Annotated[
        int, typer.Option(help="Of this process; sums depend on their number.", min=1)
    ] = 1,
    engine: Annotated[
        EngineName,
        typer.Option(help="ray: on workers of a cluster; the same bits on processors as here."),
    ] = EngineName.SERIAL,
    workers: Annotated[int, typer.Option(help="Of Ray.", min=1)] = 2,
    gpus_per_worker: Annotated[float, typer.Option(help="Of Ray; 0: no GPU.", min=0)] = 0,
    ray_address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster; one on this machine by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run settings files one after another; what is finished is left as it is.

    All settings are checked first. A run that fails keeps no other from being made, and the command
    then exits with 1.
    """
    import torch

    from flasc_cli.simulating import open_engine, read_runs, run_all
    from flasc_sim.workload import Sources

    torch.set_num_threads(threads)
    planned = read_runs(configs, seeds=seeds or [], assignments=assignments or [])
    with open_engine(
        engine.value, workers=workers, gpus_per_worker=gpus_per_worker, address=ray_address
    ) as made:
        batch = run_all(
            planned,
            Sources(data=data, weights=weights, cache=cache),
            out,
            checkpoint_every=checkpoint_every,
            engine=made,
        )
    if as_json:
        print_json(batch.results)
    else:
        print_table(
            "Runs", COLUMNS, [[result[name] for name in COLUMNS] for result in batch.results]
        )
    batch.check()
