"""Successive halving: all of the space within reach, the better runs go on, equal seeds agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from flasc_sim.search.goals import ByteBudget, Outcome, Outcomes, TargetAccuracy
from flasc_sim.search.halving import halve
from flasc_sim.search.space import Candidate, SearchSpace
from flasc_sim.search.trials import first_rung
from tests.support.search_table import ROUNDS, Table

SPACE = SearchSpace(head_densities=(1.0, 0.0))
BUDGET = ByteBudget(payload_bytes=900)


def accuracy(one: Candidate) -> float:
    """More of everything is better, less and less so; the best within the budget is unique."""
    bits = {"int8": 0.02, "int6": 0.015, "int4": 0.0}[one.encoding]
    size = one.rank * one.density
    return 0.5 + 0.1 * size / (size + 1) + bits + 0.005 * (one.base == "initial")


def search(table: Table, trials: int, **changes: object) -> list[Outcome]:
    settings: dict[str, object] = {"rounds": ROUNDS, "trials": trials, "seed": 1} | changes
    return halve(SPACE, BUDGET, table, **settings)  # type: ignore[arg-type]


def test_equal_seeds_give_equal_trials_and_other_seeds_others() -> None:
    one, same, other = (search(Table(accuracy), 15, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_no_candidate_is_tried_twice_and_all_of_them_can_be() -> None:
    table = Table(accuracy)
    small = SearchSpace(ranks=(1, 4), densities=(0.5, 1.0), head_densities=(1.0, 0.0))
    halve(small, BUDGET, table, rounds=ROUNDS, trials=len(small.candidates) + 1)
    assert set(table.asked) == set(small.candidates)
    assert len(table.asked) == len(small.candidates)


def test_fewer_trials_are_the_first_of_more() -> None:
    assert search(Table(accuracy), 20)[:8] == search(Table(accuracy), 8)


def test_most_runs_are_stopped_early_and_the_best_is_not() -> None:
    outcomes = search(Table(accuracy), 40)
    whole = [outcome for outcome in outcomes if outcome.is_whole]
    assert 1 <= len(whole) <= 20
    within = [one for one in outcomes if one.candidate.rank * one.candidate.density <= 1]
    best = max(accuracy(one.candidate) for one in within)
    assert BUDGET.choose(outcomes).accuracy == pytest.approx(best)


def test_what_fails_after_a_good_evaluation_is_no_example_to_follow(tmp_path: Path) -> None:
    def failing(candidate: Candidate) -> Outcomes:
        seen = Table(accuracy).outcome(candidate, 3)
        yield seen
        yield replace(seen, accuracy=0.0, failed=True)

    journal = tmp_path / "study.journal"
    (last,) = halve(SPACE, BUDGET, failing, rounds=ROUNDS, trials=1, journal=journal)
    assert last.failed
    storage = JournalStorage(JournalFileBackend(str(journal)))
    (trial,) = optuna.load_study(study_name=None, storage=storage).trials
    assert trial.state is TrialState.PRUNED
    (violation,) = trial.constraints.values()
    assert violation > 1e6


def test_a_run_beyond_the_budget_is_stopped_at_its_first_evaluation() -> None:
    table = Table(lambda one: one.rank * one.density / 100)
    for outcome in search(table, 30):
        if outcome.projected_bytes > 1.1 * BUDGET.payload_bytes:
            assert outcome.round == 1


def test_a_target_is_reached_by_the_cheapest_run_that_can() -> None:
    goal, table = TargetAccuracy(accuracy=0.55), Table(accuracy)
    chosen = goal.choose(halve(SPACE, goal, table, rounds=ROUNDS, trials=40, seed=1))
    runs = [table.outcome(candidate) for candidate in SPACE.candidates]
    assert goal.is_met(chosen)
    assert chosen.payload_bytes == goal.choose(runs).payload_bytes


def test_the_journal_tells_of_every_trial_and_is_written_anew(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    search(Table(accuracy), 4, journal=journal)
    outcomes = search(Table(accuracy), 3, journal=journal)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(journal))
    )
    study = optuna.load_study(study_name="flasc-search", storage=storage)
    told = [trial for trial in study.trials if trial.state is not TrialState.FAIL]
    assert [trial.user_attrs["candidate"] for trial in told] == [
        outcome.candidate.name for outcome in outcomes
    ]
    states = {True: TrialState.COMPLETE, False: TrialState.PRUNED}
    assert [trial.state for trial in told] == [states[outcome.is_whole] for outcome in outcomes]


@pytest.mark.parametrize(("rounds", "rung"), [(1, 1), (9, 1), (10, 2), (18, 2), (19, 3), (100, 12)])
def test_two_rungs_lie_below_the_whole_run(rounds: int, rung: int) -> None:
    assert first_rung(rounds, 3) == rung
    assert rung * 9 >= rounds


def test_a_dense_candidate_is_drawn_again_as_it_was_made() -> None:
    # Its head has a density that the space does not name, and which is not the first of them.
    space = SearchSpace(
        ranks=(1,), densities=(0.5, 1.0), head_densities=(0.5, 0.0), encodings=("int8",)
    )
    table = Table(accuracy)
    halve(space, BUDGET, table, rounds=ROUNDS, trials=len(space.candidates))
    assert set(table.asked) == set(space.candidates)
