"""Runs a search: its settings, its trials one after another, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from client_sdk.file_lock import FileLock
from flasc_cli.errors import CliError
from flasc_cli.output import say
from flasc_sim.fields import read_fields
from flasc_sim.search.finalists import Finalist, choose_finalists, run_again
from flasc_sim.search.goals import Goal, Measure, Outcome, Outcomes
from flasc_sim.search.growth import LABEL, Comparison, grow
from flasc_sim.search.report import HALVING_LABEL, Findings, write_report
from flasc_sim.search.space import Candidate, SearchSpace
from flasc_sim.search.trials import Trials, first_rung, rounds_of, search_table
from flasc_sim.settings import changed_table, read_settings, read_table
from flasc_sim.simulation import Simulation
from flasc_sim.workload import Sources, Workload, load_workload

__all__ = ["Search", "search"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search that was asked for; each method measures at most `trials` candidates.

    The best `finalists` of them are run again with each of so many `further_seeds`.
    """

    goal: Goal
    grows: bool
    halves: bool
    trials: int
    factor: int
    reduction: int
    finalists: int
    further_seeds: int


def search(
    asked: Search, config: Path, assignments: Sequence[str], sources: Sources, folder: Path
) -> dict[str, Any]:
    """Search, or go on where a search stopped, and return what its search.json says.

    Raises CliError for settings that do not fit, runs that fail, and a folder that is in use.
    """
    try:
        table, space = _read(config, assignments, asked)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        try:
            return _search(asked, table, space, sources, folder)
        finally:
            lock.release()
    except BlockingIOError as error:
        raise CliError(f"another process searches in {folder}, or works on a run of it") from error
    except (OSError, ValueError) as error:
        raise CliError(f"{config}: {error}") from error


def _read(
    config: Path, assignments: Sequence[str], asked: Search
) -> tuple[dict[str, Any], SearchSpace]:
    table = changed_table(read_table(config), assignments)
    space = read_fields(SearchSpace, table.pop("search", {}), "search")
    table = search_table(table, every=first_rung(rounds_of(table), asked.reduction))
    # What is wrong with the rest is told before anything runs.
    read_settings(space.smallest.apply_to(table), name=config.stem).check()
    return table, space


def _search(
    asked: Search, table: Mapping[str, Any], space: SearchSpace, sources: Sources, folder: Path
) -> dict[str, Any]:
    settings = read_settings(table, name="search")

    @cache
    def load() -> Workload:
        say(f"  loading workload {settings.workload_name}")
        return load_workload(settings.workload_name, settings.workload_options, sources)

    pace = _Pace()
    trials = Trials(table, folder / "runs", load, pace.count)
    grown: list[Comparison] = []
    halved: list[Outcome] = []
    if asked.grows:
        say(f"{LABEL}: at most {asked.trials} runs")
        grown = grow(
            space,
            asked.goal,
            _Narrator(trials, asked.trials, pace).measure,
            factor=asked.factor,
            trials=asked.trials,
        )
    if asked.halves:
        # Growth alone does without Optuna.
        from flasc_sim.search.halving import halve

        wanted = min(asked.trials, len(space.candidates))
        say(f"{HALVING_LABEL}: {wanted} runs of {len(space.candidates)} that there are")
        halved = halve(
            space,
            asked.goal,
            _Narrator(trials, wanted, pace).measure,
            rounds=rounds_of(table),
            trials=asked.trials,
            reduction=asked.reduction,
            seed=table.get("seed", 0),
            journal=folder / "study.journal",
        )
    findings = Findings(goal=asked.goal, grown=grown, halved=halved)
    while (nearest := findings.nearest) is not None:
        say("no run keeps to the budget: the one that would send the least goes on to its end")
        *_, last = _Narrator(trials, 1, pace).measure(nearest)
        findings = replace(findings, completed=(*findings.completed, last))
    first = table.get("seed", 0)
    seeds = range(first, first + asked.further_seeds + 1)
    again = {
        seed: trials.with_seed(seed, folder / "finalists" / f"seed{seed}") for seed in seeds[1:]
    }
    findings = replace(findings, finalists=_run_finals(asked, findings, seeds, again, pace))
    runs = [trials.run_folder(one.candidate) for one in findings.outcomes] + [
        further.run_folder(finalist.candidate)
        for further in again.values()
        for finalist in findings.finalists
    ]
    cpu_seconds = sum(run.cpu_seconds() for run in runs)
    result = trials.run_folder(findings.recommended.candidate).result()
    facts = {name: value for name, value in result["workload"].items() if name != "name"}
    return write_report(folder, findings, table, facts, cpu_hours=cpu_seconds / 3600)


def _run_finals(
    asked: Search,
    findings: Findings,
    seeds: Sequence[int],
    again: Mapping[int, Trials],
    pace: _Pace,
) -> list[Finalist]:
    """Run the best again with each further seed; none where no such were asked for."""
    if not again:
        return []
    chosen = choose_finalists(findings.goal, findings.outcomes, asked.finalists)
    wanted = len(chosen) * len(again)
    say(f"the best {len(chosen)} with {len(again)} further seeds: {wanted} runs")

    def measure(seed: int) -> Measure:
        say(f"  seed {seed}")
        return _Narrator(again[seed], len(chosen), pace).measure

    return run_again(chosen, seeds, measure)


class _Pace:
    """How long rounds take; evaluations are in it."""

    def __init__(self) -> None:
        self.rounds = 0
        self.rounds_per_run = 0
        # The slowest trial's mean.
        self.seconds_per_round = 0.0

    def count(self, simulation: Simulation) -> None:
        self.rounds += 1
        self.rounds_per_run = simulation.config.ending.rounds


class _Narrator:
    """Measures candidates and says what it sees, with the time that is left at the most."""

    def __init__(self, trials: Trials, wanted: int, pace: _Pace) -> None:
        self._trials: Final = trials
        self._wanted: Final = wanted
        self._pace: Final = pace
        self._begun = 0

    def measure(self, candidate: Candidate) -> Outcomes:
        self._begun += 1
        say(f"  {self._begun} of {self._wanted}: {candidate.name}")
        rounds_before, began = self._pace.rounds, time.monotonic()
        try:
            with closing(self._trials.measure(candidate)) as outcomes:
                for outcome in outcomes:
                    last = outcome
                    yield outcome
            say(f"    {_told(last)}")
        except GeneratorExit:
            say(f"    stopped: {_told(last)}")
            raise
        finally:
            # What was read and not run tells nothing of time.
            ran = self._pace.rounds - rounds_before
            if ran:
                took = (time.monotonic() - began) / ran
                self._pace.seconds_per_round = max(self._pace.seconds_per_round, took)
            self._say_time_left()

    def _say_time_left(self) -> None:
        left = self._wanted - self._begun
        seconds = left * self._pace.rounds_per_run * self._pace.seconds_per_round
        if seconds:
            say(f"    at most {seconds / 60:.0f} min left, if every run came to its end")


def _told(outcome: Outcome) -> str:
    return (
        f"round {outcome.round} of {outcome.rounds}, accuracy {outcome.accuracy:.1%}, "
        f"{outcome.payload_bytes / 1e6:.2f} MB"
    )
