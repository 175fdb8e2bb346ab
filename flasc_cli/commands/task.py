"""`flasc task`: fine-tuning tasks."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum, unique
from pathlib import Path
from typing import Annotated

import typer

from flasc_cli.api import DEFAULT_API, AdminApi, Record
from flasc_cli.errors import CliError, ExitCode
from flasc_cli.options import ApiKeyOption, ApiOption, DataOption, Dtype, JsonOption
from flasc_cli.output import (
    Json,
    payload_fields,
    print_fields,
    print_json,
    print_table,
    role_shares,
)
from flasc_cli.task_settings import (
    PresetName,
    changed_sections,
    file_settings,
    preset_settings,
    privacy_changes,
)

__all__ = ["app"]

app = typer.Typer(help="Fine-tuning tasks.", no_args_is_help=True)

TaskArgument = Annotated[str, typer.Argument(help="A task's name or id.")]

_COLUMNS = ("name", "state", "base_model", "latest_version", "rounds_wanted", "created_at", "id")
_TIER_COLUMNS = (
    "tier",
    "assigned",
    "accepted",
    "bytes down",
    "bytes up",
    "wasted",
    "A / B / head up",
    "accuracy",
    "of version",
)


@unique
class OptimizerName(StrEnum):
    ADAMW = "adamw"
    ADAM = "adam"
    SGD = "sgd"


@unique
class BaseName(StrEnum):
    ZERO = "zero"
    INITIAL = "initial"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="1 to 63 lower-case letters, digits and dashes.")],
    *,
    model: Annotated[
        str | None,
        typer.Option(help="minilm (where nothing says otherwise), a folder, or a hub's model."),
    ] = None,
    labels: Annotated[int | None, typer.Option(help="Number of classes.", min=2)] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Take the number of classes from this data set.")
    ] = None,
    data: DataOption = None,
    preset: Annotated[
        PresetName, typer.Option(help="paper: the authors' settings.")
    ] = PresetName.DEFAULT,
    settings_file: Annotated[
        Path | None,
        typer.Option("--settings", help="A task.toml of flasc search; options change it."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="LoRA rank; 16 where nothing says otherwise.", min=1)
    ] = None,
    alpha: Annotated[
        int | None, typer.Option(help="LoRA alpha; the rank by default, 16 in the paper.", min=1)
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(help="Modules that get LoRA, comma-separated; all linear maps by default."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Published rounds that end the task.")] = None,
    goal: Annotated[int | None, typer.Option(help="Updates per round.")] = None,
    quorum: Annotated[int | None, typer.Option(help="The fewest that count at the end.")] = None,
    window: Annotated[float | None, typer.Option(help="Seconds that a round collects.")] = None,
    download_density: Annotated[float | None, typer.Option(help="In (0, 1].")] = None,
    upload_density: Annotated[float | None, typer.Option(help="In (0, 1].")] = None,
    head_density: Annotated[
        float | None, typer.Option(help="In (0, 1]; 0: rank the head with the rest.")
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Of downloads and updates: plain, float32, bfloat16, int8 to int3."),
    ] = None,
    base: Annotated[
        BaseName | None,
        typer.Option(help="initial: send differences from an adapter that devices draw by --seed."),
    ] = None,
    optimizer: Annotated[OptimizerName | None, typer.Option(help="On the server.")] = None,
    server_lr: Annotated[float | None, typer.Option(help="The server's learning rate.")] = None,
    client_lr: Annotated[float | None, typer.Option(help="The devices' learning rate.")] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="Steps per device and round; 0: one epoch.")
    ] = None,
    privacy: Annotated[
        str | None,
        typer.Option(
            help="Settings of differential privacy as JSON: a clip_norm, and what flasc dp plan "
            "prints."
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, as policy.over_selection=1.2; repeatable."),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="Of the frozen weights; auto, where nothing says otherwise, measures."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the initial adapter and head.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the configuration; create nothing.")
    ] = False,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Create a task from a pretrained model: LoRA on it and its digest are made here, with torch.

    The service gets the initial adapter, never the model.
    """
    settings = preset_settings(preset)
    if settings_file is not None:
        settings = file_settings(settings, settings_file)
    changes = {
        "ending.rounds": rounds,
        "policy.goal": goal,
        "policy.quorum": quorum,
        "policy.window_seconds": window,
        "method.download_density": download_density,
        "method.upload_density": upload_density,
        "method.head_density": head_density,
        "optimizer.name": optimizer.value if optimizer else None,
        "optimizer.learning_rate": server_lr,
        "training.learning_rate": client_lr,
        "training.max_steps": max_steps,
        "encodings.download": encoding,
        "encodings.updates": None if encoding is None else [encoding],
        "base.name": None if base is None else base.value,
        **privacy_changes(privacy),
    }
    settings = replace(
        settings,
        model=model or settings.model,
        dtype=dtype.value if dtype else settings.dtype,
        rank=rank or settings.rank,
        alpha=alpha or settings.alpha,
        target_modules=targets.split(",") if targets else settings.target_modules,
        sections=changed_sections(settings.sections, changes, assignments or ()),
    )
    count = _label_count(labels, dataset, data)

    from flasc_cli.task_making import draw_task, upload_task

    drawn = draw_task(settings, labels=count, seed=seed)
    if dry_run:
        print_json(drawn.config)
        return
    with AdminApi(api, api_key) as client:
        created = upload_task(client, name, drawn)
    _print_detail(created, as_json=as_json)


@app.command(name="list")
def list_tasks(
    api: ApiOption = DEFAULT_API, api_key: ApiKeyOption = "", as_json: JsonOption = False
) -> None:
    """List tasks, newest first."""
    with AdminApi(api, api_key) as client:
        tasks = list(client.list_all("/v1/tasks"))
    if as_json:
        print_json(tasks)
    else:
        print_table("Tasks", _COLUMNS, [[row[name] for name in _COLUMNS] for row in tasks])


@app.command()
def show(
    task: TaskArgument,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show a task with what its rounds add up to and its whole configuration."""
    with AdminApi(api, api_key) as client:
        detail = client.get(f"/v1/tasks/{task}")
        totals = client.get(f"/v1/tasks/{task}/totals")
    if as_json:
        print_json({**detail, **totals})
        return
    _print_detail(detail, as_json=False)
    print_fields(
        {"updates accepted": totals["updates_accepted"], "requests refused": totals["refused"]}
    )
    print_fields(payload_fields(totals["bytes"]))
    print_table("Tiers", _TIER_COLUMNS, [_tier_row(part) for part in totals["tiers"]])


@app.command()
def pause(
    task: TaskArgument,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Open no more rounds; updates on their way still count."""
    _steer(task, "pause", api, api_key, as_json=as_json)


@app.command()
def resume(
    task: TaskArgument,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Go on with a paused task."""
    _steer(task, "resume", api, api_key, as_json=as_json)


@app.command()
def cancel(
    task: TaskArgument,
    api: ApiOption = DEFAULT_API,
    api_key: ApiKeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """End a task for good; published versions stay."""
    _steer(task, "cancel", api, api_key, as_json=as_json)


def _steer(task: str, step: str, api: str, api_key: str, *, as_json: bool) -> None:
    with AdminApi(api, api_key) as client:
        moved = client.post(f"/v1/tasks/{task}/{step}")
    if as_json:
        print_json(moved)
    else:
        typer.echo(f"{moved['name']} is {moved['state']}")


def _print_detail(detail: Record, *, as_json: bool) -> None:
    if as_json:
        print_json(detail)
        return
    config = detail["config"]
    # A tensor per line would bury the rest; --json has them all.
    sections = {
        name: config[name]
        for name in ("training", "method", "optimizer", "policy", "encodings", "base")
    }
    fields = {name: value for name, value in detail.items() if name not in ("config", "privacy")}
    if detail["privacy"] is not None:
        told = config["privacy"] | detail["privacy"]
        fields |= {f"privacy {name.replace('_', ' ')}": value for name, value in told.items()}
    tiers = {f"tier {tier['name']}": tier["method"] for tier in config["tiers"]}
    print_fields({**fields, **sections, **tiers, "tensors": len(config["layout"])})


def _tier_row(part: Record) -> list[Json]:
    moved, evaluation = part["bytes"], part["latest_evaluation"] or {}
    return [
        part["tier"] or "(none)",
        part["assigned"],
        part["accepted"],
        moved["down"],
        moved["up"],
        moved["wasted_down"] + moved["wasted_up"],
        role_shares(part["values_by_role"]),
        evaluation.get("accuracy"),
        evaluation.get("version"),
    ]


def _label_count(labels: int | None, dataset: str | None, data: Path | None) -> int:
    if labels is not None:
        return labels
    if dataset is None and data is None:
        raise CliError("give the number of classes with --labels, or --dataset", ExitCode.USAGE)
    from flasc_cli.texts import load_texts

    return len(load_texts(dataset or "", data).label_names)
