"""Trials as runs on disk: measured in stages, stopped, killed and taken up, never run twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from client_sdk.file_lock import FileLock
from client_sdk.peft_trainer import Batch
from flasc_sim.run_folder import RunFolder
from flasc_sim.search.goals import Outcome, TargetAccuracy
from flasc_sim.search.halving import halve
from flasc_sim.search.space import SearchSpace
from flasc_sim.search.trials import Trials, first_rung, rounds_of, search_table
from flasc_sim.settings import SettingsError, changed_table
from flasc_sim.simulation import Simulation
from flasc_sim.workload import Workload
from tests.support.search_table import a_candidate
from tests.support.tiny_workload import a_run, a_workload

CANDIDATE = a_candidate(2, 0.5)
SPACE = SearchSpace(ranks=(1, 2), densities=(0.25, 1.0), encodings=("int8", "int4"))
GOAL = TargetAccuracy(accuracy=0.99)


class Killed(Exception):
    pass


def nothing(simulation: Simulation) -> None:
    pass


def never() -> Workload:
    raise AssertionError("there is nothing left to load for")


def trials(
    folder: Path,
    load: Callable[[], Workload] = a_workload,
    on_round: Callable[[Simulation], None] = nothing,
    *assignments: str,
) -> Trials:
    table = changed_table(a_run().table, ["base.name=zero", *assignments])
    return Trials(search_table(table, every=2), folder, load, on_round)


def outcomes(made: Trials) -> list[Outcome]:
    return list(made.measure(CANDIDATE))


def test_a_run_is_measured_at_every_evaluation_by_validation_rows(tmp_path: Path) -> None:
    made = trials(tmp_path)
    measured = outcomes(made)
    # Every second round, and the last two that are two apart: 4 and 6.
    assert [(one.round, one.is_whole) for one in measured] == [(2, False), (4, False), (6, True)]
    result = made.run_folder(CANDIDATE).result()
    assert result["evaluated_on"] == "validation"
    assert measured[-1].accuracy == result["accuracy"]
    in_all = result["payload_bytes_down"] + result["payload_bytes_up"]
    assert measured[-1].payload_bytes == in_all
    assert 0 < measured[0].payload_bytes < measured[1].payload_bytes < in_all


def test_a_finished_run_is_read_and_neither_loaded_nor_run_again(tmp_path: Path) -> None:
    measured = outcomes(trials(tmp_path))
    assert outcomes(trials(tmp_path, never)) == measured


def test_a_search_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    measured = outcomes(trials(tmp_path))
    other = trials(tmp_path, lambda: a_workload(66))
    # What is finished needs no data.
    assert outcomes(other) == measured
    with pytest.raises(ValueError, match="other data"):
        list(other.measure(a_candidate(1, 0.5)))
    assert list(trials(tmp_path).measure(a_candidate(1, 0.5)))


def test_a_run_that_was_stopped_goes_on_from_there(tmp_path: Path) -> None:
    whole = outcomes(trials(tmp_path / "whole"))
    stopped = trials(tmp_path / "stopped").measure(CANDIDATE)
    assert next(stopped) == whole[0]
    stopped.close()
    rounds: list[int] = []
    again = trials(
        tmp_path / "stopped", on_round=lambda simulation: rounds.append(simulation.rounds_done)
    )
    assert not again.run_folder(CANDIDATE).is_finished
    assert outcomes(again) == whole
    assert rounds == [3, 4, 5, 6]


def test_what_a_stopped_run_has_shown_is_read_without_loading(tmp_path: Path) -> None:
    first = trials(tmp_path).measure(CANDIDATE)
    shown = next(first)
    first.close()
    assert next(trials(tmp_path, never).measure(CANDIDATE)) == shown


def test_a_run_that_diverges_is_worth_nothing_and_is_not_run_again(tmp_path: Path) -> None:
    diverging = ("training.learning_rate=1e5", "training.local_epochs=9")
    (outcome,) = outcomes(trials(tmp_path, a_workload, nothing, *diverging))
    assert (outcome.accuracy, outcome.failed, outcome.is_whole) == (0.0, True, False)
    assert outcomes(trials(tmp_path, never, nothing, *diverging)) == [outcome]


def test_what_a_run_showed_before_it_failed_is_read_as_it_was_seen(tmp_path: Path) -> None:
    done = 0

    def count_rounds(simulation: Simulation) -> None:
        nonlocal done
        done = simulation.rounds_done

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        own: Tensor = model(**batch).loss
        return own if done < 4 else own * torch.nan

    seen = outcomes(trials(tmp_path, lambda: a_workload(loss=loss), count_rounds))
    assert [(one.round, one.failed) for one in seen] == [(2, False), (4, False), (4, True)]
    assert seen[1].payload_bytes == seen[2].payload_bytes
    assert outcomes(trials(tmp_path, never)) == seen


def test_a_search_goes_on_past_runs_that_diverge(tmp_path: Path) -> None:
    diverging = ("training.learning_rate=1e5", "training.local_epochs=9")
    assert halve(
        SPACE, GOAL, trials(tmp_path, a_workload, nothing, *diverging).measure, rounds=6, trials=2
    )


def test_a_run_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    measuring = trials(tmp_path).measure(CANDIDATE)
    next(measuring)
    lock = trials(tmp_path).run_folder(CANDIDATE).path / "lock"
    with pytest.raises(BlockingIOError):
        FileLock(lock)
    measuring.close()
    FileLock(lock).release()


def search(folder: Path, on_round: Callable[[Simulation], None] = nothing) -> list[Outcome]:
    made = trials(folder, a_workload, on_round, "ending.rounds=9", 'policy={"goal": 1}')
    return halve(SPACE, GOAL, made.measure, rounds=9, trials=4, seed=1)


def test_a_search_that_is_killed_again_and_again_comes_to_the_same_trials(tmp_path: Path) -> None:
    whole_rounds: list[int] = []
    whole = search(tmp_path / "whole", lambda simulation: whole_rounds.append(1))
    assert any(not outcome.is_whole for outcome in whole)
    run: list[int] = []
    kills = 0

    def die(simulation: Simulation) -> None:
        run.append(1)
        if len(run) % 8 == 0:
            raise Killed

    while True:
        try:
            resumed = search(tmp_path / "killed", die)
            break
        except Killed:
            kills += 1
    assert resumed == whole
    assert kills >= 2
    # A kill costs the rounds since the last evaluation, and those are every second.
    assert len(run) <= len(whole_rounds) + 2 * kills
    for outcome in whole:
        one, other = (
            RunFolder(path=tmp_path / place / outcome.candidate.name)
            for place in ("whole", "killed")
        )
        assert one.is_finished == other.is_finished == outcome.is_whole
        assert not outcome.is_whole or one.result() == other.result()


def test_the_first_rung_is_an_evaluation() -> None:
    table = search_table({"evaluation": {"scores": 2}}, every=first_rung(100, 3))
    assert table["evaluation"] == {"scores": 2, "on": "validation", "every": 12}


def test_a_task_with_tiers_is_not_searched() -> None:
    tiers = [{"name": "small", "method": {"name": "head_only"}}]
    with pytest.raises(SettingsError, match="leave out tiers"):
        search_table({"tiers": tiers}, every=1)


@pytest.mark.parametrize("ending", [None, {}, {"rounds": 0}, {"rounds": True}, {"rounds": "9"}])
def test_a_run_without_a_number_of_rounds_is_not_searched(ending: object) -> None:
    with pytest.raises(SettingsError, match=r"ending\.rounds"):
        rounds_of(json.loads(json.dumps({"ending": ending})))
    assert rounds_of({"ending": {"rounds": 1}}) == 1
