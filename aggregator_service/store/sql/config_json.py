"""Task configurations and round policies as JSON text."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import lru_cache
from typing import Any

from aggregator_service.domain.rounds import RoundPolicy
from aggregator_service.domain.tasks import (
    BaseModel,
    Ending,
    TaskConfig,
    TrainingPlan,
    UpdateLimits,
)
from flasc_core.json_value import JsonValue
from flasc_core.layout import AdapterLayout
from flasc_core.methods import method_from_json
from flasc_core.server_update import optimizer_from_json

__all__ = ["config_from_text", "config_to_text", "policy_from_text", "policy_to_text"]


def config_to_text(config: TaskConfig) -> str:
    """Equal configurations give equal text."""
    training, ending, limits = config.training, config.ending, config.limits
    return _dump(
        {
            "layout": config.layout.to_json(),
            "base_model": {
                "name": config.base_model.name,
                "sha256": config.base_model.sha256.hex(),
            },
            "peft_config_json": config.peft_config_json,
            "training": {
                "learning_rate": training.learning_rate,
                "batch_size": training.batch_size,
                "local_epochs": training.local_epochs,
                "max_steps": training.max_steps,
                "momentum": training.momentum,
                "weight_decay": training.weight_decay,
            },
            "method": config.method.to_json(),
            "optimizer": config.optimizer.to_json(),
            "policy": _policy_to_json(config.policy),
            "ending": {
                "rounds": ending.rounds,
                "target_accuracy": ending.target_accuracy,
                "final_evaluation": ending.final_evaluation,
            },
            "limits": {
                "max_abs_value": limits.max_abs_value,
                "max_weight": limits.max_weight,
                "largest_cohort": limits.largest_cohort,
            },
            "fold_shards": config.fold_shards,
        }
    )


# Layouts are long and every request reads its task, so what was decoded is kept.
@lru_cache(maxsize=64)
def config_from_text(text: str) -> TaskConfig:
    data: dict[str, Any] = json.loads(text)
    base_model = data["base_model"]
    return TaskConfig(
        layout=AdapterLayout.from_json(data["layout"]),
        base_model=BaseModel(name=base_model["name"], sha256=bytes.fromhex(base_model["sha256"])),
        peft_config_json=data["peft_config_json"],
        training=TrainingPlan(**data["training"]),
        method=method_from_json(data["method"]),
        optimizer=optimizer_from_json(data["optimizer"]),
        policy=_policy_from_json(data["policy"]),
        ending=Ending(**data["ending"]),
        limits=UpdateLimits(**data["limits"]),
        fold_shards=data["fold_shards"],
    )


def policy_to_text(policy: RoundPolicy) -> str:
    return _dump(_policy_to_json(policy))


def policy_from_text(text: str) -> RoundPolicy:
    return _policy_from_json(json.loads(text))


def _policy_to_json(policy: RoundPolicy) -> dict[str, JsonValue]:
    return {
        "goal": policy.goal,
        "quorum": policy.quorum,
        "window_seconds": policy.window.total_seconds(),
        "over_selection": policy.over_selection,
        "minimum_cohort": policy.minimum_cohort,
        "minimum_separation": policy.minimum_separation,
        "retry_min_seconds": policy.retry_min.total_seconds(),
        "retry_max_seconds": policy.retry_max.total_seconds(),
    }


def _policy_from_json(data: dict[str, Any]) -> RoundPolicy:
    return RoundPolicy(
        goal=data["goal"],
        quorum=data["quorum"],
        window=timedelta(seconds=data["window_seconds"]),
        over_selection=data["over_selection"],
        minimum_cohort=data["minimum_cohort"],
        minimum_separation=data["minimum_separation"],
        retry_min=timedelta(seconds=data["retry_min_seconds"]),
        retry_max=timedelta(seconds=data["retry_max_seconds"]),
    )


def _dump(data: JsonValue) -> str:
    return json.dumps(data, allow_nan=False, sort_keys=True, separators=(",", ":"))
