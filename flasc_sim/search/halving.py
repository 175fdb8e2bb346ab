"""Successive halving over the whole space: many short runs, of which the better ones go on.

Optuna proposes candidates (tree-structured Parzen estimators, with the goal's constraint) and stops
runs (asynchronous successive halving, Li et al. 2020). Of the runs that came as far as a rung, the
best 1 in `reduction` goes on to the next, `reduction` times as many rounds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from flasc_sim.search.goals import Goal, Measure, Outcome, Outcomes
from flasc_sim.search.space import Candidate, SearchSpace
from flasc_sim.search.trials import first_rung

__all__ = ["halve"]

# How often a proposal may repeat an earlier trial before one that is new is drawn at random.
_REPEATS: Final = 10
# Of a constraint; the journal's JSON has no infinity.
_WORST: Final = 1e9
_STUDY: Final = "flasc-search"


def halve(
    space: SearchSpace,
    goal: Goal,
    measure: Measure,
    *,
    rounds: int,
    trials: int,
    reduction: int = 3,
    seed: int = 0,
    journal: Path | None = None,
) -> list[Outcome]:
    """Return the last outcome of every trial, of different candidates, in the order of the trials.

    Equal arguments and measurements give equal trials, so a search that was killed is begun again
    and comes back to where it was as fast as its runs are read. `journal` is written anew; Optuna's
    own tools read it.
    """
    proposals = _Proposals(space, _study(goal, rounds, reduction, seed, journal), seed)
    outcomes: list[Outcome] = []
    while len(outcomes) < trials:
        proposed = proposals.next()
        if proposed is None:
            break
        candidate, trial = proposed
        outcomes.append(_run(goal, measure(candidate), proposals.study, trial))
    return outcomes


def _run(goal: Goal, outcomes: Outcomes, study: optuna.Study, trial: optuna.Trial) -> Outcome:
    with closing(outcomes):
        for outcome in outcomes:
            last = outcome
            if not outcome.failed:
                trial.report(goal.score(outcome), outcome.round)
            if not outcome.is_whole and (goal.is_beyond(outcome) or trial.should_prune()):
                break
    # A run that failed ends before its last round too.
    stopped = not last.is_whole
    # What failed looked as good as any at its last evaluation; nothing is to be drawn near it.
    trial.set_constraint("violation", _WORST if last.failed else goal.violation(last))
    trial.set_user_attr("accuracy", last.accuracy)
    trial.set_user_attr("payload_bytes", last.payload_bytes)
    if stopped:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, goal.score(last))
    return last


def _study(
    goal: Goal, rounds: int, reduction: int, seed: int, journal: Path | None
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    if journal is not None:
        journal.unlink(missing_ok=True)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(
        direction="maximize",
        study_name=_STUDY,
        storage=storage,
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=first_rung(rounds, reduction), reduction_factor=reduction
        ),
    )


class _Proposals:
    """Candidates that were not tried before, each with the trial that it is measured in."""

    def __init__(self, space: SearchSpace, study: optuna.Study, seed: int) -> None:
        self.study: Final = study
        # As Optuna has them: numbers of values, so that it knows neighbours to be alike.
        self._axes: Final[Mapping[str, tuple[Any, ...]]] = {
            "rank": space.ranks,
            "density": space.densities,
            "head_density": space.head_densities,
            "encoding": space.encodings,
            "base": space.bases,
        }
        self._space: Final = space
        untried = space.candidates
        np.random.default_rng(seed).shuffle(untried)
        # In the order in which they are drawn where proposals repeat themselves.
        self._untried: Final = dict.fromkeys(untried)

    def next(self) -> tuple[Candidate, optuna.Trial] | None:
        """Return None where every candidate was tried."""
        if not self._untried:
            return None
        for _ in range(_REPEATS):
            candidate, trial = self._ask()
            if candidate in self._untried:
                break
            # Nothing is measured, and nothing learnt from it.
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.enqueue_trial(self._numbers(next(iter(self._untried))))
            candidate, trial = self._ask()
        del self._untried[candidate]
        trial.set_user_attr("candidate", candidate.name)
        return candidate, trial

    def _ask(self) -> tuple[Candidate, optuna.Trial]:
        trial = self.study.ask(
            {name: IntDistribution(0, len(values) - 1) for name, values in self._axes.items()}
        )
        chosen = {name: values[trial.params[name]] for name, values in self._axes.items()}
        return self._space.candidate(**chosen), trial

    def _numbers(self, candidate: Candidate) -> dict[str, int]:
        chosen = {name: getattr(candidate, name) for name in self._axes}
        if chosen["head_density"] not in self._axes["head_density"]:
            # A dense candidate's head, which was ranked with the rest as it was drawn.
            chosen["head_density"] = 0.0
        return {name: values.index(chosen[name]) for name, values in self._axes.items()}
