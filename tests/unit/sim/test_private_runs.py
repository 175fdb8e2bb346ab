"""Private tasks in a simulation: their noise, their cohorts, and the budgets it keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from aggregator_service.domain.accounting import gaussian_epsilon
from flasc_sim.device_work import Assignment, DeviceUpdate
from flasc_sim.engine import EngineParts, Seat, SerialEngine
from flasc_sim.records import RoundRecord, read_records
from flasc_sim.run_folder import RunFolder, run
from flasc_sim.settings import RunSettings
from flasc_sim.simulation import Simulation
from tests.support.tiny_runs import bytes_of, finished, killed
from tests.support.tiny_workload import a_run, a_workload

PRIVATE = (
    "policy.quorum=1",
    "privacy.mode=POISSON",
    "privacy.population=6",
    "privacy.clip_norm=0.1",
    "privacy.noise_multiplier=2.0",
    "privacy.delta=1e-3",
)

# Of twenty rounds, in which uncapped draws would have some client more than four times.
CAPPED = (
    *PRIVATE,
    "privacy.mode=PARTICIPATION_CAP",
    "privacy.population=null",
    "privacy.max_participations=4",
    "privacy.epsilon=50.0",
    "policy.goal=1",
    "ending.rounds=20",
)


def test_a_private_run_has_noise_of_its_own_and_the_same_each_time(tmp_path: Path) -> None:
    private = a_run(*PRIVATE, "privacy.epsilon=50.0")
    one, again = (finished(tmp_path / name, private).result() for name in "ab")
    louder = a_run(*PRIVATE, "privacy.epsilon=50.0", "privacy.noise_multiplier=3.0")
    assert one["weights_sha256"] == again["weights_sha256"]
    assert one["weights_sha256"] != finished(tmp_path / "c", louder).result()["weights_sha256"]


def test_every_round_has_noise_of_its_own() -> None:
    """Devices learn next to nothing here, and the server averages: all that moves is noise."""
    settings = a_run(
        *PRIVATE,
        "privacy.epsilon=50.0",
        "training.learning_rate=1e-9",
        'optimizer={"name": "sgd", "learning_rate": 1.0}',
    )
    simulation = Simulation(settings, a_workload())
    versions = [simulation.federation.weights]
    for _ in range(2):
        simulation.advance()
        versions.append(simulation.federation.weights)
    first, second = np.diff(np.array(versions), axis=0)
    assert first.std() > 0.01
    assert second.std() > 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.5


def test_a_fixed_cohort_has_the_size_of_the_goal_and_a_poisson_one_any_even_none(
    tmp_path: Path,
) -> None:
    sizes = {
        mode: cohort_sizes(
            finished(
                tmp_path / mode,
                a_run(
                    *PRIVATE,
                    f"privacy.mode={mode}",
                    "privacy.epsilon=5000.0",
                    "policy.goal=1",
                    "ending.rounds=20",
                ),
            )
        )
        for mode in ("POISSON", "FIXED_SIZE")
    }
    assert sizes["FIXED_SIZE"] == [1] * 20
    # The size is Binomial(6, 1/6).
    assert min(sizes["POISSON"]) == 0
    assert max(sizes["POISSON"]) > 1


def cohort_sizes(folder: RunFolder) -> list[int]:
    rounds = read_records(folder.path / "rounds.parquet", RoundRecord)
    devices = {record.round: record.devices for record in rounds}
    return [devices.get(number, 0) for number in range(1, folder.result()["rounds"] + 1)]


class Watched(SerialEngine):
    """Remembers how often it trained whom."""

    def __init__(self, parts: EngineParts) -> None:
        super().__init__(parts)
        self.trained: Counter[int] = Counter()

    def train(
        self, assignments: Mapping[str, Assignment], cohort: Sequence[Seat]
    ) -> Iterator[DeviceUpdate]:
        self.trained.update(seat.client for seat in cohort)
        return super().train(assignments, cohort)


def times_trained(settings: RunSettings) -> list[int]:
    engines: list[Watched] = []

    def engine(parts: EngineParts) -> Watched:
        engines.append(Watched(parts))
        return engines[0]

    simulation = Simulation(settings, a_workload(), engine=engine)
    while not simulation.is_done:
        simulation.advance()
    return sorted(engines[0].trained.values())


def test_a_cap_lets_no_client_in_more_often_and_keeps_rounds_whole() -> None:
    uncapped = (*CAPPED, "privacy.mode=FIXED_SIZE", "privacy.max_participations=null")
    drawn = times_trained(a_run(*uncapped, "privacy.population=6", "privacy.epsilon=5000.0"))
    capped = times_trained(a_run(*CAPPED))
    assert sum(drawn) == sum(capped) == 20
    assert max(drawn) > 4
    assert max(capped) == 4


@pytest.mark.parametrize("after", [3, 17])
def test_a_run_that_goes_on_knows_who_took_part_how_often(tmp_path: Path, after: int) -> None:
    whole = bytes_of(finished(tmp_path / "whole", a_run(*CAPPED)))
    folder = RunFolder(path=tmp_path / "killed")
    killed(folder, a_run(*CAPPED), after=after, checkpoint_every=1)
    run(a_run(*CAPPED), a_workload, folder)
    assert bytes_of(folder) == whole


def test_rounds_beyond_the_cap_cost_no_more_of_the_budget() -> None:
    cost = gaussian_epsilon(noise=2.0, times=4, delta=1e-3)
    assert Simulation(a_run(*CAPPED, f"privacy.epsilon={cost * 1.001}"), a_workload())
    with pytest.raises(ValueError, match="20 rounds cost"):
        Simulation(a_run(*CAPPED, f"privacy.epsilon={cost * 0.999}"), a_workload())


@pytest.mark.parametrize(
    ("cap", "rounds", "goal", "needed"),
    [
        # Of the first five rounds, 15 places use up three clients or five.
        (4, 6, 3, 6),
        (3, 6, 3, 8),
        # A cap that no client can reach before the last round.
        (6, 6, 6, 6),
        (5, 6, 6, 12),
    ],
)
def test_clients_that_a_cap_may_use_up_too_early_are_refused(
    cap: int, rounds: int, goal: int, needed: int
) -> None:
    settings = a_run(
        *CAPPED,
        f"privacy.max_participations={cap}",
        f"ending.rounds={rounds}",
        f"policy.goal={goal}",
    )
    if needed <= 6:
        times = times_trained(settings)
        assert sum(times) == rounds * goal
        assert max(times) <= cap
    else:
        with pytest.raises(ValueError, match=f"need {needed} clients, and there are 6"):
            Simulation(settings, a_workload())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (("privacy.epsilon=2.0",), "6 rounds cost"),
        (("privacy.population=7",), "population must be at most the 6 clients"),
    ],
)
def test_privacy_that_a_simulation_does_not_keep_is_refused(
    changes: tuple[str, ...], problem: str
) -> None:
    settings = a_run(*PRIVATE, "privacy.epsilon=50.0", *changes)
    with pytest.raises(ValueError, match=problem):
        Simulation(settings, a_workload())
