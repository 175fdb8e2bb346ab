"""Makes tasks from models, where torch is, and hands them to the service, where it is not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from safetensors.numpy import save

from aggregator_service.domain.task_json import config_to_json
from flasc_cli.api import AdminApi, Record
from flasc_cli.errors import CliError
from flasc_cli.output import Json
from flasc_cli.task_settings import TaskSettings, task_config
from flasc_sim.blueprint import Blueprint, draw_blueprint
from flasc_sim.models import DtypeName

__all__ = ["DrawnTask", "draw_task", "upload_task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnTask:
    """A checked configuration as JSON, and the model's part in it."""

    config: dict[str, Json]
    blueprint: Blueprint


def draw_task(settings: TaskSettings, *, labels: int, seed: int) -> DrawnTask:
    """Load the model and put a task's configuration together. Raises CliError."""
    try:
        blueprint = draw_blueprint(
            settings.model,
            labels,
            rank=settings.rank,
            alpha=settings.alpha or settings.rank,
            target_modules=settings.target_modules,
            dropout=settings.dropout,
            layers_without_adapter=settings.layers_without_adapter,
            dtype=cast("DtypeName", settings.dtype),
            seed=seed,
        )
    except (OSError, ValueError) as error:
        raise CliError(f"model {settings.model!r}: {error}") from error
    config = task_config(blueprint, settings.sections, seed=seed)
    weights = config.base.initialise(blueprint.layout, blueprint.weights)
    blueprint = replace(blueprint, weights=weights)
    return DrawnTask(config=dict(config_to_json(config)), blueprint=blueprint)


def upload_task(client: AdminApi, name: str, drawn: DrawnTask) -> Record:
    """Create the task; return what the API says of it."""
    layout, weights = drawn.blueprint.layout, drawn.blueprint.weights
    return client.create_task(name, drawn.config, save(layout.split(weights)))
