"""Finalists: the best few of a search, and what they come to over several seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flasc_sim.search.finalists import Finalist, choose_finalists, run_again
from flasc_sim.search.goals import ByteBudget, Goal, Measure, Outcome, TargetAccuracy
from flasc_sim.search.report import Findings
from tests.support.search_table import Table, a_candidate

BUDGET = ByteBudget(payload_bytes=1000)
SMALL, MIDDLE, LARGE = (a_candidate(rank, 1.0) for rank in (1, 2, 4))


def an_outcome(rank: int, accuracy: float, payload_bytes: int = 500) -> Outcome:
    return Outcome(
        candidate=a_candidate(rank, 1.0),
        round=9,
        rounds=9,
        accuracy=accuracy,
        payload_bytes=payload_bytes,
    )


def a_table(accuracy_per_rank: float) -> Table:
    return Table(lambda one: accuracy_per_rank * one.rank)


RUNS = [
    an_outcome(1, 0.5),
    an_outcome(2, 0.7),
    an_outcome(4, 0.6),
    an_outcome(8, 0.9, payload_bytes=2000),
    replace(an_outcome(16, 0.8), round=6),
]


@pytest.mark.parametrize(
    ("goal", "count", "ranks"),
    [
        (BUDGET, 2, [2, 4]),
        (BUDGET, 9, [2, 4, 1]),
        (TargetAccuracy(accuracy=0.6), 2, [2, 4]),
        # Where no run keeps to the goal, the nearest are all that there is.
        (ByteBudget(payload_bytes=10), 2, [2, 4]),
    ],
)
def test_the_best_runs_that_keep_to_the_goal_are_finalists(
    goal: Goal, count: int, ranks: list[int]
) -> None:
    chosen = choose_finalists(goal, RUNS, count)
    assert [one.candidate.rank for one in chosen] == ranks


def test_finalists_are_run_whole_with_each_further_seed() -> None:
    tables = {seed: a_table(0.1 * seed) for seed in (4, 5)}
    asked: list[int] = []

    def measure(seed: int) -> Measure:
        asked.append(seed)
        return tables[seed]

    first, second = run_again([RUNS[1], RUNS[0]], (3, 4, 5), measure)
    assert asked == [4, 5]
    assert all(table.rounds == {MIDDLE: 9, SMALL: 9} for table in tables.values())
    assert (first.candidate, second.candidate) == (MIDDLE, SMALL)
    assert first.seeds == (3, 4, 5)
    assert [one.accuracy for one in first.outcomes] == pytest.approx([0.7, 0.8, 1.0])


def test_a_finalist_is_what_its_seeds_come_to_on_the_average() -> None:
    ran = Finalist(seeds=(0, 1), outcomes=(an_outcome(2, 0.7, 400), an_outcome(2, 0.5, 501)))
    assert ran.mean.accuracy == pytest.approx(0.6)
    assert ran.mean.payload_bytes == 450
    assert ran.mean.is_whole
    failed = replace(an_outcome(2, 0.0), failed=True)
    assert not Finalist(seeds=(0, 1), outcomes=(an_outcome(2, 0.9), failed)).mean.is_whole


def test_the_recommendation_is_by_means_and_not_by_the_luckiest_run() -> None:
    lucky = Finalist(seeds=(0, 1), outcomes=(RUNS[1], an_outcome(2, 0.3)))
    steady = Finalist(seeds=(0, 1), outcomes=(RUNS[2], an_outcome(4, 0.6)))
    alone = Findings(goal=BUDGET, grown=(), halved=RUNS)
    assert alone.recommended.candidate == MIDDLE
    assert replace(alone, finalists=(lucky, steady)).recommended.candidate == LARGE
    # Training that fails with one seed recommends nothing.
    failed = Finalist(seeds=(0, 1), outcomes=(RUNS[1], replace(RUNS[1], failed=True)))
    assert replace(alone, finalists=(failed, steady)).recommended.candidate == LARGE


def test_a_finalist_that_failed_with_a_further_seed_is_not_recommended_after_all() -> None:
    failed = replace(RUNS[1], accuracy=0.0, failed=True)
    findings = Findings(
        goal=BUDGET,
        grown=(),
        halved=RUNS,
        finalists=[Finalist(seeds=(0, 1), outcomes=(RUNS[1], failed))],
    )
    assert findings.recommended.candidate == LARGE
    with pytest.raises(ValueError, match="no trial ran to its end"):
        _ = replace(findings, halved=[RUNS[1]]).recommended
