"""Runs on Ray workers give the bytes of a run in one process."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client_sdk import TrainingFailed
from flasc_sim.engine import MakeEngine, SerialEngine
from flasc_sim.ray_engine import ray_engines, workers_that_fit
from flasc_sim.run_folder import Failure, RunFolder, run
from flasc_sim.settings import RunSettings
from tests.support.tiny_workload import a_run, a_workload

# Without importing it, which is for the engine to do.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'flasc-service[ray]'"
)


@pytest.mark.timeout(600)
def test_more_workers_than_a_cluster_has_room_for_are_refused() -> None:
    """Ray itself would wait for machines that may never come."""
    # Before `two_workers`, since a process is in one cluster at a time.
    with (
        pytest.raises(ConnectionError, match=r"room for 0 workers of a CPU and 64 GPUs each, not"),
        ray_engines(workers=2, gpus_per_worker=64),
    ):
        pass


@pytest.mark.parametrize(
    ("cpus", "gpus", "gpus_per_worker", "fitting"),
    [
        (3.0, 0, 0.0, 3),
        (8.0, 2, 1.0, 2),
        (8.0, 2, 2.0, 1),
        (8.0, 5, 2.0, 2),
        # What is left of each GPU is not enough for one more.
        (8.0, 2, 0.6, 2),
        (8.0, 2, 0.25, 8),
        (3.0, 2, 0.25, 3),
        (8.0, 0, 0.25, 0),
    ],
)
def test_workers_fit_where_a_machine_has_all_that_they_take(
    cpus: float, gpus: float, gpus_per_worker: float, fitting: int
) -> None:
    node = {"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}}
    bare = {"Alive": True, "Resources": {"memory": 1.0}}
    gone = {"Alive": False, "Resources": node["Resources"]}
    assert workers_that_fit([node, bare, gone], gpus_per_worker) == fitting


@pytest.fixture(scope="module")
def two_workers() -> Iterator[MakeEngine]:
    with ray_engines(workers=2) as engine:
        yield engine


def results_of(folder: Path, settings: RunSettings, engine: MakeEngine) -> dict[str, bytes]:
    run(settings, a_workload, RunFolder(path=folder), engine=engine)
    names = ("rounds.parquet", "evaluations.parquet", "weights.safetensors", "result.json")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.timeout(600)
def test_two_workers_give_the_bytes_of_one_process(tmp_path: Path, two_workers: MakeEngine) -> None:
    tiers = [
        {"name": name, "method": {"name": "flasc", "download_density": 0.2, "upload_density": up}}
        for name, up in (("a", 0.2), ("b", 0.5))
    ]
    settings = a_run(f"tiers={json.dumps(tiers)}", "policy.goal=5", "adapter.dropout=0.1")
    one = results_of(tmp_path / "one", settings, SerialEngine)
    assert results_of(tmp_path / "two", settings, two_workers) == one
    assert json.loads((tmp_path / "two" / "machine.json").read_bytes())["device"] == "cpu"


@pytest.mark.timeout(600)
def test_training_that_fails_on_a_worker_fails_as_it_does_here(
    tmp_path: Path, two_workers: MakeEngine
) -> None:
    wild = a_run("training.learning_rate=1e5")
    reasons: list[Failure | None] = []
    for engine in (SerialEngine, two_workers):
        folder = RunFolder(path=tmp_path / str(len(reasons)))
        with pytest.raises(TrainingFailed):
            run(wild, a_workload, folder, engine=engine)
        reasons.append(folder.failure)
    assert reasons[0] == reasons[1]


def test_a_cluster_of_this_machine_is_reached_from_it_alone(two_workers: MakeEngine) -> None:
    del two_workers
    import ray  # noqa: PLC0415 - not before the engine has

    nodes: Any = ray.nodes  # Ray gives it no types.
    assert [node["NodeManagerAddress"] for node in nodes()] == ["127.0.0.1"]


@pytest.mark.timeout(600)
def test_a_cluster_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(ConnectionError, match=r"did not start here in 3 tries: .*nonnegative"),
        ray_engines(workers=-1),
    ):
        pass
