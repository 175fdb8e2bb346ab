"""A private task's budget over REST."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aggregator_service.domain.privacy import PrivacyMode
from aggregator_service.domain.rounds import RoundState
from flasc_core.layout import Role
from flasc_core.methods import HeadOnly
from tests.builders import (
    NOW,
    a_config,
    a_draw,
    a_privacy,
    a_reservation,
    a_round,
    a_task,
    stored,
)
from tests.support.operator import Operator, task_parts


def test_a_task_tells_its_budget_and_what_is_spent_of_it(operator: Operator) -> None:
    privacy = a_privacy(noise_multiplier=2.0)
    task = a_task(config=a_config(privacy=privacy))
    done = a_round(task, state=RoundState.PUBLISHED)
    current = a_round(task, state=RoundState.COLLECTING, number=2, base_version=1)
    stored(operator.store, task, done, a_reservation(done, epsilon=2.3))
    stored(operator.store, current, a_reservation(current, rounds=2, epsilon=3.3, is_last=True))

    shown = operator.get(f"/v1/tasks/{task.id}").json()

    assert shown["config"]["privacy"] == privacy.to_json()
    assert shown["privacy"] == {
        "mode": "PARTICIPATION_CAP",
        "delta": 1e-6,
        "epsilon_budget": 20.0,
        "epsilon_reserved": 3.3,
        "epsilon_spent": 2.3,
        "rounds_reserved": 2,
        "rounds_published": 1,
        "is_exhausted": True,
        "noise_deviation": 1.0,
        "noise_to_signal": pytest.approx(2 * 24**0.5 / 3),
    }


def test_noise_is_told_of_the_values_that_get_any(operator: Operator) -> None:
    task = a_task(config=a_config(privacy=a_privacy(), method=HeadOnly()))
    stored(operator.store, task)
    shown = operator.get(f"/v1/tasks/{task.id}").json()["privacy"]
    head = task.config.layout.size_of([Role.HEAD])
    assert shown["noise_to_signal"] == pytest.approx(head**0.5 / task.config.policy.goal)


def test_a_round_tells_what_it_reserved_and_no_secret(operator: Operator) -> None:
    task = a_task(config=a_config(privacy=a_privacy()))
    current = a_round(task, state=RoundState.COLLECTING)
    draw = replace(a_draw(), drawn_at=NOW)
    stored(operator.store, task, current, a_reservation(current, draw=draw))

    shown = operator.get(f"/v1/rounds/{current.id}").json()

    assert shown["privacy"] == {"epsilon": 4.9, "is_last": False, "devices_drawn": 4}


def test_a_task_without_privacy_tells_none(operator: Operator) -> None:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    stored(operator.store, task, current)
    assert operator.get(f"/v1/tasks/{task.id}").json()["privacy"] is None
    assert operator.get(f"/v1/rounds/{current.id}").json()["privacy"] is None


def test_a_private_task_that_cannot_be_accounted_for_is_refused(operator: Operator) -> None:
    drawn = replace(a_privacy(), mode=PrivacyMode.POISSON, max_participations=None, population=100)
    config = a_config(privacy=drawn)
    weights = np.zeros(24, dtype=np.float32)
    answer = operator.post("/v1/tasks", files=task_parts("a-task", config, weights))
    assert answer.status_code == 422
    assert "drawn cohort" in answer.json()["detail"]
