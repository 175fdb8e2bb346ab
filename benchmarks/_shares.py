"""A picture of how far what was measured is from its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks._report import Goal
from flasc_sim.figures import figure

__all__ = ["draw_shares"]

_REACHED, _MISSED = "#4878a8", "#c44e52"


def draw_shares(goals: Sequence[Goal], file: Path, *, axis: str = "share of the bound") -> None:
    """A bar per goal, from the top down, as a share of its bound; none may be zero."""
    places = range(len(goals))
    with figure(file) as drawn:
        drawn.set_size_inches(9, 0.8 + 0.22 * len(goals))
        axes = drawn.subplots()
        axes.barh(
            places,
            [goal.worst / goal.at_most for goal in goals],
            color=[_REACHED if goal.reached else _MISSED for goal in goals],
        )
        axes.axvline(1, color="black", linewidth=1)
        axes.set_yticks(places, [goal.name for goal in goals], fontsize=8)
        figures = [f"{goal.worst:.3g} of {goal.at_most:.3g}" for goal in goals]
        axes.secondary_yaxis("right").set_yticks(places, figures, fontsize=8)
        axes.set_ylim(len(goals) - 0.5, -0.5)
        axes.set_xlabel(axis)
