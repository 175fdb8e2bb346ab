"""A candidate as a run on disk, measured on validation rows, stopped and taken up again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final, TypeAlias

from client_sdk import TrainingFailed
from flasc_sim.checkpoint import write_whole
from flasc_sim.records import EvaluationRecord, RoundRecord, read_records
from flasc_sim.run_folder import RunFolder
from flasc_sim.search.goals import Outcome, Outcomes
from flasc_sim.search.space import Candidate
from flasc_sim.settings import RunSettings, SettingsError, read_settings
from flasc_sim.simulation import Simulation
from flasc_sim.workload import Workload

__all__ = ["Trials", "first_rung", "rounds_of", "search_table"]

_Stage: TypeAlias = tuple[Sequence[RoundRecord], Sequence[EvaluationRecord]]


def rounds_of(table: Mapping[str, Any]) -> int:
    """Return how many rounds a whole run has. Raises SettingsError."""
    ending = table.get("ending")
    rounds = ending.get("rounds") if isinstance(ending, dict) else None
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise SettingsError("ending.rounds must be a whole number of at least 1")
    return rounds


def first_rung(rounds: int, reduction: int) -> int:
    """After how many rounds runs are compared first; the rung after the next is the whole run."""
    return math.ceil(rounds / reduction**2)


def search_table(table: Mapping[str, Any], *, every: int) -> dict[str, Any]:
    """Return settings whose runs are scored on validation rows every so many rounds.

    Raises SettingsError for a task with tiers, whose methods are not what is searched for.
    """
    if table.get("tiers"):
        raise SettingsError("a search chooses one method for all devices: leave out tiers")
    scoring = {**table.get("evaluation", {}), "on": "validation", "every": every}
    return {**table, "evaluation": scoring}


class Trials:
    """Measures candidates by running a `search_table` with each of them, in a folder each.

    `load` is called once, and only when there is something left to run; `on_round` sees every round
    that is run.
    """

    def __init__(
        self,
        table: Mapping[str, Any],
        folder: Path,
        load: Callable[[], Workload],
        on_round: Callable[[Simulation], None] = lambda simulation: None,
    ) -> None:
        self._table: Final = table
        self._folder: Final = folder
        self._load: Final = load
        self._on_round: Final = on_round
        self._rounds: Final = rounds_of(table)
        self._workload: Workload | None = None

    def with_seed(self, seed: int, folder: Path) -> Trials:
        """Return the same trials with another seed, in another folder."""
        return Trials({**self._table, "seed": seed}, folder, self._load, self._on_round)

    def run_folder(self, candidate: Candidate) -> RunFolder:
        return RunFolder(path=self._folder / candidate.name)

    def measure(self, candidate: Candidate) -> Outcomes:
        """As `goals.Measure` has it: what was run before is read, not run again.

        A run that fails, as where training diverges, ends with an accuracy of 0 before its last
        round. Raises ValueError for settings that do not fit, and BlockingIOError where another
        process works on this run.
        """
        table = {**candidate.apply_to(self._table), "name": candidate.name}
        settings, folder = read_settings(table, name=candidate.name), self.run_folder(candidate)
        with folder.held_for(settings):
            for stage in self._stages(settings, folder):
                yield self._outcome(candidate, settings, stage)
            if folder.failure is not None:
                yield self._failed(candidate, folder)

    def _stages(self, settings: RunSettings, folder: RunFolder) -> Iterator[_Stage]:
        """Yield the records up to each evaluation in turn; all that is yielded is on disk."""
        if folder.is_finished or folder.failure is not None:
            yield from _stages_of(
                _rounds_in(folder),
                read_records(folder.path / "evaluations.parquet", EvaluationRecord),
            )
            return
        checkpoint = folder.load()
        if checkpoint is not None:
            yield from _stages_of(checkpoint.rounds, checkpoint.evaluations)
        if self._workload is None:
            self._workload = self._load()
        simulation = Simulation(settings, self._workload, checkpoint)
        self._check_same(simulation.identity)
        while not simulation.is_done:
            scored = len(simulation.evaluations)
            try:
                simulation.advance()
            except TrainingFailed as error:
                folder.fail(simulation, str(error))
                return
            self._on_round(simulation)
            if len(simulation.evaluations) > scored and not simulation.is_done:
                folder.save(simulation)
                yield tuple(simulation.rounds), tuple(simulation.evaluations)
        folder.finish(simulation, self._workload)
        yield simulation.rounds, simulation.evaluations

    def _check_same(self, identity: str) -> None:
        """Raises ValueError where runs that there are had other data or another model."""
        file = self._folder / "workload"
        if not file.exists():
            write_whole(file, identity.encode())
        elif file.read_text() != identity:
            raise ValueError(
                f"the runs in {self._folder} had other data or another model; give the search "
                "those, or begin one in another folder"
            )

    def _outcome(self, candidate: Candidate, settings: RunSettings, stage: _Stage) -> Outcome:
        rounds, evaluations = stage
        done = rounds[-1].round
        final = settings.evaluation.final(done) if done == self._rounds else {done}
        return Outcome(
            candidate=candidate,
            round=done,
            rounds=self._rounds,
            accuracy=fmean(score.accuracy for score in evaluations if score.round in final),
            payload_bytes=_payload_bytes(rounds),
        )

    def _failed(self, candidate: Candidate, folder: RunFolder) -> Outcome:
        rounds = _rounds_in(folder)
        return Outcome(
            candidate=candidate,
            # A run that failed in its first round tells nothing, and yet it was tried.
            round=max(1, len({one.round for one in rounds})),
            rounds=self._rounds,
            accuracy=0.0,
            payload_bytes=max(1, _payload_bytes(rounds)),
            failed=True,
        )


def _rounds_in(folder: RunFolder) -> Sequence[RoundRecord]:
    return read_records(folder.path / "rounds.parquet", RoundRecord)


def _payload_bytes(rounds: Sequence[RoundRecord]) -> int:
    return sum(one.payload_bytes_down + one.payload_bytes_up for one in rounds)


def _stages_of(
    rounds: Sequence[RoundRecord], evaluations: Sequence[EvaluationRecord]
) -> Iterator[_Stage]:
    for number, evaluation in enumerate(evaluations, start=1):
        yield [done for done in rounds if done.round <= evaluation.round], evaluations[:number]
