"""`flasc demo`: one real federated fine-tune on this machine, start to finish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flasc_cli.options import DataOption, Dtype, DtypeOption, JsonOption

__all__ = ["demo"]


def demo(
    *,
    rounds: Annotated[int, typer.Option(help="Rounds that train.", min=1)] = 10,
    devices: Annotated[int, typer.Option(help="Device processes.", min=1, max=100)] = 10,
    rank: Annotated[int, typer.Option(help="LoRA rank.", min=1)] = 16,
    dataset: Annotated[
        str, typer.Option(help="debian-sections, 20newsgroups, or a hub's.")
    ] = "debian-sections",
    data: DataOption = None,
    model: Annotated[
        str, typer.Option(help="minilm, a local folder, or a hub's model.")
    ] = "minilm",
    dtype: DtypeOption = Dtype.AUTO,
    download_density: Annotated[float, typer.Option(help="In (0, 1].")] = 1 / 16,
    upload_density: Annotated[float, typer.Option(help="In (0, 1].")] = 1 / 16,
    encoding: Annotated[
        str, typer.Option(help="Both ways: plain, float32, bfloat16, int8 to int3.")
    ] = "int6",
    base: Annotated[
        str, typer.Option(help="zero, or initial: send differences from a drawn adapter.")
    ] = "initial",
    dense: Annotated[
        bool, typer.Option(help="Run dense LoRA in float32 after it, to compare with.")
    ] = True,
    max_steps: Annotated[int, typer.Option(help="Local steps per device and round.", min=1)] = 8,
    held_out: Annotated[int, typer.Option(help="Held-out examples per device.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Draws adapter, head and held-out examples.")] = 0,
    kill_server_in_round: Annotated[
        int | None, typer.Option(help="kill -9 the service in this round, and restart it.", min=1)
    ] = None,
    data_folder: Annotated[
        Path, typer.Option(help="Database, logs and adapter; an earlier demo's is replaced.")
    ] = Path("demo-data"),
    summary: Annotated[Path, typer.Option(help="Where the figures go.")] = Path(
        "demo-summary.json"
    ),
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a real model across device processes, over real gRPC, and check the result.

    Everything is on this machine and ends with the command, by Ctrl-C too. Exit code 5: the
    exported adapter does not have the accuracy that was published.
    """
    from flasc_cli.demo.run import run_demo
    from flasc_cli.demo.settings import DemoSettings

    run_demo(
        DemoSettings(
            rounds=rounds,
            devices=devices,
            rank=rank,
            dataset=dataset,
            data=None if data is None else str(data.resolve()),
            model=model,
            dtype=dtype.value,
            download_density=download_density,
            upload_density=upload_density,
            encoding=encoding,
            base=base,
            max_steps=max_steps,
            held_out=held_out,
            seed=seed,
        ),
        data_folder=data_folder,
        summary=summary,
        compare_with_dense=dense,
        kill_server_in_round=kill_server_in_round,
        as_json=as_json,
    )
