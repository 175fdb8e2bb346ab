"""Runs that were stopped go on to the same bytes, or are refused where they would not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from client_sdk.file_lock import FileLock
from flasc_sim.engine import MakeEngine, SerialEngine
from flasc_sim.records import RoundRecord, read_records
from flasc_sim.run_folder import RunFolder, run
from flasc_sim.workload import AdapterShape, Workload
from tests.support.tiny_model import a_base_model, a_peft_model
from tests.support.tiny_runs import bytes_of, finished, killed
from tests.support.tiny_workload import a_run, a_workload


@pytest.mark.parametrize("checkpoint_every", [1, 2, 4])
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(
    tmp_path: Path, checkpoint_every: int
) -> None:
    whole = bytes_of(finished(tmp_path / "whole"))
    folder = RunFolder(path=tmp_path / "killed")
    for after in (1, 3, 5):
        killed(folder, after=after, checkpoint_every=checkpoint_every)
        assert not folder.is_finished
    run(a_run(), a_workload, folder)
    assert bytes_of(folder) == whole


SELF_PRUNING = a_run(
    # With this seed all devices of the first tier that are drawn have stepped down after round 3.
    "seed=4",
    'method={"name": "hetlora_published", "rank": 2}',
    'optimizer={"name": "sgd", "learning_rate": 1.0}',
    "tiers="
    + json.dumps(
        [
            {
                "name": "high",
                "method": {
                    "name": "hetlora_published",
                    "rank": 2,
                    "prune_to": 1,
                    "penalty": 1.0,
                },
            },
            {"name": "low", "method": {"name": "hetlora_published", "rank": 1}},
        ]
    ),
)


def test_devices_that_stepped_down_stay_there_when_a_killed_run_goes_on(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole", SELF_PRUNING)
    tiers = [one.tier for one in read_records(whole.path / "rounds.parquet", RoundRecord)]
    assert tiers == ["high", "low"] * 3 + ["low"] * 3
    folder = RunFolder(path=tmp_path / "killed")
    for after in range(1, 6):
        killed(folder, SELF_PRUNING, after=after, checkpoint_every=1)
    run(SELF_PRUNING, a_workload, folder)
    assert bytes_of(folder) == bytes_of(whole)


def test_a_run_goes_on_from_its_last_checkpoint_and_not_from_the_start(tmp_path: Path) -> None:
    folder = RunFolder(path=tmp_path)
    killed(folder, after=5, checkpoint_every=2)
    rounds: list[int] = []
    run(a_run(), a_workload, folder, on_round=lambda now: rounds.append(now.rounds_done))
    assert rounds == [5, 6]


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    result = finished(tmp_path).result()

    def never() -> Workload:
        raise AssertionError("there is nothing left to load for")

    assert run(a_run(), never, RunFolder(path=tmp_path)) == result


def test_a_folder_with_other_settings_is_refused_and_unchanged(tmp_path: Path) -> None:
    before = bytes_of(finished(tmp_path))
    with pytest.raises(ValueError, match="other settings"):
        finished(tmp_path, a_run("training.learning_rate=0.2"))
    assert bytes_of(RunFolder(path=tmp_path)) == before


@pytest.mark.parametrize("column", ["labels", "content"])
def test_a_run_does_not_go_on_with_other_data(tmp_path: Path, column: str) -> None:
    folder = RunFolder(path=tmp_path)
    killed(folder, after=2, checkpoint_every=1)

    def other() -> Workload:
        same = a_workload()
        assert same.labels is not None
        if column == "content":
            return replace(same, content_sha256="other")
        return replace(same, labels=same.labels[::-1])

    with pytest.raises(ValueError, match="other data"):
        run(a_run(), other, folder)
    run(a_run(), a_workload, folder)


def test_a_run_does_not_go_on_with_another_model(tmp_path: Path) -> None:
    folder = RunFolder(path=tmp_path)
    killed(folder, after=2, checkpoint_every=1)

    def other() -> Workload:
        return replace(a_workload(), build=_on_other_weights)

    with pytest.raises(ValueError, match="another model"):
        run(a_run(), other, folder)
    run(a_run(), a_workload, folder)


def _on_other_weights(shape: AdapterShape, seed: int) -> PeftModel:
    base = a_base_model()
    with torch.no_grad():
        next(base.parameters()).mul_(2)
    return a_peft_model(base, rank=shape.rank, dropout=shape.dropout, seed=seed)


class OnGpu(SerialEngine):
    device = "NVIDIA H200"


@pytest.mark.parametrize(
    ("threads", "engine", "differing"),
    [(2, SerialEngine, "threads 1, not 2"), (1, OnGpu, "device cpu, not NVIDIA H200")],
)
def test_a_run_does_not_go_on_where_it_would_end_in_other_bits(
    tmp_path: Path, threads: int, engine: MakeEngine, differing: str
) -> None:
    folder = RunFolder(path=tmp_path)
    killed(folder, after=2, checkpoint_every=1)
    before = (tmp_path / "checkpoint").read_bytes()
    torch.set_num_threads(threads)
    try:
        with pytest.raises(ValueError, match=f"begun with {differing}, .* another folder"):
            run(a_run(), a_workload, folder, engine=engine)
    finally:
        torch.set_num_threads(1)
    assert (tmp_path / "checkpoint").read_bytes() == before
    run(a_run(), a_workload, folder)


@pytest.mark.parametrize(
    ("begun_with", "engine", "differing"),
    [
        ({"versions": {"numpy": "0.1"}}, SerialEngine, r"numpy 0\.1, not [0-9.]+"),
        ({"instructions": "ALTIVEC"}, SerialEngine, r"instructions ALTIVEC, not [A-Z0-9]+"),
        ({"device": "NVIDIA A100"}, OnGpu, "device NVIDIA A100, not NVIDIA H200"),
        # As files name a GPU that do not tell its model.
        ({"device": "cuda"}, OnGpu, "device cuda, not NVIDIA H200"),
    ],
)
def test_a_run_does_not_go_on_with_other_numerics_than_its_checkpoint_tells(
    tmp_path: Path, begun_with: dict[str, Any], engine: MakeEngine, differing: str
) -> None:
    folder = RunFolder(path=tmp_path)
    killed(folder, after=2, checkpoint_every=1)
    file = tmp_path / "checkpoint"
    with safe_open(file, framework="numpy") as stored:
        said = json.loads(stored.metadata()["said"])
    versions = said["numerics"]["versions"] | begun_with.get("versions", {})
    said["numerics"] |= begun_with | {"versions": versions}
    save_file(load_file(file), file, metadata={"said": json.dumps(said)})
    before = file.read_bytes()
    with pytest.raises(ValueError, match=f"begun with {differing}, "):
        run(a_run(), a_workload, folder, engine=engine)
    assert file.read_bytes() == before


def test_a_run_does_not_go_on_from_what_another_version_wrote(tmp_path: Path) -> None:
    folder = RunFolder(path=tmp_path)
    killed(folder, after=2, checkpoint_every=1)
    file = tmp_path / "checkpoint"
    save_file(load_file(file), file, metadata={"said": json.dumps({"optimizer_step": 2})})
    before = file.read_bytes()
    with pytest.raises(ValueError, match="another version"):
        run(a_run(), a_workload, folder)
    assert file.read_bytes() == before
    file.unlink()
    run(a_run(), a_workload, folder)


def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        finished(tmp_path)
    lock.release()
    assert finished(tmp_path).is_finished


def test_a_mask_that_stays_is_still_there_after_a_kill(tmp_path: Path) -> None:
    settings = a_run('method={"name": "sparse_adapter", "density": 0.3}')
    whole = finished(tmp_path / "whole", settings)
    folder = RunFolder(path=tmp_path / "killed")
    killed(folder, settings, after=4, checkpoint_every=3)
    run(settings, a_workload, folder)
    assert bytes_of(folder) == bytes_of(whole)
