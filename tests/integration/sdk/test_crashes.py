"""A device process that is gone at an instant ends in one counted update or none, never two."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client_sdk import Participant, StepOutcome
from tests.support.crashing_device import EXIT_CODE
from tests.support.patience import PATIENCE_SECONDS
from tests.support.scripted_service import Fault, Peer, a_task_spec
from tests.support.vector_trainer import VectorTrainer, a_layout

Join = Callable[..., Participant]
ROOT = Path(__file__).parents[3]


def run_until_death(peer: Peer, state: Path, event: str) -> None:
    script = "tests.support.crashing_device"
    command = [sys.executable, "-m", script, peer.address, str(state), event]
    died = subprocess.run(command, cwd=ROOT, timeout=PATIENCE_SECONDS, check=False)
    assert died.returncode == EXIT_CODE


def test_death_before_the_update_exists_trains_the_same_assignment_again(
    peer: Peer, join: Join, trainer: VectorTrainer, tmp_path: Path
) -> None:
    run_until_death(peer, tmp_path / "state", "TrainingProgressed")
    assert peer.payloads == []
    with join() as participant:
        assert participant.run().updates_accepted == 1

    assert trainer.trained == 1
    assert len(peer.accepted) == 1
    # What had been downloaded is still there.
    assert peer.offsets == [0]


@pytest.mark.parametrize("max_unary_payload_bytes", [1 << 20, 1])
def test_death_between_training_and_upload_hands_in_what_was_trained(
    peer: Peer,
    join: Join,
    trainer: VectorTrainer,
    tmp_path: Path,
    max_unary_payload_bytes: int,
) -> None:
    peer.task_spec = a_task_spec(a_layout(), max_unary_payload_bytes=max_unary_payload_bytes)
    run_until_death(peer, tmp_path / "state", "Trained")
    assert peer.payloads == []
    with join() as participant:
        assert participant.step().outcome is StepOutcome.UPDATED
        summary = participant.summary

    assert trainer.trained == 0
    assert peer.calls.count("CheckIn") == 1
    assert peer.accepted == [bytes(16)]
    assert summary.updates_accepted == 1


def test_death_between_upload_and_acknowledgement_counts_once(
    peer: Peer, join: Join, trainer: VectorTrainer, tmp_path: Path
) -> None:
    peer.faults["SubmitUpdate"].append(Fault(after_effect=True))
    run_until_death(peer, tmp_path / "state", "Retrying")
    assert len(peer.accepted) == 1
    with join() as participant:
        summary = participant.run()

    assert trainer.trained == 0
    assert peer.payloads[0] == peer.payloads[1]
    assert len(peer.accepted) == 1
    assert summary.updates_accepted == 1
    assert summary.payload_bytes_sent == len(peer.payloads[0])


def test_death_after_the_receipt_leaves_nothing_to_do(
    peer: Peer, join: Join, trainer: VectorTrainer, tmp_path: Path
) -> None:
    run_until_death(peer, tmp_path / "state", "Uploaded")
    with join() as participant:
        summary = participant.run()

    assert trainer.trained == 0
    assert len(peer.payloads) == 1
    assert summary.finished
    assert summary.updates_accepted == 1


def test_a_round_that_closed_while_the_device_was_dead_costs_only_its_update(
    peer: Peer, join: Join, trainer: VectorTrainer, tmp_path: Path
) -> None:
    run_until_death(peer, tmp_path / "state", "Trained")
    peer.close_round()
    peer.rounds = 2
    with join() as participant:
        assert participant.step().outcome is StepOutcome.REFUSED
        assert participant.step().outcome is StepOutcome.UPDATED

    assert trainer.trained == 1
    assert peer.accepted == [(1).to_bytes(16, "big")]
