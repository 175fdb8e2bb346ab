"""Runs one settings file after another, and shows how far each one is."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from client_sdk import TrainingFailed
from flasc_cli.errors import CliError, ExitCode
from flasc_cli.output import say
from flasc_sim.engine import MakeEngine, SerialEngine
from flasc_sim.run_folder import RunFolder, run
from flasc_sim.settings import RunSettings, changed_table, read_settings, read_table
from flasc_sim.simulation import Simulation
from flasc_sim.workload import Sources, Workload, load_workload

__all__ = ["Batch", "open_engine", "read_runs", "run_all"]

# Where no terminal shows a bar, a line so many times per run.
_LINES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What became of runs that were asked for; `failed` names those without a result, and why."""

    asked: int
    results: list[Mapping[str, Any]]
    failed: list[str]

    def check(self) -> None:
        """Raise CliError where a run has failed."""
        if self.failed:
            told = "; ".join(self.failed)
            raise CliError(f"{len(self.failed)} of {self.asked} runs failed: {told}")


def read_runs(
    configs: Sequence[Path], *, seeds: Sequence[int], assignments: Sequence[str]
) -> list[RunSettings]:
    """Read every file, once for each seed, and check all that needs neither data nor model.

    Raises CliError that names every file that does not fit, and the key.
    """
    changes = [[*assignments, f"seed={seed}"] for seed in seeds] or [list(assignments)]
    planned: list[RunSettings] = []
    # As keys, since a file is mostly wrong in the same way with every seed.
    problems: dict[str, None] = {}
    for config in configs:
        for change in changes:
            try:
                settings = _read(config, change)
                _check_alone(settings, planned)
                planned.append(settings)
            except (OSError, ValueError) as error:
                problems[f"{config}: {error}"] = None
    if problems:
        raise CliError("; ".join(problems))
    return planned


@contextmanager
def open_engine(
    name: str, *, workers: int, gpus_per_worker: float, address: str | None
) -> Iterator[MakeEngine]:
    """Give what trains devices: this process, or for "ray" a cluster. Raises CliError."""
    if name == "serial":
        yield SerialEngine
        return
    if importlib.util.find_spec("ray") is None:
        raise CliError("--engine ray needs Ray: pip install 'flasc-service[ray]'")
    from flasc_sim.ray_engine import ray_engines

    try:
        with ray_engines(
            workers=workers, gpus_per_worker=gpus_per_worker, address=address
        ) as engine:
            yield engine
    except ConnectionError as error:
        raise CliError(f"Ray: {error}", ExitCode.UNREACHABLE) from error


def run_all(
    planned: Sequence[RunSettings],
    sources: Sources,
    out: Path,
    *,
    checkpoint_every: int,
    engine: MakeEngine = SerialEngine,
) -> Batch:
    """Make one run after another; those that another process works on are left out.

    A run whose training fails, or that its own settings, data or model keep from being made, keeps
    no other from it.
    """
    workloads = _Workloads(sources)
    results: list[Mapping[str, Any]] = []
    failed: list[str] = []
    for number, settings in enumerate(planned, start=1):
        folder = RunFolder(path=out / settings.name / f"seed{settings.seed}")
        say(f"run {number} of {len(planned)}: {settings.name}, seed {settings.seed}")
        try:
            with _Display() as display:
                result = run(
                    settings,
                    partial(workloads.load, settings),
                    folder,
                    checkpoint_every=checkpoint_every,
                    engine=engine,
                    on_round=display.show,
                )
        except BlockingIOError:
            say(f"  another process works on {folder.path}")
            continue
        except (TrainingFailed, OSError, ValueError) as error:
            say(f"  failed: {error}")
            failed.append(f"{settings.name}, seed {settings.seed}: {error}")
            continue
        results.append({**result, "folder": str(folder.path)})
    return Batch(asked=len(planned), results=results, failed=failed)


def _check_alone(settings: RunSettings, planned: Sequence[RunSettings]) -> None:
    """Raises ValueError where another run that is not the same would go to the same folder."""
    for other in planned:
        same_folder = (other.name, other.seed) == (settings.name, settings.seed)
        if same_folder and other.table != settings.table:
            raise ValueError(f"another run is {settings.name!r} with seed {settings.seed} as well")


def _read(config: Path, assignments: Sequence[str]) -> RunSettings:
    settings = read_settings(changed_table(read_table(config), assignments), name=config.stem)
    settings.check()
    return settings


class _Workloads:
    """Keeps the last workload, since runs beside each other mostly share it."""

    def __init__(self, sources: Sources) -> None:
        self._sources: Final = sources
        self._last: tuple[str, Mapping[str, Any], Workload] | None = None

    def load(self, settings: RunSettings) -> Workload:
        name, options = settings.workload_name, settings.workload_options
        if self._last is None or self._last[:2] != (name, options):
            say(f"  loading workload {name}")
            self._last = (name, options, load_workload(name, options, self._sources))
        return self._last[2]


class _Display(Progress):
    """A bar with the time that is left on a terminal, and a line now and then elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        super().__init__(
            TextColumn("  round"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        # When the first round ended that this process ran, and which it was.
        self._since: tuple[float, int] | None = None

    def show(self, simulation: Simulation) -> None:
        done, rounds = simulation.rounds_done, simulation.config.ending.rounds
        told = f"loss {simulation.rounds[-1].loss:.3f}"
        if simulation.evaluations:
            last = simulation.evaluations[-1]
            told += f", accuracy {last.accuracy:.1%} after round {last.round}"
        if not self.tasks:
            self.add_task(told, total=rounds)
        self.update(self.tasks[0].id, completed=done, description=told)
        if self.disable and (done % max(1, rounds // _LINES) == 0 or done == rounds):
            say(f"  round {done} of {rounds}: {told}{self._left(done, rounds)}")

    def _left(self, done: int, rounds: int) -> str:
        now = time.monotonic()
        since, first = self._since = self._since or (now, done)
        if done in (first, rounds):
            return ""
        return f", {(now - since) / (done - first) * (rounds - done) / 60:.1f} min left"
