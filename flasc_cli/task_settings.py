"""A new task's settings: a preset, and what the operator changes of it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum, unique
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Any, Final

from flasc_cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    from aggregator_service.domain.tasks import TaskConfig
    from flasc_sim.blueprint import Blueprint

__all__ = [
    "PresetName",
    "TaskSettings",
    "changed_sections",
    "file_settings",
    "preset_settings",
    "privacy_changes",
    "task_config",
]


@unique
class PresetName(StrEnum):
    DEFAULT = "default"
    PAPER = "paper"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """A model, and the parts of a task's configuration that do not follow from it.

    `alpha` of None is the rank; `sections` are as the API has them.
    """

    model: str = "minilm"
    dtype: str = "auto"
    layers_without_adapter: int = 0
    rank: int = 16
    alpha: int | None = None
    dropout: float = 0.0
    target_modules: list[str] | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)


# The paper's densities are flags of its scripts; 1/4 both ways is its headline setting.
_SECTIONS: Final[Mapping[PresetName, Mapping[str, Any]]] = MappingProxyType(
    {
        PresetName.DEFAULT: {
            "training": {"learning_rate": 0.1, "momentum": 0.9},
            "method": {
                "name": "flasc",
                "download_density": 0.25,
                "upload_density": 0.25,
                "head_density": 1.0,
            },
            "optimizer": {"name": "adamw", "learning_rate": 0.005},
            "encodings": {"download": "int6", "updates": ["int6"]},
            "base": {"name": "initial"},
        },
        PresetName.PAPER: {
            "training": {"learning_rate": 0.001, "momentum": 0.9},
            "method": {"name": "flasc", "download_density": 0.25, "upload_density": 0.25},
            "optimizer": {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0.01},
            # The authors count values; here they are compressed without loss.
            "encodings": {"download": "float32", "updates": ["float32"]},
            "base": {"name": "zero"},
        },
    }
)
_ADAPTER_FIELDS: Final[Mapping[str, type | UnionType]] = MappingProxyType(
    {"rank": int, "alpha": int, "dropout": float | int, "target_modules": list}
)
_MODEL_FIELDS: Final[Mapping[str, type | UnionType]] = MappingProxyType(
    {"model": str, "dtype": str, "layers_without_adapter": int}
)
_COMMON: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "policy": {"goal": 10, "quorum": 5, "window_seconds": 3600.0},
        "ending": {"rounds": 100},
        "limits": {},
        "privacy": None,
        "tiers": [],
    }
)


def preset_settings(preset: PresetName) -> TaskSettings:
    """Return the preset's settings; sections are copies that the caller may change."""
    sections = _copy({**_SECTIONS[preset], **_COMMON})
    if preset is PresetName.PAPER:
        # The paper keeps alpha at 16 whatever the rank is, and drops on the LoRA path alone.
        return TaskSettings(alpha=16, dropout=0.1, sections=sections)
    return TaskSettings(sections=sections)


def file_settings(settings: TaskSettings, file: Path) -> TaskSettings:
    """Return what a settings file says, and `settings` for sections that it leaves out.

    It has the sections of a task's configuration, [adapter] and [model]; `flasc search` writes such
    files. CliError names what does not fit.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CliError(f"{file}: {error}", ExitCode.USAGE) from error
    adapter = _fields(file, table, "adapter", _ADAPTER_FIELDS)
    model = _fields(file, table, "model", _MODEL_FIELDS)
    if model.get("dtype", "auto") not in ("auto", "bfloat16", "float32"):
        raise CliError(f"{file}: model.dtype is no {model['dtype']!r}", ExitCode.USAGE)
    unknown = sorted(set(table) - set(settings.sections))
    if unknown:
        known = ", ".join(sorted({*settings.sections, "adapter", "model"}))
        raise CliError(f"{file}: no section {unknown[0]!r}; there are {known}", ExitCode.USAGE)
    policy = {**settings.sections["policy"], **table.pop("policy", {})}
    sections = {**settings.sections, **table, "policy": policy}
    return replace(settings, **adapter, **model, sections=sections)


def _fields(
    file: Path, table: dict[str, Any], section: str, kinds: Mapping[str, type | UnionType]
) -> dict[str, Any]:
    """Take a section out of the table, checked."""
    found = table.pop(section, {})
    if not isinstance(found, dict):
        raise CliError(f"{file}: {section} must be a section", ExitCode.USAGE)
    for name, value in found.items():
        kind = kinds.get(name)
        if kind is None:
            known = ", ".join(sorted(kinds))
            raise CliError(f"{file}: {section} has no {name!r}; it has {known}", ExitCode.USAGE)
        if isinstance(value, bool) or not isinstance(value, kind):
            raise CliError(f"{file}: {section}.{name} is not {value!r}", ExitCode.USAGE)
    return found


def changed_sections(
    sections: Mapping[str, Any], changes: Mapping[str, Any], assignments: Sequence[str] = ()
) -> dict[str, Any]:
    """Return sections with every `section.field` in `changes` set, and then every assignment.

    A change to None is none; a head density of 0 is no density of its own. An assignment reads
    section.field=value, the value as JSON or else text; CliError for any other.
    """
    changed = _copy(sections)
    for name, value in changes.items():
        if value is not None:
            _set(changed, name, value)
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or name.strip().partition(".")[0] not in changed:
            raise CliError(
                f"--set {assignment!r}: write section.field=value, where section is one of "
                f"{', '.join(sorted(changed))}",
                ExitCode.USAGE,
            )
        _set(changed, name.strip(), _value(value.strip()))
    if changed["method"].get("head_density") == 0:
        changed["method"]["head_density"] = None
    return changed


def privacy_changes(text: str | None) -> dict[str, Any]:
    """Return changes that set the section `privacy` to a JSON object. Raises CliError."""
    settings = {} if text is None else _value(text)
    if not isinstance(settings, dict):
        raise CliError(f"--privacy {text!r} is no JSON object", ExitCode.USAGE)
    return {f"privacy.{name}": value for name, value in settings.items()}


def _set(sections: dict[str, Any], name: str, value: Any) -> None:
    section, _, setting = name.partition(".")
    if section == "tiers":
        if setting or not isinstance(value, list):
            raise CliError("tiers are set together, as a JSON list", ExitCode.USAGE)
        sections[section] = value
        return
    if sections[section] is None:
        sections[section] = {}
    if name == "optimizer.name" and value != sections[section]["name"]:
        # Another optimizer has other settings; of these only Adam's kind shares the learning rate.
        kept = {} if value == "sgd" else {"learning_rate": sections[section]["learning_rate"]}
        sections[section] = {"name": value, **kept}
        return
    if name in ("base.name", "method.name") and value != sections[section]["name"]:
        sections[section] = {"name": value}
        return
    sections[section][setting] = value


def _copy(sections: Mapping[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(dict(sections)))
    return copied


def task_config(blueprint: Blueprint, sections: Mapping[str, Any], *, seed: int) -> TaskConfig:
    """Put a configuration together and check it. Raises CliError that names the setting.

    `seed` draws the initial adapter of a base that has no seed of its own.
    """
    from aggregator_service.domain.task_json import config_from_json
    from flasc_core.errors import Refusal

    try:
        config = config_from_json(
            {
                "layout": blueprint.layout.to_json(),  # type: ignore[dict-item]
                "base_model": {
                    "name": blueprint.base_model_name,
                    "sha256": blueprint.base_model_sha256.hex(),
                },
                "peft_config_json": blueprint.peft_config_json,
                **sections,
                "base": _seeded(sections["base"], seed),
            }
        )
        config.check()
    except Refusal as refusal:
        raise CliError(refusal.message, ExitCode.USAGE) from refusal
    return config


def _seeded(base: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {"seed": seed, **base} if base["name"] == "initial" else dict(base)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
