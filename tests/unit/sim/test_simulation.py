"""Runs: the same by the same seed, and told of in full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from client_sdk import TrainingFailed
from client_sdk.peft_trainer import Batch, PeftTrainer, adapter_weights
from flasc_core.layout import Role
from flasc_sim.engine import SerialEngine
from flasc_sim.records import EvaluationRecord, RoundRecord, read_records
from flasc_sim.run_folder import RunFolder, run
from flasc_sim.simulation import Simulation
from flasc_sim.workload import Workload
from tests.support.tiny_model import Examples, a_base_model
from tests.support.tiny_runs import bytes_of, finished
from tests.support.tiny_workload import a_run, a_workload

FLASC: dict[str, object] = {"name": "flasc"}


def test_equal_settings_give_equal_bytes(tmp_path: Path) -> None:
    assert bytes_of(finished(tmp_path / "a")) == bytes_of(finished(tmp_path / "b"))


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    one, other = finished(tmp_path / "a").result(), finished(tmp_path / "b", a_run("seed=4"))
    assert one["weights_sha256"] != other.result()["weights_sha256"]


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
