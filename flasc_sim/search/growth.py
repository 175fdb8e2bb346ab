"""FLASC-Search-style (reconstructed): grow the rank or the density, whichever gains more.

The paper's revised text (May 2025) tells of its search in one sentence, "iteratively comparing
pairs of configurations and increasing either the rank or density"; all the rest here is a
reconstruction. From (r, d) compare (f·r, d) with (r, f·d), which send as many values of LoRA as
each other, and keep the better. Stop when neither improves, or when the goal or a limit says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flasc_sim.search.goals import Goal, Measure, Outcome, measured
from flasc_sim.search.space import Candidate, SearchSpace

__all__ = ["LABEL", "Comparison", "grow"]

LABEL: Final = "FLASC-Search-style (reconstructed)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The outcomes that were compared, and which of them was gone on from, None for neither."""

    rivals: tuple[Outcome, ...]
    kept: Outcome | None


def grow(
    space: SearchSpace, goal: Goal, measure: Measure, *, factor: int = 2, trials: int = 100
) -> list[Comparison]:
    """Grow from the smallest candidate; return every comparison, the first being the start alone.

    A rival that the goal's bytes do not allow is not kept, and there is none beyond the space's
    largest rank and density, at which the last step ends however short it is. A goal of accuracy
    ends where it is met first. At most `trials` are measured.
    """
    current = measured(goal, measure(space.smallest))
    grown = [Comparison(rivals=(current,), kept=current)]
    spent = 1
    while not (goal.is_enough(current) or goal.is_beyond(current)):
        rivals = _larger(current.candidate, space, factor)
        if not rivals or spent + len(rivals) > trials:
            break
        outcomes = tuple(measured(goal, measure(rival)) for rival in rivals)
        spent += len(rivals)
        kept = _better(goal, current, outcomes)
        grown.append(Comparison(rivals=outcomes, kept=kept))
        if kept is None:
            break
        current = kept
    return grown


def _larger(smaller: Candidate, space: SearchSpace, factor: int) -> list[Candidate]:
    """The one with the larger rank first."""
    larger: list[tuple[int, float]] = []
    if smaller.rank < space.ranks[-1]:
        larger.append((min(smaller.rank * factor, space.ranks[-1]), smaller.density))
    if smaller.density < space.densities[-1]:
        larger.append((smaller.rank, _grown(smaller.density, space.densities, factor)))
    return [
        space.candidate(
            rank=rank,
            density=density,
            head_density=smaller.head_density,
            encoding=smaller.encoding,
            base=smaller.base,
        )
        for rank, density in larger
    ]


def _grown(density: float, listed: Sequence[float], factor: int) -> float:
    """`factor` times as much, the largest at most, and as the list has it if it does."""
    target = min(density * factor, listed[-1])
    # Products of floats miss what the list says of the same number.
    return next((one for one in listed if math.isclose(one, target)), target)


def _better(goal: Goal, current: Outcome, rivals: Sequence[Outcome]) -> Outcome | None:
    """Of equally accurate ones the cheaper, and then the first."""
    allowed = [rival for rival in rivals if rival.is_whole and not goal.is_beyond(rival)]
    improved = [rival for rival in allowed if rival.accuracy > current.accuracy]
    if not improved:
        return None
    return max(improved, key=lambda rival: (rival.accuracy, -rival.payload_bytes))
