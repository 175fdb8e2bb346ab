"""Finished runs beside each other: what each configuration reached, and what it sent for that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from flasc_sim.records import EvaluationRecord, read_records

__all__ = [
    "Curve",
    "FailedRun",
    "Row",
    "Run",
    "compare",
    "curve_of",
    "find_failures",
    "find_runs",
    "settings_but_seed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished run; `settings` are all but its seed."""

    folder: Path
    settings: str
    result: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.result["name"])

    @property
    def accuracy(self) -> float:
        return float(self.result["accuracy"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration over its seeds; accuracies are fractions, bytes are of one run.

    `saving` is what the largest adapter that is compared would send dense in float32, both ways to
    and from the same devices, over what was sent. Deviations are between seeds, None for one.
    Shares are of the values that were sent by LoRA's A, B and the head.
    """

    name: str
    seeds: tuple[int, ...]
    accuracy: float
    accuracy_deviation: float | None
    parameters: int
    rounds: int
    payload_bytes_down: int
    payload_bytes_up: int
    saving: float
    shares_down: Mapping[str, float]
    shares_up: Mapping[str, float]
    tier_accuracies: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A configuration's accuracy after rounds, seeds' means."""

    name: str
    rounds: tuple[int, ...]
    accuracies: tuple[float, ...]


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """Read the finished runs in run folders, and in those below other folders.

    Raises ValueError where there is none, or a path has neither one nor a run that failed.
    """
    found: list[Run] = []
    for path in paths:
        files = sorted(path.rglob("result.json"))
        if not files and not find_failures([path]):
            raise ValueError(f"there is no finished run in {path}")
        found += [_read(file.parent) for file in files]
    if not found:
        raise ValueError("none of the runs came to its end")
    return sorted(found, key=lambda run: (run.name, run.result["seed"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRun:
    """A run whose training failed, as where it diverged; `round` is from 1."""

    name: str
    seed: int
    round: int
    reason: str


def find_failures(paths: Sequence[Path]) -> list[FailedRun]:
    """Read the run folders, and those below other folders, whose training failed."""
    folders = [file.parent for path in paths for file in path.rglob("failure.json")]
    return sorted(map(_read_failure, folders), key=lambda failed: (failed.name, failed.seed))


def _read_failure(folder: Path) -> FailedRun:
    settings, failure = (
        json.loads((folder / f"{name}.json").read_bytes()) for name in ("settings", "failure")
    )
    return FailedRun(name=settings["name"], seed=settings["seed"], **failure)


def compare(runs: Sequence[Run]) -> list[Row]:
    """Sum up runs by name, best first.

    ValueError where one name stands for several configurations or data sets, where a seed is there
    twice, and where some runs were scored on held-out rows and others on validation rows.
    """
    if len({run.result["evaluated_on"] for run in runs}) > 1:
        raise ValueError(
            "some of the runs were scored on held-out rows and some on validation rows; compare "
            "them apart"
        )
    largest = max((run.result["dim"] for run in runs), default=0)
    rows = [_row(name, group, largest) for name, group in _by_name(runs).items()]
    return sorted(rows, key=lambda row: (-row.accuracy, row.name))


def curve_of(name: str, runs: Sequence[Run]) -> Curve:
    """Return the mean curve of a configuration's runs, over the rounds that all of them scored.

    Raises FileNotFoundError for a run whose folder lacks its evaluations.
    """
    seen = [_scores(run) for run in runs if run.name == name]
    rounds = sorted(set.intersection(*(set(scores) for scores in seen)))
    return Curve(
        name=name,
        rounds=tuple(rounds),
        accuracies=tuple(fmean(scores[done] for scores in seen) for done in rounds),
    )


def _read(folder: Path) -> Run:
    return Run(
        folder=folder,
        settings=settings_but_seed(json.loads((folder / "settings.json").read_bytes())),
        result=json.loads((folder / "result.json").read_bytes()),
    )


def settings_but_seed(settings: Mapping[str, Any]) -> str:
    """Return what runs of one configuration have in common, to be compared."""
    common = {name: value for name, value in settings.items() if name != "seed"}
    # The seed of an initial base follows the run's.
    common["base"] = {name: value for name, value in settings["base"].items() if name != "seed"}
    return json.dumps(common, sort_keys=True)


def _by_name(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    for name, group in groups.items():
        if len({run.settings for run in group}) > 1:
            raise ValueError(f"runs called {name!r} differ in more than their seed; rename one")
        if len({json.dumps(run.result["workload"], sort_keys=True) for run in group}) > 1:
            raise ValueError(f"runs called {name!r} had different data or models")
        if len({run.result["seed"] for run in group}) < len(group):
            raise ValueError(f"a seed of {name!r} is there twice")
    return groups


def _row(name: str, runs: Sequence[Run], largest: int) -> Row:
    results = [run.result for run in runs]
    down = fmean(result["payload_bytes_down"] for result in results)
    up = fmean(result["payload_bytes_up"] for result in results)
    accuracies = [run.accuracy for run in runs]
    tiers = results[0]["tiers"]
    return Row(
        name=name,
        seeds=tuple(result["seed"] for result in results),
        accuracy=fmean(accuracies),
        accuracy_deviation=stdev(accuracies) if len(runs) > 1 else None,
        parameters=results[0]["dim"],
        rounds=results[0]["rounds"],
        payload_bytes_down=round(down),
        payload_bytes_up=round(up),
        saving=fmean(2 * 4 * largest * result["devices"] for result in results) / (down + up),
        shares_down=_mean_shares(results, "shares_down"),
        shares_up=_mean_shares(results, "shares_up"),
        tier_accuracies={
            tier: fmean(result["tiers"][tier]["accuracy"] for result in results)
            for tier in tiers
            if tier
        },
    )


def _mean_shares(results: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    """Of all tiers alike."""
    of_tiers = [tier[name] for result in results for tier in result["tiers"].values()]
    return {role: fmean(shares[role] for shares in of_tiers) for role in of_tiers[0]}


def _scores(run: Run) -> dict[int, float]:
    """Mean accuracy of the tiers, by round."""
    file = run.folder / "evaluations.parquet"
    if not file.exists():
        raise FileNotFoundError(
            f"{run.folder} has no {file.name}, which curves need: bring it back, or write no report"
        )
    by_round: dict[int, list[float]] = {}
    for score in read_records(file, EvaluationRecord):
        by_round.setdefault(score.round, []).append(score.accuracy)
    return {done: fmean(accuracies) for done, accuracies in by_round.items()}
