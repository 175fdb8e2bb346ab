"""A task's privacy: its settings, what rounds cost of its budget, and drawn cohorts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from aggregator_service.domain.accounting import (
    fixed_size_epsilon,
    gaussian_epsilon,
    poisson_epsilon,
)
from aggregator_service.domain.privacy import Privacy, PrivacyMode, draw_cohort
from flasc_core.errors import Reason, Refusal
from tests.builders import NOW, SECOND, a_policy, a_privacy

SEED = bytes(range(32))
DRAWN = a_policy(goal=10, quorum=1, over_selection=1.0)
A_THOUSAND = [UUID(int=number) for number in range(1000)]


def a_drawn(mode: PrivacyMode = PrivacyMode.POISSON, **changes: Any) -> Privacy:
    settings = {"mode": mode, "max_participations": None, "population": 1000, **changes}
    return replace(a_privacy(), **settings)


def check(privacy: Privacy, policy: Any = None, **limits: int) -> None:
    given = {"max_weight": 1, "largest_cohort": 1000, **limits}
    privacy.check(policy or (DRAWN if privacy.mode.draws else a_policy()), **given)


@pytest.mark.parametrize(
    "privacy", [a_privacy(), a_drawn(), a_drawn(PrivacyMode.FIXED_SIZE)], ids=lambda one: one.mode
)
def test_sound_settings_pass_and_survive_as_json(privacy: Privacy) -> None:
    check(privacy)
    assert Privacy.from_json(json.loads(json.dumps(privacy.to_json()))) == privacy


@pytest.mark.parametrize(
    "change",
    [
        {"clip_norm": 0.0},
        {"clip_norm": math.nan},
        {"noise_multiplier": 0.09},
        {"noise_multiplier": math.inf},
        {"epsilon": 0.0},
        {"delta": 0.0},
        {"delta": 0.02},
        {"max_participations": None},
        {"max_participations": 0},
        {"population": 100},
        {"clip_norm": 1e4},
    ],
)
def test_settings_that_cannot_be_accounted_for_are_refused(change: Mapping[str, Any]) -> None:
    with pytest.raises(Refusal, match="privacy") as caught:
        check(replace(a_privacy(), **change))
    assert caught.value.reason is Reason.CONFIGURATION


@pytest.mark.parametrize("change", [{"population": None}, {"population": 9}])
@pytest.mark.parametrize("mode", [PrivacyMode.POISSON, PrivacyMode.FIXED_SIZE])
def test_a_draw_needs_a_population_of_the_goal_at_least(
    mode: PrivacyMode, change: Mapping[str, Any]
) -> None:
    check(a_drawn(mode, population=10, epsilon=1000.0))
    with pytest.raises(Refusal, match="population"):
        check(replace(a_drawn(mode), **change))


@pytest.mark.parametrize(
    "change",
    [{"quorum": 2}, {"minimum_cohort": 2}, {"over_selection": 1.5}, {"minimum_separation": 1}],
)
def test_nothing_that_depends_on_others_goes_with_a_drawn_cohort(
    change: Mapping[str, Any],
) -> None:
    with pytest.raises(Refusal, match="drawn cohort"):
        check(a_drawn(), replace(DRAWN, **change))


def test_noise_that_the_grid_could_not_hold_is_refused() -> None:
    check(a_privacy(clip_norm=128.0, noise_multiplier=2.0))
    with pytest.raises(Refusal, match="at most 256"):
        check(a_privacy(clip_norm=128.0, noise_multiplier=2.01))


def test_devices_of_private_tasks_count_alike() -> None:
    with pytest.raises(Refusal, match="max_weight"):
        check(a_privacy(), max_weight=2)


def test_a_draw_needs_room_above_its_goal() -> None:
    check(a_drawn(), largest_cohort=42)
    with pytest.raises(Refusal, match="room for a draw"):
        check(a_drawn(), largest_cohort=41)


def test_a_budget_that_pays_for_no_round_is_refused() -> None:
    cost = gaussian_epsilon(noise=1.0, times=1, delta=1e-6)
    check(a_privacy(epsilon=cost))
    with pytest.raises(Refusal, match="one round already costs"):
        check(a_privacy(epsilon=math.nextafter(cost, 0)))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"mode": "RANDOM"}, "unknown"),
        ({"mode": 3}, "must be a string"),
        ({"noise": 1.0}, "unknown setting"),
        ({"delta": "small"}, "finite number"),
        ({"max_participations": 1.5}, "whole number"),
    ],
)
def test_json_that_says_something_else_is_refused(data: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(Refusal, match=problem):
        Privacy.from_json({**a_privacy().to_json(), **data})


def test_a_cap_costs_its_participations_and_no_more_however_long_the_task() -> None:
    privacy = a_privacy(max_participations=5)
    costs = [privacy.epsilon_after(rounds, goal=3) for rounds in (0, 1, 4, 5, 6, 5000)]
    assert costs[0] == 0 < costs[1] < costs[2] < costs[3] == costs[4] == costs[5]
    assert costs[3] == gaussian_epsilon(noise=1.0, times=5, delta=1e-6)


def test_a_draw_costs_its_rate_and_every_round() -> None:
    assert a_drawn().epsilon_after(7, goal=10) == poisson_epsilon(
        noise=1.0, rate=0.01, rounds=7, delta=1e-6
    )
    fixed = a_drawn(PrivacyMode.FIXED_SIZE)
    assert fixed.epsilon_after(7, goal=10) == fixed_size_epsilon(
        noise=1.0, population=1000, cohort=10, rounds=7, delta=1e-6
    )


@pytest.mark.parametrize("mode", PrivacyMode)
def test_as_many_rounds_are_affordable_as_the_budget_pays_for(mode: PrivacyMode) -> None:
    privacy = a_drawn(mode) if mode.draws else a_privacy(max_participations=9)
    cost = privacy.epsilon_after(4, goal=10)
    assert replace(privacy, epsilon=cost).affordable_rounds(10, wanted=50) == 4
    assert replace(privacy, epsilon=cost * 0.999).affordable_rounds(10, wanted=50) == 3
    assert replace(privacy, epsilon=cost).affordable_rounds(10, wanted=2) == 2


def test_the_noise_is_told_as_a_share_of_what_a_mean_can_be() -> None:
    privacy = a_privacy(noise_multiplier=1.0)
    assert privacy.noise_to_signal(300_000, goal=100) == pytest.approx(5.48, abs=0.01)
    assert privacy.deviation == privacy.clip_norm


def drawn(mode: PrivacyMode, seed: int, **changes: Any) -> set[UUID]:
    privacy = a_drawn(mode, **changes)
    draw = draw_cohort(privacy, 10, A_THOUSAND, seed.to_bytes(32, "big"), NOW)
    assert draw is not None
    taken = {one for one in A_THOUSAND if draw.takes(one, NOW - SECOND)}
    assert draw.devices == len(taken)
    return taken


def test_a_fixed_cohort_has_the_size_of_the_goal_and_is_another_each_time() -> None:
    cohorts = [drawn(PrivacyMode.FIXED_SIZE, seed) for seed in range(50)]
    assert {len(cohort) for cohort in cohorts} == {10}
    assert len({frozenset(cohort) for cohort in cohorts}) == 50


def test_a_poisson_cohort_has_the_goal_for_its_mean_and_its_variance() -> None:
    sizes = [len(drawn(PrivacyMode.POISSON, seed)) for seed in range(200)]
    mean = sum(sizes) / 200
    assert mean == pytest.approx(10, abs=1.1)
    assert sum((size - mean) ** 2 for size in sizes) / 200 == pytest.approx(9.9, rel=0.5)


@pytest.mark.parametrize("mode", [PrivacyMode.POISSON, PrivacyMode.FIXED_SIZE])
def test_every_device_is_drawn_as_often_as_any_other(mode: PrivacyMode) -> None:
    times = dict.fromkeys(A_THOUSAND, 0)
    for seed in range(150):
        for device in drawn(mode, seed):
            times[device] += 1
    # 1.5 each on average; a Poisson variable is at 13 or more once in a hundred million.
    assert max(times.values()) < 13
    assert sum(times.values()) == pytest.approx(1500, rel=0.1)


def test_more_devices_than_configured_make_each_one_rarer() -> None:
    sizes = [len(drawn(PrivacyMode.POISSON, seed, population=100)) for seed in range(200)]
    assert sum(sizes) / 200 == pytest.approx(10, abs=1.1)


@pytest.mark.parametrize("mode", [PrivacyMode.POISSON, PrivacyMode.FIXED_SIZE])
def test_fewer_devices_than_configured_make_no_cohort(mode: PrivacyMode) -> None:
    assert draw_cohort(a_drawn(mode), 10, A_THOUSAND, SEED, NOW) is not None
    assert draw_cohort(a_drawn(mode), 10, A_THOUSAND[:-1], SEED, NOW) is None


def test_a_device_that_came_after_the_draw_is_in_none() -> None:
    everybody = draw_cohort(a_drawn(population=10), 10, A_THOUSAND[:10], SEED, NOW)
    assert everybody is not None
    assert everybody.devices == 10
    assert everybody.takes(A_THOUSAND[0], NOW - SECOND)
    assert not everybody.takes(A_THOUSAND[0], NOW)
