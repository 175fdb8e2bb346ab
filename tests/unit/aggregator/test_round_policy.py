"""What a round may ask for: each bound from both sides."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flasc_core.errors import Reason, Refusal
from tests.builders import a_policy

SECOND = timedelta(seconds=1)
TICK = timedelta(microseconds=1)
DAYS = timedelta(days=30)


@pytest.mark.parametrize(
    "changes",
    [
        {"goal": 1, "quorum": 1},
        {"quorum": 1},
        {"quorum": 3},
        {"minimum_cohort": 1},
        {"minimum_cohort": 3},
        {"over_selection": 1.0},
        {"over_selection": 10.0},
        {"window": SECOND},
        {"window": DAYS},
        {"minimum_separation": 0},
        {"retry_min": timedelta(0), "retry_max": timedelta(0)},
        {"retry_min": DAYS, "retry_max": DAYS},
    ],
)
def test_a_policy_at_its_bounds_is_taken(changes: dict[str, Any]) -> None:
    a_policy(**changes).check(65_536)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"goal": 0}, "goal"),
        ({"quorum": 0}, "quorum"),
        ({"quorum": 4}, "quorum"),
        ({"minimum_cohort": 0}, "minimum_cohort"),
        ({"minimum_cohort": 4}, "minimum_cohort"),
        ({"over_selection": 0.99}, "over_selection"),
        ({"over_selection": 10.01}, "over_selection"),
        ({"over_selection": float("nan")}, "over_selection"),
        ({"window": SECOND - TICK}, "window"),
        ({"window": DAYS + TICK}, "window"),
        ({"minimum_separation": -1}, "minimum_separation"),
        ({"retry_min": -TICK}, "retry_min"),
        ({"retry_min": timedelta(seconds=2), "retry_max": SECOND}, "retry_max"),
        ({"retry_max": DAYS + TICK}, "retry_max"),
    ],
)
def test_a_policy_beyond_a_bound_is_refused_by_name(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(Refusal, match=names) as refused:
        a_policy(**changes).check(65_536)
    assert refused.value.reason is Reason.CONFIGURATION


def test_a_round_seats_at_most_the_largest_cohort() -> None:
    policy = a_policy(goal=3, over_selection=2.0)
    policy.check(6)
    with pytest.raises(Refusal, match="largest_cohort of 5"):
        policy.check(5)


@pytest.mark.parametrize(("over_selection", "seats"), [(1.0, 3), (1.01, 4), (1.3, 4), (2.0, 6)])
def test_a_part_of_a_seat_is_a_whole_one(over_selection: float, seats: int) -> None:
    assert a_policy(goal=3, over_selection=over_selection).seats == seats


@pytest.mark.parametrize(("quorum", "cohort", "least"), [(2, 1, 2), (2, 3, 3), (2, 2, 2)])
def test_an_adapter_needs_quorum_and_cohort(quorum: int, cohort: int, least: int) -> None:
    assert a_policy(quorum=quorum, minimum_cohort=cohort).least_updates == least
