"""`flasc evaluate`: score a published version on held-out examples, on a machine with torch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from flasc_cli.api import DEFAULT_API, AdminApi
from flasc_cli.options import (
    ApiKeyOption,
    ApiOption,
    DataOption,
    JsonOption,
    Weights,
    WeightsOption,
)
from flasc_cli.output import Json, print_fields, print_json

__all__ = ["evaluate"]


def evaluate(
    task: Annotated[str, typer.Argument(help="A task's name or id.")],
    dataset: Annotated[str, typer.Option(help="debian-sections, 20newsgroups, or a hub's.")],
    version: Annotated[str, typer.Option(help="A version's number, or latest.")] = "latest",
    weights: WeightsOption = Weights.MASKED,
    model: Annotated[
        str | None, typer.Option(help="The base model; the task's own name for it by default.")
    ] = None,
    limit: Annotated[int, typer.Option(help="The most examples to score.", min=1)] = 2000,
    seed: Annotated[int, typer.Option(help="Draws the examples.")] = 0,
    data: DataOption = None,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Download a version and score it on a data set's held-out part."""
    from flasc_cli.exporting import export_adapter
    from flasc_cli.scoring import score_folder
    from flasc_cli.texts import load_texts
    from flasc_sim.blueprint import split_base_model_name
    from flasc_sim.datasets import held_out_examples

    table = load_texts(dataset, data)
    with AdminApi(api, api_key) as client, tempfile.TemporaryDirectory() as temporary:
        base = client.get(f"/v1/tasks/{task}")["config"]["base_model"]
        named, dtype = split_base_model_name(base["name"])
        folder = Path(temporary) / "adapter"
        sha256 = export_adapter(client, task, folder, version=version, weights=weights.value)
        (score,) = score_folder(
            folder,
            [held_out_examples(table, limit=limit, seed=seed)],
            model=model or named,
            labels=len(table.label_names),
            dtype=dtype,
            base_sha256=base["sha256"],
        )
    result: dict[str, Json] = {
        "task": task,
        "version": version,
        "weights": weights.value,
        "adapter_sha256": sha256,
        "dataset": table.name,
        "correct": score.correct,
        "total": score.total,
        "accuracy": score.correct / score.total,
        "loss": score.loss_sum / score.total,
    }
    (print_json if as_json else print_fields)(result)
