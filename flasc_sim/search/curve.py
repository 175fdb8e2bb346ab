"""Draws accuracy against bytes: the same files for the same outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes

from flasc_sim.figures import figure
from flasc_sim.search.goals import Outcome, frontier
from flasc_sim.search.growth import LABEL

__all__ = ["draw_curve"]

_MB: Final = 1_000_000


def draw_curve(
    folder: Path, outcomes: Sequence[Outcome], path: Sequence[Outcome], recommended: Outcome
) -> None:
    """Write curve.svg and curve.png; runs that were stopped stand where they would have ended."""
    with figure(folder / "curve.svg", folder / "curve.png") as drawn:
        _plot(drawn.subplots(), outcomes, path, recommended)


def _plot(
    axes: Axes, outcomes: Sequence[Outcome], path: Sequence[Outcome], recommended: Outcome
) -> None:
    stopped = [outcome for outcome in outcomes if not outcome.is_whole]
    whole = [outcome for outcome in outcomes if outcome.is_whole]
    axes.scatter(*_points(stopped), s=12, color="0.7", label="stopped: bytes projected")
    axes.scatter(*_points(whole), s=24, color="tab:blue", label="whole runs")
    axes.plot(
        *_points(frontier(outcomes)), color="tab:blue", drawstyle="steps-post", label="best so far"
    )
    if path:
        axes.plot(*_points(path), "--", color="tab:orange", label=LABEL)
    axes.scatter(
        *_points([recommended]), s=160, marker="*", color="tab:red", zorder=3, label="recommended"
    )
    axes.set_xscale("log")
    axes.set_xlabel("payload bytes of a whole run, both ways, all devices (MB)")
    axes.set_ylabel("accuracy on validation rows (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _points(outcomes: Sequence[Outcome]) -> tuple[list[float], list[float]]:
    return (
        [outcome.projected_bytes / _MB for outcome in outcomes],
        [100 * outcome.accuracy for outcome in outcomes],
    )
