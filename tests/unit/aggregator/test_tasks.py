"""A task's states, and the configurations that could run."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from aggregator_service.domain.tasks import (
    TRANSITIONS,
    BaseModel,
    Ending,
    TaskState,
    UpdateLimits,
    check_name,
)
from flasc_core.errors import Reason, Refusal
from flasc_core.methods import Flasc
from tests.builders import a_config, a_policy, a_task, digest

State = TaskState
PLAN = a_config().training


def test_the_table_is_the_diagram() -> None:
    assert {state: set(ends) for state, ends in TRANSITIONS.items()} == {
        State.RUNNING: {State.PAUSED, State.COMPLETED, State.CANCELLED},
        State.PAUSED: {State.RUNNING, State.CANCELLED},
        State.COMPLETED: set(),
        State.CANCELLED: set(),
    }
    assert {state for state in State if state.is_final} == {State.COMPLETED, State.CANCELLED}


@pytest.mark.parametrize(("start", "end"), list(product(State, State)))
def test_a_task_moves_as_the_table_says_and_not_otherwise(start: TaskState, end: TaskState) -> None:
    task = a_task(state=start)
    if end in TRANSITIONS[start]:
        assert task.move_to(end) == replace(task, state=end)
        return
    with pytest.raises(Refusal) as refused:
        task.move_to(end)
    assert refused.value.reason is Reason.TASK_STATE
    assert refused.value.facts["task"] == task.name


@pytest.mark.parametrize("name", ["a", "0", "a-task", "a" * 63, "9-lives-"])
def test_a_name_of_lower_case_letters_digits_and_dashes_is_taken(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", "a" * 64, "-a", "A", "a_b", "a b", "a/b", "ä", "a\n", "a\0", "../a"]
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(Refusal) as refused:
        check_name(name)
    assert refused.value.reason is Reason.CONFIGURATION


@pytest.mark.parametrize(
    "changes",
    [
        {"training": replace(PLAN, learning_rate=1e-12)},
        {"training": replace(PLAN, learning_rate=999_999.0)},
        {"training": replace(PLAN, batch_size=1, local_epochs=1, max_steps=0)},
        {"training": replace(PLAN, momentum=0.0, weight_decay=0.0)},
        {"training": replace(PLAN, momentum=0.999)},
        {"ending": Ending(rounds=1)},
        {"ending": Ending(rounds=1, target_accuracy=1.0)},
        {"ending": Ending(rounds=1, target_accuracy=1e-9)},
        {"fold_shards": 1},
        {"fold_shards": 64},
        {"peft_config_json": "{}"},
        # 64 * 131,071 is just below 2**23.
        {"limits": UpdateLimits(max_abs_value=64.0, largest_cohort=131_071)},
        # A quarter of 24 coordinates is 6; a 24th is the one that is left.
        {"method": Flasc(download_density=1 / 24, upload_density=1 / 24)},
        {"policy": a_policy(goal=32_768, quorum=1, over_selection=2.0)},
    ],
)
def test_a_configuration_at_its_bounds_is_taken(changes: dict[str, Any]) -> None:
    a_config(**changes).check()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"training": replace(PLAN, learning_rate=0.0)}, "learning_rate"),
        ({"training": replace(PLAN, learning_rate=-0.1)}, "learning_rate"),
        ({"training": replace(PLAN, learning_rate=1e6)}, "learning_rate"),
        ({"training": replace(PLAN, learning_rate=float("nan"))}, "learning_rate"),
        ({"training": replace(PLAN, batch_size=0)}, "batch_size"),
        ({"training": replace(PLAN, local_epochs=0)}, "local_epochs"),
        ({"training": replace(PLAN, max_steps=-1)}, "max_steps"),
        ({"training": replace(PLAN, momentum=-0.1)}, "momentum"),
        ({"training": replace(PLAN, momentum=1.0)}, "momentum"),
        ({"training": replace(PLAN, weight_decay=-0.1)}, "weight_decay"),
        ({"training": replace(PLAN, weight_decay=1e6)}, "weight_decay"),
        ({"ending": Ending(rounds=0)}, "rounds"),
        ({"ending": Ending(rounds=1, target_accuracy=0.0)}, "target_accuracy"),
        ({"ending": Ending(rounds=1, target_accuracy=1.01)}, "target_accuracy"),
        ({"ending": Ending(rounds=1, target_accuracy=float("nan"))}, "target_accuracy"),
        ({"fold_shards": 0}, "fold_shards"),
        ({"fold_shards": 65}, "fold_shards"),
        ({"base_model": BaseModel(name="tiny", sha256=b"short")}, r"base_model\.sha256"),
        ({"base_model": BaseModel(name="tiny", sha256=digest("a") + b"x")}, r"base_model\.sha256"),
        ({"peft_config_json": ""}, "peft_config_json"),
        ({"peft_config_json": "{"}, "peft_config_json"),
        ({"peft_config_json": "[]"}, "peft_config_json"),
        ({"peft_config_json": '"text"'}, "peft_config_json"),
        ({"limits": UpdateLimits(max_abs_value=64.0, largest_cohort=131_072)}, "largest_cohort"),
        ({"limits": UpdateLimits(max_weight=0)}, "max_weight"),
        ({"limits": UpdateLimits(max_abs_value=0.0)}, "max_abs_value"),
        ({"limits": UpdateLimits(max_abs_value=float("nan"))}, "max_abs_value"),
        ({"limits": UpdateLimits(max_abs_value=float("inf"))}, "max_abs_value"),
        ({"method": Flasc(download_density=0.04, upload_density=1.0)}, "density"),
        ({"method": Flasc(download_density=1.0, upload_density=0.04)}, "density"),
        ({"policy": a_policy(quorum=4)}, "quorum"),
        ({"policy": a_policy(goal=32_769, quorum=1, over_selection=2.0)}, "largest_cohort"),
    ],
)
def test_a_configuration_that_could_not_run_is_refused_by_name(
    changes: dict[str, Any], names: str
) -> None:
    with pytest.raises(Refusal, match=names) as refused:
        a_config(**changes).check()
    assert refused.value.reason is Reason.CONFIGURATION
