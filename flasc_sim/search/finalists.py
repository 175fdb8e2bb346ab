"""Runs the best candidates again with further seeds: the winner of many trials is partly lucky."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from flasc_sim.search.goals import Goal, Measure, Outcome
from flasc_sim.search.space import Candidate

__all__ = ["Finalist", "choose_finalists", "run_again"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """A candidate's last outcome with each seed, that of the search first."""

    seeds: tuple[int, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def candidate(self) -> Candidate:
        return self.outcomes[0].candidate

    @property
    def mean(self) -> Outcome:
        """As one outcome; failed if any seed's run did."""
        return replace(
            self.outcomes[0],
            accuracy=fmean(one.accuracy for one in self.outcomes),
            payload_bytes=round(fmean(one.payload_bytes for one in self.outcomes)),
            failed=any(one.failed for one in self.outcomes),
        )


def choose_finalists(goal: Goal, outcomes: Iterable[Outcome], count: int) -> list[Outcome]:
    """Return at most `count` whole runs, the best first.

    Where any meets the goal, the others are left out.
    """
    whole = [outcome for outcome in outcomes if outcome.is_whole]
    left = [outcome for outcome in whole if goal.is_met(outcome)] or whole
    chosen: list[Outcome] = []
    while left and len(chosen) < count:
        best = goal.choose(left)
        chosen.append(best)
        left.remove(best)
    return chosen


def run_again(
    chosen: Sequence[Outcome], seeds: Sequence[int], measure: Callable[[int], Measure]
) -> list[Finalist]:
    """Measure them whole with all further seeds; `seeds[0]` is the search's own."""
    outcomes = {one.candidate: [one] for one in chosen}
    for seed in seeds[1:]:
        measure_seed = measure(seed)
        for candidate, seen in outcomes.items():
            *_, last = measure_seed(candidate)
            seen.append(last)
    return [Finalist(seeds=tuple(seeds), outcomes=tuple(seen)) for seen in outcomes.values()]
