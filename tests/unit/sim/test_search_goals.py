"""Goals: what meets them, what is hopeless, what is chosen, and which runs no other beats."""

from __future__ import annotations

import pytest

from flasc_sim.search.goals import ByteBudget, Outcome, TargetAccuracy, frontier, measured
from tests.support.search_table import Table, a_candidate

TARGET = TargetAccuracy(accuracy=0.5)
BUDGET = ByteBudget(payload_bytes=1000)


def an_outcome(accuracy: float, payload_bytes: int, done: int = 10, rank: int = 4) -> Outcome:
    return Outcome(
        candidate=a_candidate(rank),
        round=done,
        rounds=10,
        accuracy=accuracy,
        payload_bytes=payload_bytes,
    )


def test_the_cheapest_run_that_reaches_the_target_is_chosen() -> None:
    runs = [
        an_outcome(0.9, 500),
        an_outcome(0.5, 300),
        an_outcome(0.4999, 10),
        # Stopped: nobody knows where it would have come to.
        an_outcome(0.6, 1, done=9),
    ]
    assert TARGET.choose(runs) == runs[1]
    assert [TARGET.is_met(run) for run in runs] == [True, True, False, False]


def test_where_no_run_reaches_the_target_the_most_accurate_is_chosen() -> None:
    runs = [an_outcome(0.3, 10), an_outcome(0.4, 300), an_outcome(0.4, 200)]
    assert TARGET.choose(runs) == runs[2]
    assert not TARGET.is_met(runs[2])


def test_the_most_accurate_run_within_the_budget_is_chosen() -> None:
    runs = [an_outcome(0.5, 900), an_outcome(0.6, 1000), an_outcome(0.9, 1001)]
    assert BUDGET.choose(runs) == runs[1]
    assert [BUDGET.is_met(run) for run in runs] == [True, True, False]


def test_where_no_run_is_within_the_budget_the_cheapest_is_chosen() -> None:
    runs = [an_outcome(0.5, 2000), an_outcome(0.6, 3000)]
    assert BUDGET.choose(runs) == runs[0]


@pytest.mark.parametrize("goal", [TARGET, BUDGET])
def test_without_a_whole_run_there_is_nothing_to_choose(goal: TargetAccuracy | ByteBudget) -> None:
    with pytest.raises(ValueError, match="no trial ran to its end"):
        goal.choose([an_outcome(0.5, 10, done=9)])


def test_a_run_is_beyond_a_budget_once_it_passed_it_or_clearly_will() -> None:
    assert not BUDGET.is_beyond(an_outcome(0.1, 1000))
    assert BUDGET.is_beyond(an_outcome(0.1, 1001))
    assert not BUDGET.is_beyond(an_outcome(0.1, 110, done=1))
    assert BUDGET.is_beyond(an_outcome(0.1, 111, done=1))


def test_no_run_is_beyond_a_target_that_it_may_still_reach() -> None:
    assert not TARGET.is_beyond(an_outcome(0.0, 10**9, done=9))


def test_violations_are_positive_where_a_goal_is_missed_and_only_there() -> None:
    assert TARGET.violation(an_outcome(0.5, 1)) == 0
    assert TARGET.violation(an_outcome(0.4, 1)) == pytest.approx(0.1)
    assert BUDGET.violation(an_outcome(0.5, 1000)) == 0
    assert BUDGET.violation(an_outcome(0.5, 2000)) == 1
    assert BUDGET.violation(an_outcome(0.5, 200, done=1)) == 1


def test_on_the_way_to_a_target_half_the_bytes_are_worth_a_point() -> None:
    one, other = an_outcome(0.30, 100, done=1), an_outcome(0.31, 200, done=1)
    assert TARGET.score(one) == pytest.approx(TARGET.score(other))
    # What lies above the target is worth nothing.
    assert TARGET.score(an_outcome(0.9, 100)) == TARGET.score(an_outcome(0.5, 100))


@pytest.mark.parametrize("accuracy", [0.0, 1.01])
def test_a_target_is_a_share(accuracy: float) -> None:
    with pytest.raises(ValueError, match="target accuracy"):
        TargetAccuracy(accuracy=accuracy)
    assert TargetAccuracy(accuracy=1.0)


def test_a_budget_is_of_at_least_a_byte() -> None:
    with pytest.raises(ValueError, match="byte budget"):
        ByteBudget(payload_bytes=0)
    assert ByteBudget(payload_bytes=1)


def test_measuring_stops_where_the_budget_is_lost() -> None:
    table = Table(lambda _: 0.5, lambda one: 900 * one.rank)
    assert measured(BUDGET, table(a_candidate(1))).is_whole
    assert measured(BUDGET, table(a_candidate(2))).round == 1


def test_the_frontier_holds_whole_runs_that_no_cheaper_one_equals() -> None:
    runs = [
        an_outcome(0.5, 300),
        an_outcome(0.4, 100),
        an_outcome(0.4, 200),
        an_outcome(0.6, 200, done=9),
        an_outcome(0.45, 300),
        an_outcome(0.7, 400),
    ]
    assert frontier(runs) == [runs[1], runs[0], runs[5]]
