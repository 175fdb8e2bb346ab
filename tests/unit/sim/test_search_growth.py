"""FLASC-Search-style growth (reconstructed): its path on tables, and where it ends."""

from __future__ import annotations

from flasc_sim.search.goals import ByteBudget, TargetAccuracy
from flasc_sim.search.growth import Comparison, grow
from flasc_sim.search.space import Candidate, SearchSpace
from tests.support.search_table import Table, a_candidate

SPACE = SearchSpace(ranks=(4, 64), densities=(1 / 16, 1.0), encodings=("int6",), bases=("initial",))
# What the path takes, and beside it whatever is less; 900 bytes are one full rank.
PATH = {
    (4, 1 / 16): 0.60,
    (8, 1 / 16): 0.66,
    (16, 1 / 16): 0.70,
    (16, 1 / 8): 0.73,
    (32, 1 / 8): 0.74,
}
AMPLE = ByteBudget(payload_bytes=16 * 900)


def told(one: Candidate) -> float:
    return PATH.get((one.rank, one.density), 0.59)


def kept(comparisons: list[Comparison]) -> list[tuple[int, float] | None]:
    outcomes = (comparison.kept for comparison in comparisons)
    return [(one.candidate.rank, one.candidate.density) if one else None for one in outcomes]


def asked(table: Table) -> list[tuple[int, float]]:
    return [(one.rank, one.density) for one in table.asked]


def test_the_path_takes_the_better_of_each_pair_until_neither_improves() -> None:
    table = Table(told)
    assert kept(grow(SPACE, AMPLE, table)) == [*PATH, None]
    assert asked(table) == [
        (4, 1 / 16),
        *[(8, 1 / 16), (4, 1 / 8)],
        *[(16, 1 / 16), (8, 1 / 8)],
        *[(32, 1 / 16), (16, 1 / 8)],
        *[(32, 1 / 8), (16, 1 / 4)],
        *[(64, 1 / 8), (32, 1 / 4)],
    ]
    assert len(table.asked) == 11


def test_the_path_ends_where_the_target_is_met_first() -> None:
    table = Table(told)
    assert kept(grow(SPACE, TargetAccuracy(accuracy=0.70), table)) == list(PATH)[:3]
    assert len(table.asked) == 5
    just_above = grow(SPACE, TargetAccuracy(accuracy=0.7001), Table(told))
    assert kept(just_above) == list(PATH)[:4]


def test_what_the_budget_does_not_allow_is_not_kept_nor_run_to_its_end() -> None:
    table = Table(told)
    # (16, 1/8) sends as much as is allowed, (32, 1/8) twice that.
    assert kept(grow(SPACE, ByteBudget(payload_bytes=2 * 900), table)) == [*list(PATH)[:4], None]
    assert table.rounds[a_candidate(32, 1 / 8)] == 1
    less = grow(SPACE, ByteBudget(payload_bytes=2 * 900 - 1), Table(told))
    assert kept(less) == [*list(PATH)[:3], None]


def test_a_start_beyond_the_budget_is_all_there_is() -> None:
    table = Table(told)
    grow(SPACE, ByteBudget(payload_bytes=200), table)
    assert asked(table) == [(4, 1 / 16)]


def test_ranks_and_densities_stay_within_the_space() -> None:
    space = SearchSpace(ranks=(4, 8), densities=(1 / 4, 1 / 2), encodings=("int6",))
    table = Table(lambda one: one.rank * one.density / 100)
    assert kept(grow(space, AMPLE, table)) == [(4, 1 / 4), (8, 1 / 4), (8, 1 / 2)]
    assert asked(table) == [(4, 1 / 4), (8, 1 / 4), (4, 1 / 2), (8, 1 / 2)]


def test_steps_end_at_the_largest_and_meet_what_the_space_lists() -> None:
    # 3 x 0.1 is not 0.3 in floats, and 9 x 3 is beyond 16.
    space = SearchSpace(ranks=(1, 16), densities=(0.1, 0.3, 1.0), encodings=("int6",))
    table = Table(lambda one: one.rank * one.density / 100)
    grow(space, AMPLE, table, factor=3)
    assert (1, 0.3) in asked(table)
    assert asked(table)[-1] == (16, 1.0)
    densities = {density for _, density in asked(table)}
    assert densities == {0.1, 0.3, 0.3 * 3, 1.0}


def test_a_larger_factor_takes_larger_steps() -> None:
    table = Table(told)
    grow(SPACE, AMPLE, table, factor=4)
    assert asked(table) == [(4, 1 / 16), (16, 1 / 16), (4, 1 / 4), (64, 1 / 16), (16, 1 / 4)]


def test_a_pair_is_not_begun_that_the_trials_left_are_too_few_for() -> None:
    for trials, measured in ((1, 1), (2, 1), (3, 3), (4, 3), (5, 5)):
        table = Table(told)
        grow(SPACE, AMPLE, table, trials=trials)
        assert len(table.asked) == measured


def test_of_rivals_that_are_as_accurate_the_cheaper_is_kept() -> None:
    dear_rank = Table(
        lambda one: 0.5 if one == SPACE.smallest else 0.6,
        lambda one: 10 * one.rank + round(one.density),
    )
    assert kept(grow(SPACE, AMPLE, dear_rank))[:2] == [(4, 1 / 16), (4, 1 / 8)]


def test_what_is_no_more_accurate_is_no_improvement() -> None:
    assert kept(grow(SPACE, AMPLE, Table(lambda _: 0.5))) == [(4, 1 / 16), None]


def test_a_rival_of_density_one_is_the_candidate_that_the_space_has() -> None:
    space = SearchSpace(
        ranks=(1,), densities=(0.5, 1.0), head_densities=(0.0,), encodings=("int8",)
    )
    table = Table(lambda one: one.density)
    grow(space, AMPLE, table)
    assert set(table.asked) <= set(space.candidates)
