"""Settings of one run: a TOML file, what a command changes of it, and typed values of both.

    seed = 0

    [workload]
    name = "newsgroups"

    [partition]
    name = "dirichlet"
    clients = 350
    concentration = 0.1

    [adapter]
    rank = 16

    [evaluation]
    every = 25

The tables training, method, tiers, optimizer, policy, ending, limits, encodings, base and privacy
are those of a task's configuration; of `policy` a run needs the goal alone, which is its cohort.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aggregator_service.domain.task_json import Json, config_from_json
from aggregator_service.domain.tasks import TaskConfig
from flasc_core.errors import Refusal
from flasc_core.json_value import JsonValue
from flasc_core.layout import AdapterLayout
from flasc_sim.fields import read_fields
from flasc_sim.partition import Partition, read_partition
from flasc_sim.task_rules import check_simulable, stand_in_layout
from flasc_sim.workload import AdapterShape, check_workload

__all__ = [
    "EvaluationPlan",
    "RunSettings",
    "SettingsError",
    "changed_table",
    "read_settings",
    "read_table",
]

TASK_TABLES: Final = (
    "training",
    "method",
    "tiers",
    "optimizer",
    "policy",
    "ending",
    "limits",
    "encodings",
    "base",
    "privacy",
)
_OWN_KEYS: Final = ("name", "seed", "adapter", "workload", "partition", "evaluation")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """After which rounds the adapter is scored, as devices get it.

    The accuracy of a run is the mean over the last `scores` evaluations of its end, `step` rounds
    apart, since single rounds differ as cohorts do; `every` so many rounds there is one for the
    curve, 0 for none. `on` is "held_out", or "validation" for choosing between settings.
    """

    scores: int = 1
    step: int = 1
    every: int = 0
    on: str = "held_out"

    def __post_init__(self) -> None:
        if self.scores < 1 or self.step < 1 or self.every < 0:
            raise ValueError("evaluation: scores and step are at least 1, every at least 0")
        if self.on not in ("held_out", "validation"):
            raise ValueError(f"evaluation.on is held_out or validation, not {self.on!r}")

    def final(self, rounds: int) -> frozenset[int]:
        """The rounds, counted from 1, whose scores are the run's."""
        wanted = (rounds - self.step * number for number in range(self.scores))
        return frozenset(number for number in wanted if number > 0)

    def due(self, done: int, rounds: int) -> bool:
        """Whether the adapter is scored once `done` of `rounds` rounds are."""
        return done in self.final(rounds) or (self.every > 0 and done % self.every == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """`table` is what all the rest was read from, and the run's identity."""

    name: str
    seed: int
    workload_name: str
    workload_options: Mapping[str, JsonValue]
    adapter: AdapterShape
    partition: Partition
    evaluation: EvaluationPlan
    table: Mapping[str, Any]

    def task_config(
        self,
        layout: AdapterLayout,
        *,
        base_model_name: str,
        base_model_sha256: bytes,
        peft_config_json: str,
    ) -> TaskConfig:
        """Return the checked configuration of the task that is run. Raises SettingsError."""
        tables = {name: self.table[name] for name in TASK_TABLES if name in self.table}
        fields: dict[str, Json] = {
            "layout": layout.to_json(),  # type: ignore[dict-item]
            "base_model": {"name": base_model_name, "sha256": base_model_sha256.hex()},
            "peft_config_json": peft_config_json,
            **tables,
        }
        try:
            config = config_from_json(fields)
            config.check()
        except Refusal as refusal:
            raise SettingsError(refusal.message) from refusal
        return config

    def check(self) -> None:
        """Check all that can be told before data and model are loaded. Raises SettingsError.

        What is left are rules about them: owners and labels, layers, modules, and sizes.
        """
        config = self.task_config(
            stand_in_layout(self.adapter.rank),
            base_model_name="stand-in",
            base_model_sha256=bytes(32),
            peft_config_json="{}",
        )
        try:
            check_simulable(config, self.partition.clients)
            check_workload(self.workload_name, self.workload_options)
        except ValueError as error:
            raise SettingsError(str(error)) from error


class SettingsError(ValueError):
    """A settings file that does not fit; the message names the key."""


def read_table(file: Path) -> dict[str, Any]:
    """Return a settings file's content. Raises SettingsError where it is no TOML, and OSError."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: {error}") from error


def changed_table(table: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return the table with every `section.key=value` set, the value as JSON or else text.

    A whole section can be set too, as `method={"name": ...}`. Raises SettingsError.
    """
    changed: dict[str, Any] = json.loads(json.dumps(dict(table)))
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        *sections, key = path.strip().split(".")
        place = changed
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise SettingsError(f"--set {assignment!r}: {section!r} is no section")
        if not equals or not key:
            raise SettingsError(f"--set {assignment!r}: write section.key=value")
        place[key] = _value(value.strip())
    return changed


def read_settings(table: Mapping[str, Any], *, name: str) -> RunSettings:
    """Check a whole table; `name` is for one that has none. Raises SettingsError.

    What only the task's own rules can tell is left to `check` and `task_config`.
    """
    whole: dict[str, Any] = {"name": name, "seed": 0, **table}
    unknown = sorted(set(whole) - {*_OWN_KEYS, *TASK_TABLES})
    if unknown:
        known = ", ".join(sorted((*_OWN_KEYS, *TASK_TABLES)))
        raise SettingsError(f"there is no setting {unknown[0]!r}; there are {known}")
    _check_name(whole["name"])
    if isinstance(whole["seed"], bool) or not isinstance(whole["seed"], int) or whole["seed"] < 0:
        raise SettingsError("seed must be a whole number of at least 0")
    whole["policy"] = _policy(_section(whole, "policy"))
    whole["base"] = _base(whole.get("base", {"name": "zero"}), whole["seed"])
    workload = _section(whole, "workload")
    workload_name = workload.pop("name", None)
    if not isinstance(workload_name, str):
        raise SettingsError("workload.name is missing")
    return RunSettings(
        name=whole["name"],
        seed=whole["seed"],
        workload_name=workload_name,
        workload_options=workload,
        adapter=read_fields(AdapterShape, _section(whole, "adapter"), "adapter"),
        partition=read_partition(_section(whole, "partition")),
        evaluation=read_fields(EvaluationPlan, _section(whole, "evaluation"), "evaluation"),
        table=whole,
    )


def _check_name(name: object) -> None:
    # It is a folder below the one that runs go to, and must not lead out of that.
    parts = name.split("/") if isinstance(name, str) else [""]
    if any(part in ("", ".", "..") or "\\" in part for part in parts):
        raise SettingsError(
            f"name must be a folder's, or folders' with a / between them, not {name!r}"
        )


def _section(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise SettingsError(f"{name} must be a section")
    return dict(section)


def _policy(given: Mapping[str, Any]) -> dict[str, Any]:
    # Devices of a simulation never drop out, so a round ends with all of its cohort.
    goal = given.get("goal", 10)
    return {"goal": goal, "quorum": goal, "window_seconds": 3600.0, **given}


def _base(given: object, seed: int) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise SettingsError("base must be a section")
    return {"seed": seed, **given} if given.get("name") == "initial" else dict(given)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
