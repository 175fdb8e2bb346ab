"""The demo's figures: what they are computed from, and that every promised one is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flasc_cli.demo.forwarder import SocketBytes
from flasc_cli.demo.report import DenseRun, DeviceBytes, Report, make_dense_run, make_report
from flasc_cli.demo.settings import DemoSettings

SETTINGS = DemoSettings(
    rounds=3,
    devices=2,
    rank=4,
    dataset="mine",
    data="/somewhere/of/mine.parquet",
    model="minilm",
    dtype="float32",
    download_density=0.25,
    upload_density=0.25,
    encoding="int6",
    base="initial",
    max_steps=1,
    held_out=5,
    seed=0,
)
TASK = {"dimension": 1_000, "config": {"base_model": {"sha256": "ab" * 32}}}


def a_round(number: int, state: str, correct: int | None, seconds: float = 1.0) -> dict[str, Any]:
    evaluation = None if correct is None else {"accuracy": correct / 10, "total": 10}
    return {
        "number": number,
        "state": state,
        "evaluation": evaluation,
        "collecting_seconds": seconds,
        "publishing_seconds": 0.5,
    }


def a_report(dense: DenseRun | None = None) -> Report:
    pytest.importorskip("torch")
    summary = {"payload_bytes_sent": 90, "payload_bytes_received": 180}
    devices = [
        DeviceBytes.of(f"device-{index}", SocketBytes(sent=1_000, received=3_000), summary)
        for index in range(2)
    ]
    rounds = [
        a_round(1, "PUBLISHED", 1, seconds=60.0),
        a_round(2, "ABORTED", 2),
        a_round(3, "PUBLISHED", 4, seconds=2.0),
        a_round(4, "PUBLISHED", 5, seconds=3.0),
        a_round(5, "EVALUATED", 8),
    ]
    return make_report(
        SETTINGS,
        task=TASK,
        rounds=rounds,
        devices=devices,
        adapter_sha256="cd" * 32,
        dense=dense,
    )


def test_accuracy_goes_from_the_first_round_that_scored_to_the_last_evaluation() -> None:
    report = a_report()
    assert (report.accuracy_before, report.accuracy_after) == (0.1, 0.8)
    assert report.accuracy_per_round == [0.1, 0.2, 0.4, 0.5, 0.8]


def test_rounds_are_those_that_published_and_their_time_is_the_median() -> None:
    report = a_report()
    assert report.rounds == 3
    assert report.seconds_of_rounds == [60.5, 2.5, 3.5]
    assert report.seconds_per_round == 3.5


def test_dense_bytes_are_four_per_value_for_each_download_and_upload() -> None:
    report = a_report()
    # Three rounds both ways, and one more download for the evaluation.
    assert report.dense_fp32_bytes_per_device == 4 * 1_000 * 7
    assert report.saving_factor == 2 * 28_000 / (2 * 4_000)


def test_the_summary_file_has_every_promised_figure_and_no_path(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    a_report().write(path)
    summary = json.loads(path.read_text())
    assert summary.keys() >= {
        *("accuracy_before", "accuracy_after", "rounds", "seconds_per_round", "devices"),
        *("dense_fp32_bytes_per_device", "saving_factor", "adapter_sha256", "settings"),
    }
    assert summary["devices"][1] == {
        "device_id": "device-1",
        "socket_bytes_sent": 1_000,
        "socket_bytes_received": 3_000,
        "payload_bytes_sent": 90,
        "payload_bytes_received": 180,
    }
    assert summary["settings"]["data"] == "mine.parquet"
    assert "/somewhere" not in path.read_text()


@pytest.mark.parametrize(
    ("correct", "told"), [(9, "costs 10.0 points"), (8, "is 0.0 points ahead"), (6, "is 20.0")]
)
def test_a_dense_run_tells_what_sparse_sending_costs_and_saves(
    capsys: pytest.CaptureFixture[str], correct: int, told: str
) -> None:
    rounds = [
        a_round(1, "PUBLISHED", 1),
        a_round(2, "ABORTED", 2),
        a_round(3, "EVALUATED", correct),
    ]
    dense = make_dense_run(rounds, [SocketBytes(sent=30_000, received=50_000)] * 2)
    assert dense.socket_bytes == 160_000
    assert dense.seconds_of_rounds == [1.5]
    assert dense.accuracy_per_round == [0.1, 0.2, correct / 10]
    report = a_report(dense)
    report.print(Console(width=100))
    printed = capsys.readouterr().out
    assert told in printed
    assert "20.0 times as much" in printed


def test_without_a_dense_run_nothing_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    a_report().print(Console(width=100))
    assert "times as much" not in capsys.readouterr().out
