"""What a search found as settings to go on with: a run's, and a task's.

recommended.toml  for `flasc simulate`: the recommended run, scored on held-out rows
task.toml         for `flasc task create --settings`: the same as a task
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from flasc_sim.search.space import Candidate
from flasc_sim.settings import TASK_TABLES

__all__ = ["can_be_a_task", "recommended_table", "task_table", "to_toml"]

_MODEL_FACTS: Final = ("model", "dtype", "layers_without_adapter")


def recommended_table(table: Mapping[str, Any], candidate: Candidate) -> dict[str, Any]:
    """Return `table`, which was searched, with the candidate, scored where no search looked."""
    changed = candidate.apply_to(table)
    changed["name"] = candidate.name
    changed["evaluation"] = {**changed.get("evaluation", {}), "on": "held_out"}
    return changed


def can_be_a_task(facts: Mapping[str, Any]) -> bool:
    """Whether `flasc task create` makes a model like the workload's: its texts' mean, classified.

    A workload that names no model leaves it to the command.
    """
    return "model" not in facts or facts.get("pooling") == "mean"


def task_table(
    table: Mapping[str, Any], candidate: Candidate, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the candidate as a task; `facts` are the workload's, of which the model is one.

    Devices of a simulation never drop out; a task's round may do with half of its goal.
    """
    changed = candidate.apply_to(table)
    task: dict[str, Any] = {
        name: changed[name] for name in ("adapter", *TASK_TABLES) if name in changed
    }
    goal = changed.get("policy", {}).get("goal", 10)
    task["policy"] = {"quorum": -(-goal // 2), **changed.get("policy", {}), "goal": goal}
    model = {name: facts[name] for name in _MODEL_FACTS if name in facts}
    return {"model": model, **task} if model else task


def to_toml(table: Mapping[str, Any]) -> str:
    """Write what `settings.read_table` reads back; a value of None is left out."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    sections = {key: value for key, value in table.items() if isinstance(value, dict)}
    parts = [_lines(plain), *(f"[{name}]\n{_lines(part)}" for name, part in sections.items())]
    return "\n".join(part for part in parts if part)


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(
        f"{key} = {_value(value)}\n" for key, value in table.items() if value is not None
    )


def _value(value: Any) -> str:
    match value:
        case dict():
            inside = (f"{key} = {_value(one)}" for key, one in value.items() if one is not None)
            return "{ " + ", ".join(inside) + " }"
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
        case _:
            # Texts, numbers and truths are alike in both.
            return json.dumps(value)
