"""Runs: the same by the same seed, stopped anywhere or not, and told of in full."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from client_sdk import TrainingFailed
from client_sdk.file_lock import FileLock
from client_sdk.peft_trainer import Batch, PeftTrainer, adapter_weights
from flasc_core.layout import Role
from flasc_sim.engine import MakeEngine, SerialEngine
from flasc_sim.records import EvaluationRecord, RoundRecord, read_records
from flasc_sim.run_folder import RunFolder, run
from flasc_sim.settings import RunSettings
from flasc_sim.simulation import Simulation
from flasc_sim.workload import AdapterShape, Workload
from tests.support.tiny_model import Examples, a_base_model, a_peft_model
from tests.support.tiny_workload import a_run, a_workload

# What is the same wherever and however often a run is taken up.
RESULTS = (
    "settings.json",
    "rounds.parquet",
    "evaluations.parquet",
    "weights.safetensors",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "result.json",
)


FLASC: dict[str, object] = {"name": "flasc"}


class Killed(Exception):
    pass


def bytes_of(folder: RunFolder) -> dict[str, bytes]:
    return {name: (folder.path / name).read_bytes() for name in RESULTS}


def finished(folder: Path, settings: RunSettings | None = None) -> RunFolder:
    made = RunFolder(path=folder)
    run(settings or a_run(), a_workload, made)
    return made


def killed(folder: RunFolder, *, after: int, checkpoint_every: int) -> None:
    def die(simulation: Simulation) -> None:
        if simulation.rounds_done == after:
            raise Killed

    with pytest.raises(Killed):
        run(a_run(), a_workload, folder, checkpoint_every=checkpoint_every, on_round=die)


def test_equal_settings_give_equal_bytes(tmp_path: Path) -> None:
    assert bytes_of(finished(tmp_path / "a")) == bytes_of(finished(tmp_path / "b"))


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    one, other = finished(tmp_path / "a").result(), finished(tmp_path / "b", a_run("seed=4"))
    assert one["weights_sha256"] != other.result()["weights_sha256"]


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


def test_a_run_goes_on_from_its_last_checkpoint_and_not_from_the_start(tmp_path: Path) -> None:
    folder = RunFolder(path=tmp_path)
    killed(folder, after=5, checkpoint_every=2)
    rounds: list[int] = []
    run(a_run(), a_workload, folder, on_round=lambda now: rounds.append(now.rounds_done))
    assert rounds == [5, 6]


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    result = finished(tmp_path).result()

    def never() -> None:
        raise AssertionError("there is nothing left to load for")

    assert run(a_run(), never, RunFolder(path=tmp_path)) == result  # type: ignore[arg-type]


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
    device = "cuda"


@pytest.mark.parametrize(
    ("threads", "engine", "differing"),
    [(2, SerialEngine, "threads 1, not 2"), (1, OnGpu, "device cpu, not cuda")],
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


def test_a_run_does_not_go_on_with_other_libraries(tmp_path: Path) -> None:
    folder = RunFolder(path=tmp_path)
    killed(folder, after=2, checkpoint_every=1)
    file = tmp_path / "checkpoint"
    with safe_open(file, framework="numpy") as stored:
        said = json.loads(stored.metadata()["said"])
    said["numerics"]["versions"]["numpy"] = "0.1"
    save_file(load_file(file), file, metadata={"said": json.dumps(said)})
    with pytest.raises(ValueError, match=r"begun with numpy 0\.1, not [0-9.]+, "):
        run(a_run(), a_workload, folder)


def test_a_run_tells_what_its_bits_depend_on(tmp_path: Path) -> None:
    machine = json.loads((finished(tmp_path).path / "machine.json").read_bytes())
    assert (machine["device"], machine["threads"]) == ("cpu", 1)
    assert machine["versions"]["torch"] == torch.__version__


def test_processor_time_elsewhere_is_the_run_s_too(tmp_path: Path) -> None:
    class Elsewhere(SerialEngine):
        cpu_seconds = 1000.0

    folder = RunFolder(path=tmp_path)
    run(a_run(), a_workload, folder, engine=Elsewhere)
    assert folder.cpu_seconds() >= 1000


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


def test_a_target_that_would_end_a_service_s_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="target_accuracy"):
        finished(tmp_path, a_run("ending.target_accuracy=0.9"))


def test_what_fails_at_the_evaluation_failed_in_the_round_before_it(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        own: Tensor = model(**batch).loss
        return own * torch.nan if torch.is_inference_mode_enabled() else own

    folder = RunFolder(path=tmp_path)
    with pytest.raises(TrainingFailed, match="round 3: "):
        run(a_run(), lambda: a_workload(loss=loss), folder)
    assert folder.failure is not None
    assert folder.failure.round == 3


def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        finished(tmp_path)
    lock.release()
    assert finished(tmp_path).is_finished


def test_records_add_up_to_the_result(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    rounds = read_records(tmp_path / "rounds.parquet", RoundRecord)
    scores = read_records(tmp_path / "evaluations.parquet", EvaluationRecord)
    result = folder.result()
    assert [record.round for record in rounds] == [1, 2, 3, 4, 5, 6]
    assert all(record.devices == 3 and record.examples == 30 for record in rounds)
    assert result["payload_bytes_up"] == sum(record.payload_bytes_up for record in rounds)
    assert [score.round for score in scores] == [3, 4, 6]
    assert all(score.total == 30 for score in scores)
    assert result["tiers"][""]["accuracies"] == [scores[1].accuracy, scores[2].accuracy]
    assert result["accuracy"] == pytest.approx(sum(result["tiers"][""]["accuracies"]) / 2)
    assert result["workload"] == {"name": "tiny", "model": "tiny"}
    assert result["clients"] == 6


def test_the_exported_adapter_scores_what_the_run_reports(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    loaded = PeftModel.from_pretrained(a_base_model(), tmp_path / "adapter", is_trainable=True)
    score = PeftTrainer(loaded, Examples(), Examples(30, seed=7)).evaluate(adapter_weights(loaded))
    assert score is not None
    assert score.correct / score.total == folder.result()["tiers"][""]["accuracies"][-1]


def test_settings_can_be_compared_on_validation_rows(tmp_path: Path) -> None:
    finished(tmp_path, a_run("evaluation.on=validation"))
    scores = read_records(tmp_path / "evaluations.parquet", EvaluationRecord)
    assert {score.total for score in scores} == {20}
    assert json.loads((tmp_path / "result.json").read_text())["evaluated_on"] == "validation"


def test_clients_have_tiers_in_turn_and_each_is_counted_and_scored_alone(tmp_path: Path) -> None:
    tiers = [
        {"name": "small", "method": FLASC | {"download_density": 0.1, "upload_density": 0.1}},
        {"name": "large", "method": FLASC | {"download_density": 1.0, "upload_density": 1.0}},
    ]
    folder = finished(tmp_path, a_run(f"tiers={json.dumps(tiers)}", "policy.goal=6"))
    result = folder.result()
    small, large = result["tiers"]["small"], result["tiers"]["large"]
    assert small["devices"] == large["devices"] == 18
    assert small["payload_bytes_up"] < large["payload_bytes_up"]
    assert small["payload_bytes_down"] < large["payload_bytes_down"]
    in_all = small["payload_bytes_down"] + large["payload_bytes_down"]
    assert result["payload_bytes_down"] == in_all
    assert result["accuracy"] == pytest.approx((small["accuracy"] + large["accuracy"]) / 2)
    scores = read_records(tmp_path / "evaluations.parquet", EvaluationRecord)
    assert [(score.round, score.tier) for score in scores[:2]] == [(3, "small"), (3, "large")]
    dense = layout_shares()
    assert large["shares_down"] == pytest.approx(dense)
    assert small["shares_down"] != pytest.approx(dense)


def layout_shares() -> dict[str, float]:
    layout = Simulation(a_run(), a_workload()).config.layout
    return {role.lower(): layout.size_of([role]) / layout.dim for role in Role}


def test_a_mask_that_stays_is_still_there_after_a_kill(tmp_path: Path) -> None:
    settings = a_run('method={"name": "sparse_adapter", "density": 0.3}')
    whole = finished(tmp_path / "whole", settings)
    folder = RunFolder(path=tmp_path / "killed")

    def die(simulation: Simulation) -> None:
        if simulation.rounds_done == 4:
            raise Killed

    with pytest.raises(Killed):
        run(settings, a_workload, folder, checkpoint_every=3, on_round=die)
    run(settings, a_workload, folder)
    assert bytes_of(folder) == bytes_of(whole)


def test_a_cohort_larger_than_the_clients_is_refused() -> None:
    with pytest.raises(ValueError, match=r"policy\.goal is 7, and there are 6 clients"):
        Simulation(a_run("policy.goal=7"), a_workload())


def test_training_that_diverges_ends_the_run_for_good(tmp_path: Path) -> None:
    diverging = a_run("training.learning_rate=1e5", "training.local_epochs=9")
    with pytest.raises(TrainingFailed, match=r"^round 1: .*diverge"):
        finished(tmp_path, diverging)

    folder = RunFolder(path=tmp_path)
    assert not folder.is_finished
    assert folder.failure is not None
    assert folder.failure.round == 1
    with pytest.raises(TrainingFailed, match=r"^round 1: .*diverge"):
        run(diverging, not_called, folder)


def not_called() -> Workload:
    raise AssertionError("a run that failed is not begun again")


def test_training_improves_the_adapter(tmp_path: Path) -> None:
    longer = a_run("ending.rounds=30", "adapter.rank=8", "optimizer.learning_rate=0.1")
    folder = finished(tmp_path, longer)
    rounds = read_records(folder.path / "rounds.parquet", RoundRecord)
    assert rounds[-1].loss < 0.9 * rounds[0].loss


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
