"""Sums up finished runs: a table of the page, TABLE.json and TABLE.svg for each that has any."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from types import MappingProxyType
from typing import Any, Final

from benchmarks.paper.tables import TABLES
from flasc_sim.comparison import FailedRun, find_failures, settings_but_seed
from flasc_sim.figures import figure

__all__ = [
    "Row",
    "Run",
    "family_of",
    "read_runs",
    "report",
    "summed_up",
]

_FAMILIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "adapter_lth": "Adapter-LTH",
        "federated_select": "Federated Select",
        "ffa_lora": "FFA-LoRA",
        "head_only": "head only",
        "hetlora": "HetLoRA",
        "hetlora_published": "HetLoRA as published",
        "rolora": "RoLoRA",
        "sparse_adapter": "SparseAdapter",
    }
)
# Where runs without noise stand among budgets.
_NO_NOISE: Final = 100
_HEADER: Final = (
    "| run | seeds | accuracy | parameters | MB down | MB up | times fewer |",
    "|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished run, or one tier of its devices; `devices` counts each in each round."""

    method: str
    family: str
    # Its settings but for the seed, and what its workload says of itself.
    configuration: tuple[str, str]
    seed: int
    tier: str
    accuracy: float
    parameters: int
    rounds: int
    devices: int
    bytes_down: int
    bytes_up: int
    cpu_seconds: float
    # Of a private run's budget.
    epsilon: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A method, or one of its tiers, over its seeds; bytes are a run's mean, and payloads alone."""

    method: str
    family: str
    tier: str
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    parameters: int
    rounds: int
    bytes_down: int
    bytes_up: int
    # The bytes of float32 LoRA of rank 16, to and from as many devices, over these.
    factor: float
    cpu_seconds: float
    epsilon: float | None

    @property
    def accuracy(self) -> float:
        return mean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Between seeds; None for one."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None


def report(folder: Path, page: Path) -> None:
    """Sum up every table that has a finished run. Raises ValueError for a page without marks."""
    text = page.read_text()
    for name, table in TABLES.items():
        rows = summed_up(
            read_runs(folder / name), table.methods, _bytes_per_device(folder / table.dense)
        )
        if not rows:
            continue
        failures = find_failures([folder / name])
        lines = [*map(_line, rows), *map(_failure_line, failures)]
        text = _replaced(text, name, [*_HEADER, *lines])
        said = {"study": table.heading, "command": f"python -m benchmarks.paper {name}"}
        results = [{**asdict(row), "accuracy": row.accuracy} for row in rows]
        results += [_failure(failed) for failed in failures]
        (folder / f"{name}.json").write_text(
            json.dumps({**said, **_machine(folder / name), "results": results}, indent=1) + "\n"
        )
        _plot(rows, table.heading, folder / f"{name}.svg")
        print(f"{name}: {len(rows)} methods")
    page.write_text(text)


def read_runs(folder: Path) -> list[Run]:
    """Return what is finished in METHOD/seedN: every run, and after it its tiers if it has any."""
    files = sorted(folder.glob("*/seed*/result.json"))
    return [run for file in files for run in _runs(file.parent)]


def summed_up(
    runs: Sequence[Run], methods: Sequence[str], dense_bytes: float | None = None
) -> list[Row]:
    """Return a row for each method and tier that has runs, in the order of `methods`.

    `dense_bytes` are what float32 LoRA of rank 16 took for a device of a round, there and back; of
    the largest adapter's values, 4 bytes each, where left out. ValueError where a method's seeds
    were not run with equal settings.
    """
    largest = max((run.parameters for run in runs), default=0)
    dense = 2 * 4 * largest if dense_bytes is None else dense_bytes
    found: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: methods.index(run.method)):
        found.setdefault((run.method, run.tier), []).append(run)
    return [_row(same, dense) for same in found.values()]


def _runs(folder: Path) -> list[Run]:
    result, settings, machine = (
        json.loads((folder / f"{name}.json").read_bytes())
        for name in ("result", "settings", "machine")
    )
    tiers: dict[str, Any] = result["tiers"]
    parts = {"": result, **(tiers if len(tiers) > 1 else {})}
    return [
        Run(
            method=folder.parent.name,
            family=family_of(settings),
            configuration=(settings_but_seed(settings), json.dumps(result["workload"])),
            seed=result["seed"],
            tier=tier,
            accuracy=part["accuracy"],
            parameters=result["dim"],
            rounds=result["rounds"],
            devices=part["devices"],
            bytes_down=part["payload_bytes_down"],
            bytes_up=part["payload_bytes_up"],
            cpu_seconds=machine["cpu_seconds"],
            epsilon=settings["privacy"]["epsilon"] if "privacy" in settings else None,
        )
        for tier, part in parts.items()
    ]


def family_of(settings: Mapping[str, Any]) -> str:
    """Name the runs of a table that differ in nothing but rank or density."""
    if settings.get("tiers"):
        return family_of({**settings, "method": settings["tiers"][0]["method"], "tiers": []})
    method = settings["method"]
    if method["name"] != "flasc":
        return _FAMILIES.get(method["name"], method["name"])
    down, up = method["download_density"], method["upload_density"]
    if down == up == 1:
        adapter = settings["adapter"]
        same = adapter.get("alpha", adapter["rank"]) == adapter["rank"]
        name = "dense LoRA" if same else "dense LoRA, alpha 16"
    elif down != up:
        name = "FLASC one way"
    else:
        name = "FLASC, dense head" if method.get("head_density") else "FLASC"
    if settings["base"]["name"] == "initial":
        name += ", drawn adapter"
    encodings = settings.get("encodings")
    return f"{name}, {encodings['download']}" if encodings else name


def _bytes_per_device(method: Path) -> float | None:
    """Of a method's finished runs; None where there is none."""
    runs = [run for file in method.glob("seed*/result.json") for run in _runs(file.parent)]
    if not runs:
        return None
    return sum(sum(_bytes(run)) for run in runs) / sum(run.devices for run in runs)


def _row(runs: Sequence[Run], dense_bytes: float) -> Row:
    first = runs[0]
    if len({run.configuration for run in runs}) > 1:
        raise ValueError(f"{first.method}: seeds had other settings, data or models; run it again")
    down, up = (round(mean(values)) for values in zip(*map(_bytes, runs), strict=True))
    dense = dense_bytes * mean(run.devices for run in runs)
    return Row(
        method=first.method,
        family=first.family,
        tier=first.tier,
        seeds=tuple(run.seed for run in runs),
        accuracies=tuple(run.accuracy for run in runs),
        parameters=first.parameters,
        rounds=first.rounds,
        bytes_down=down,
        bytes_up=up,
        factor=round(dense / (down + up), 2),
        cpu_seconds=round(mean(run.cpu_seconds for run in runs), 1),
        epsilon=first.epsilon,
    )


def _bytes(run: Run) -> tuple[int, int]:
    return run.bytes_down, run.bytes_up


def _line(row: Row) -> str:
    accuracy = f"{100 * row.accuracy:.1f}"
    if row.deviation is not None:
        single = ", ".join(f"{100 * value:.1f}" for value in row.accuracies)
        accuracy += f" ± {100 * row.deviation:.1f} ({single})"
    seeds = ", ".join(map(str, row.seeds))
    down, up = (f"{count / 1e6:.2f}" for count in (row.bytes_down, row.bytes_up))
    name = f"— {row.tier} tier" if row.tier else row.method
    cells = (name, seeds, accuracy, f"{row.parameters:,}", down, up, f"{row.factor:.1f}")
    return f"| {' | '.join(cells)} |"


def _failure(failed: FailedRun) -> dict[str, Any]:
    said = asdict(failed)
    return {"method": said.pop("name"), **said}


def _failure_line(failed: FailedRun) -> str:
    told = f"failed in round {failed.round}: {failed.reason}"
    return f"| {failed.name} | {failed.seed} | {told} | - | - | - | - |"


def _replaced(text: str, name: str, lines: Sequence[str]) -> str:
    begin, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the page has no {begin} and {end} to put the table between")
    body = "\n".join((begin, *lines, end))
    return pattern.sub(lambda _: body, text)


def _machine(folder: Path) -> Mapping[str, Any]:
    """What the last run in order ran on; all of a table's should have run on the same."""
    said: dict[str, Any] = json.loads(max(folder.glob("*/seed*/machine.json")).read_bytes())
    del said["cpu_seconds"]
    return said


def _plot(rows: Sequence[Row], heading: str, file: Path) -> None:
    """Accuracy against bytes, or where runs are private, against their budgets."""
    # Tiers make one adapter: their whole is drawn.
    whole = [row for row in rows if not row.tier]
    place, label = _axis(whole)
    families: dict[str, list[Row]] = {}
    for row in whole:
        families.setdefault(row.family, []).append(row)
    with figure(file) as drawn:
        axes = drawn.subplots()
        for number, (family, found) in enumerate(families.items()):
            found.sort(key=place)
            axes.errorbar(
                [place(row) for row in found],
                [100 * row.accuracy for row in found],
                yerr=[100 * (row.deviation or 0) for row in found],
                marker="osD^vPX*"[number % 8],
                color=f"C{number % 10}",
                linestyle="-" if number < 10 else ":",
                capsize=2,
                label=family,
            )
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy, %")
        axes.set_title(heading, fontsize=10)
        axes.legend(fontsize=6, ncols=2)


def _axis(rows: Sequence[Row]) -> tuple[Callable[[Row], float], str]:
    if any(row.epsilon for row in rows):
        return lambda row: row.epsilon or _NO_NOISE, f"epsilon ({_NO_NOISE}: no noise)"
    return lambda row: (row.bytes_down + row.bytes_up) / 1e6, "payload of a run, both ways, MB"
