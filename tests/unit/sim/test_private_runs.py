"""Private tasks in a simulation: their noise, their cohorts, and the budgets it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flasc_sim.records import RoundRecord, read_records
from flasc_sim.run_folder import RunFolder
from flasc_sim.simulation import Simulation
from tests.support.tiny_runs import finished
from tests.support.tiny_workload import a_run, a_workload

PRIVATE = (
    "policy.quorum=1",
    "privacy.mode=POISSON",
    "privacy.population=6",
    "privacy.clip_norm=0.1",
    "privacy.noise_multiplier=2.0",
    "privacy.delta=1e-3",
)


CAPPED = (
    "privacy.mode=PARTICIPATION_CAP",
    "privacy.population=null",
    "privacy.max_participations=3",
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


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (("privacy.epsilon=2.0",), "6 rounds cost"),
        (("privacy.population=7",), "population must be at most the 6 clients"),
        (CAPPED, "must be POISSON or FIXED_SIZE"),
    ],
)
def test_privacy_that_a_simulation_does_not_keep_is_refused(
    changes: tuple[str, ...], problem: str
) -> None:
    settings = a_run(*PRIVATE, "privacy.epsilon=50.0", *changes)
    with pytest.raises(ValueError, match=problem):
        Simulation(settings, a_workload())
