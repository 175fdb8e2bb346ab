"""A task's configuration as JSON: what the admin API takes and the database keeps.

Unknown fields are refused, so that a misspelt setting is never silently a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeAlias, cast

from aggregator_service.domain.privacy import Privacy
from aggregator_service.domain.rounds import RoundPolicy
from aggregator_service.domain.tasks import (
    BaseModel,
    Encodings,
    Ending,
    TaskConfig,
    Tier,
    TrainingPlan,
    UpdateLimits,
)
from flasc_core.base import base_from_json
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout
from flasc_core.methods import method_from_json
from flasc_core.server_update import optimizer_from_json
from flasc_core.wire import Encoding

__all__ = ["Json", "config_from_json", "config_to_json", "policy_from_json", "policy_to_json"]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_POLICY_SECONDS = ("window", "retry_min", "retry_max")


def config_to_json(config: TaskConfig) -> dict[str, Json]:
    training, limits, ending = config.training, config.limits, config.ending
    fields = {
        "layout": config.layout.to_json(),
        "base_model": {
            "name": config.base_model.name,
            "sha256": config.base_model.sha256.hex(),
        },
        "peft_config_json": config.peft_config_json,
        "training": {name: getattr(training, name) for name in TrainingPlan.__slots__},
        "method": config.method.to_json(),
        "optimizer": config.optimizer.to_json(),
        "policy": policy_to_json(config.policy),
        "ending": {name: getattr(ending, name) for name in Ending.__slots__},
        "limits": {name: getattr(limits, name) for name in UpdateLimits.__slots__},
        "encodings": {
            "download": config.encodings.download.name,
            "updates": [encoding.name for encoding in config.encodings.updates],
        },
        "base": config.base.to_json(),
        "tiers": [{"name": tier.name, "method": tier.method.to_json()} for tier in config.tiers],
        "fold_shards": config.fold_shards,
        "privacy": None if config.privacy is None else config.privacy.to_json(),
    }
    return cast("dict[str, Json]", fields)


def config_from_json(data: Mapping[str, Json]) -> TaskConfig:
    """Refuses (CONFIGURATION) missing, unknown and ill-typed fields; does not check() the rest."""
    try:
        fields = dict(data)
        config = TaskConfig(
            layout=AdapterLayout.from_json(cast("list[dict[str, Json]]", fields.pop("layout"))),
            base_model=_base_model(fields.pop("base_model")),
            peft_config_json=_text(fields.pop("peft_config_json"), "peft_config_json"),
            training=TrainingPlan(**_numbers(fields.pop("training"), TrainingPlan, "training")),
            method=method_from_json(_object(fields.pop("method"), "method")),
            optimizer=optimizer_from_json(_object(fields.pop("optimizer"), "optimizer")),
            policy=policy_from_json(_object(fields.pop("policy"), "policy")),
            ending=Ending(**_numbers(fields.pop("ending"), Ending, "ending")),
            limits=UpdateLimits(**_numbers(fields.pop("limits", {}), UpdateLimits, "limits")),
            encodings=_encodings(fields.pop("encodings", {})),
            base=base_from_json(_object(fields.pop("base", {"name": "zero"}), "base")),
            tiers=_tiers(fields.pop("tiers", [])),
            fold_shards=_integer(fields.pop("fold_shards", 1), "fold_shards"),
            privacy=_privacy(fields.pop("privacy", None)),
        )
    except KeyError as missing:
        raise Refusal(Reason.CONFIGURATION, f"task configuration lacks {missing}") from None
    except (TypeError, ValueError) as error:
        raise Refusal(Reason.CONFIGURATION, f"task configuration: {error}") from None
    if fields:
        raise Refusal(
            Reason.CONFIGURATION, f"task configuration has unknown fields: {', '.join(fields)}"
        )
    return config


def policy_to_json(policy: RoundPolicy) -> dict[str, Json]:
    values: dict[str, Json] = {}
    for name in RoundPolicy.__slots__:
        value = getattr(policy, name)
        key = f"{name}_seconds" if name in _POLICY_SECONDS else name
        values[key] = value.total_seconds() if isinstance(value, timedelta) else value
    return values


def policy_from_json(data: Mapping[str, Json]) -> RoundPolicy:
    """Raises TypeError or ValueError that names the field."""
    fields: dict[str, Json] = dict(data)
    spans: dict[str, Any] = {
        name: _span(fields.pop(f"{name}_seconds"), f"policy.{name}_seconds")
        for name in _POLICY_SECONDS
        if f"{name}_seconds" in fields
    }
    return RoundPolicy(**_numbers(fields, RoundPolicy, "policy"), **spans)


def _encodings(value: Json) -> Encodings:
    fields = dict(_object(value, "encodings"))
    chosen = Encodings()
    if "download" in fields:
        name = _text(fields.pop("download"), "encodings.download")
        chosen = replace(chosen, download=Encoding.parse(name))
    if "updates" in fields:
        names = fields.pop("updates")
        if not isinstance(names, list):
            raise TypeError("encodings.updates must be a list of names")
        updates = tuple(Encoding.parse(_text(name, "encodings.updates")) for name in names)
        chosen = replace(chosen, updates=updates)
    if fields:
        raise ValueError(f"encodings has an unknown field {min(fields)!r}")
    return chosen


def _privacy(value: Json) -> Privacy | None:
    return None if value is None else Privacy.from_json(_object(value, "privacy"))


def _tiers(value: Json) -> tuple[Tier, ...]:
    if not isinstance(value, list):
        raise TypeError("tiers must be a list")
    return tuple(_tier(item) for item in value)


def _tier(value: Json) -> Tier:
    fields = _object(value, "a tier")
    tier = Tier(
        name=_text(fields.pop("name"), "a tier's name"),
        method=method_from_json(_object(fields.pop("method"), "a tier's method")),
    )
    if fields:
        raise ValueError(f"a tier has an unknown field {min(fields)!r}")
    return tier


def _base_model(value: Json) -> BaseModel:
    fields = _object(value, "base_model")
    name = _text(fields.pop("name"), "base_model.name")
    digits = _text(fields.pop("sha256"), "base_model.sha256")
    if fields:
        raise ValueError(f"base_model has an unknown field {min(fields)!r}")
    try:
        return BaseModel(name=name, sha256=bytes.fromhex(digits))
    except ValueError:
        raise ValueError("base_model.sha256 must be hexadecimal") from None


def _numbers(value: Json, target: type, where: str) -> dict[str, Any]:
    """The fields of one flat object, each a number, a boolean or null as its default suggests."""
    fields = _object(value, where)
    hints = target.__annotations__
    checked: dict[str, Any] = {}
    for name, content in fields.items():
        hint = hints.get(name)
        if hint is None or hint == "timedelta":
            raise ValueError(f"{where} has an unknown field {name!r}")
        checked[name] = _READERS[hint](content, f"{where}.{name}")
    return checked


def _object(value: Json, where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TypeError(f"{where} must be an object")
    return dict(value)


def _text(value: Json, where: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{where} must be text")
    return value


def _integer(value: Json, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where} must be a whole number")
    return value


def _real(value: Json, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{where} must be a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{where} is too large") from None


def _span(value: Json, where: str) -> timedelta:
    seconds = _real(value, where)
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise ValueError(f"{where} is no length of time") from None


def _optional_real(value: Json, where: str) -> float | None:
    return None if value is None else _real(value, where)


def _boolean(value: Json, where: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{where} must be true or false")
    return value


# By annotation, as `from __future__ import annotations` keeps them.
_READERS = {
    "int": _integer,
    "float": _real,
    "float | None": _optional_real,
    "bool": _boolean,
}
