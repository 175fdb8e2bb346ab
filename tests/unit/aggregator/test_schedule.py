"""What follows a round: the next one, a last evaluation, or the end."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from aggregator_service.domain.assignments import Evaluation
from aggregator_service.domain.rounds import Round, RoundKind, RoundState
from aggregator_service.domain.schedule import first_round, following_round
from aggregator_service.domain.tasks import Ending, Task
from tests.builders import NOW, SECOND, a_config, a_policy, a_round, a_task, some_counts

LATER = NOW + SECOND


def a_task_that_ends(**ending: Any) -> Task:
    return a_task(config=a_config(ending=Ending(**{"rounds": 10, **ending})))


def after(
    task: Task,
    state: RoundState,
    evaluation: Evaluation | None = None,
    *,
    number: int = 4,
    base_version: int = 2,
) -> Round | None:
    ended = a_round(task, state=state, number=number, base_version=base_version)
    return following_round(task, ended, evaluation, uuid4(), LATER)


def test_the_first_round_trains_on_the_initial_adapter() -> None:
    task, round_id = a_task(), uuid4()
    opening = first_round(task, round_id, LATER)
    assert opening.id == round_id
    assert opening.task_id == task.id
    assert (opening.number, opening.base_version) == (1, 0)
    assert opening.kind is RoundKind.TRAINING
    assert opening.state is RoundState.PENDING
    assert opening.policy == task.config.policy
    assert opening.created_at == LATER


def test_after_a_published_round_the_next_starts_from_its_adapter() -> None:
    task, round_id = a_task_that_ends(), uuid4()
    ended = a_round(task, state=RoundState.PUBLISHED, number=4, base_version=2)
    following = following_round(task, ended, None, round_id, LATER)
    assert following is not None
    assert following.id == round_id
    assert (following.number, following.base_version) == (5, 3)
    assert following.state is RoundState.PENDING
    assert following.kind is RoundKind.TRAINING
    assert following.created_at == LATER


def test_after_an_aborted_round_the_next_starts_from_the_same_adapter() -> None:
    following = after(a_task_that_ends(), RoundState.ABORTED)
    assert following is not None
    assert (following.number, following.base_version) == (5, 2)
    assert following.kind is RoundKind.TRAINING


def test_the_next_round_has_the_task_s_policy_and_not_the_last_round_s() -> None:
    task = a_task_that_ends()
    ended = a_round(task, state=RoundState.PUBLISHED, policy=a_policy(goal=7, quorum=7))
    following = following_round(task, ended, None, uuid4(), LATER)
    assert following is not None
    assert following.policy == task.config.policy


def test_one_version_before_the_last_the_task_trains_on() -> None:
    following = after(a_task_that_ends(rounds=10), RoundState.PUBLISHED, base_version=8)
    assert following is not None
    assert following.kind is RoundKind.TRAINING


def test_the_last_version_is_evaluated() -> None:
    following = after(a_task_that_ends(rounds=10), RoundState.PUBLISHED, base_version=9)
    assert following is not None
    assert following.kind is RoundKind.EVALUATION
    assert (following.number, following.base_version) == (5, 10)


def test_without_a_final_evaluation_the_last_version_ends_the_task() -> None:
    task = a_task_that_ends(rounds=10, final_evaluation=False)
    assert after(task, RoundState.PUBLISHED, base_version=9) is None


def test_rounds_that_were_aborted_do_not_count_towards_the_end() -> None:
    following = after(a_task_that_ends(rounds=10), RoundState.ABORTED, number=40, base_version=9)
    assert following is not None
    assert following.kind is RoundKind.TRAINING
    assert following.base_version == 9


def test_after_the_evaluation_nothing_follows() -> None:
    assert after(a_task_that_ends(), RoundState.EVALUATED, some_counts()) is None


def test_an_evaluation_that_is_aborted_is_not_made_again() -> None:
    task = a_task_that_ends()
    ended = a_round(task, state=RoundState.ABORTED, kind=RoundKind.EVALUATION)
    assert following_round(task, ended, None, uuid4(), LATER) is None


@pytest.mark.parametrize(
    ("correct", "kind"), [(79, RoundKind.TRAINING), (80, RoundKind.EVALUATION)]
)
def test_the_target_accuracy_ends_the_task_once_it_is_met(correct: int, kind: RoundKind) -> None:
    task = a_task_that_ends(target_accuracy=0.8)
    following = after(task, RoundState.PUBLISHED, some_counts(correct=correct, total=100))
    assert following is not None
    assert following.kind is kind


def test_the_target_accuracy_can_end_the_task_without_an_evaluation() -> None:
    task = a_task_that_ends(target_accuracy=0.8, final_evaluation=False)
    assert after(task, RoundState.PUBLISHED, some_counts(correct=8, total=10)) is None


@pytest.mark.parametrize("evaluation", [None, some_counts(correct=0, total=0)])
def test_nobody_s_accuracy_meets_no_target(evaluation: Evaluation | None) -> None:
    following = after(a_task_that_ends(target_accuracy=0.1), RoundState.PUBLISHED, evaluation)
    assert following is not None
    assert following.kind is RoundKind.TRAINING


def test_an_aborted_round_s_accuracy_does_not_end_the_task() -> None:
    task = a_task_that_ends(target_accuracy=0.1)
    following = after(task, RoundState.ABORTED, some_counts(correct=10, total=10))
    assert following is not None
    assert following.kind is RoundKind.TRAINING


def test_a_task_without_a_target_ignores_accuracy() -> None:
    following = after(a_task_that_ends(), RoundState.PUBLISHED, some_counts(correct=10, total=10))
    assert following is not None
    assert following.kind is RoundKind.TRAINING
