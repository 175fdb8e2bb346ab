"""The loop, over a real socket, when nothing and when something goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from client_sdk import (
    BaseModelMismatch,
    ConnectionFailed,
    Event,
    LayoutMismatch,
    NotAuthorized,
    Participant,
    ProtocolError,
    RetryPolicy,
    StateFolderError,
    StateFolderInUse,
    StepOutcome,
    TaskUnknown,
)
from client_sdk.events import (
    Waiting,
)
from flasc_core import wire
from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.sparse import SparseVector
from tests.support.scripted_service import Fault, Peer, a_task_spec, a_window
from tests.support.vector_trainer import VectorTrainer, a_layout

Join = Callable[..., Participant]


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_participant_takes_part_until_the_task_is_finished(
    peer: Peer, join: Join, trainer: VectorTrainer, events: list[Event], start: SparseVector
) -> None:
    peer.rounds = 2
    with join() as participant:
        summary = participant.run()

    assert summary.finished
    assert summary.updates_accepted == trainer.trained == len(peer.accepted) == 2
    assert summary.payload_bytes_sent == sum(map(len, peer.payloads))
    # The second round starts from the same bytes, which are still on disk.
    assert summary.payload_bytes_received == len(peer.download)
    one_round = [
        "CheckedIn",
        "Downloaded",
        "Evaluated",
        *["TrainingProgressed"] * 3,
        "Trained",
        "Uploaded",
        "Waiting",
    ]
    assert kinds(events) == one_round * 2 + ["Finished"]


def test_the_update_is_what_the_rule_keeps_of_the_trained_change(
    peer: Peer, join: Join, trainer: VectorTrainer, start: SparseVector
) -> None:
    with join() as participant:
        participant.step()

    limits = wire.DecodeLimits(dim=start.dim, max_nnz=start.dim, max_abs_value=64.0)
    sent = wire.decode(peer.payloads[0], limits)
    change = np.random.default_rng((7, 1)).standard_normal(start.dim).astype(np.float32)
    assert sent.nnz == 20
    assert set(sent.indices) == set(np.argsort(-np.abs(change))[:20])
    np.testing.assert_array_equal(sent.values, change[sent.indices])


def test_the_decoded_download_is_scored_before_it_is_trained(
    peer: Peer, join: Join, trainer: VectorTrainer, start: SparseVector
) -> None:
    with join() as participant:
        participant.step()

    np.testing.assert_array_equal(trainer.evaluated[0], start.to_dense())
    header = peer.headers[peer.accepted[0]]
    assert (header.evaluation.correct, header.evaluation.total) == (3, 4)
    assert header.training_metrics.examples == 20
    assert header.weight == 1


def test_the_weight_is_the_example_count_up_to_the_tasks_cap(peer: Peer, join: Join) -> None:
    peer.rounds = 2
    peer.task_spec = a_task_spec(a_layout(), max_weight=20)
    with join() as participant:
        participant.step()
        peer.task_spec = a_task_spec(a_layout(), max_weight=19)
        participant.step()

    assert [header.weight for header in peer.headers.values()] == [20, 19]


def test_the_specification_is_sent_once_and_named_afterwards(peer: Peer, join: Join) -> None:
    peer.rounds = 2
    for _ in range(2):
        with join() as participant:
            participant.step()

    assert peer.check_ins[0].known_task_sha256 == b""
    assert len(peer.check_ins[1].known_task_sha256) == 32
    assert len(peer.accepted) == 2


def test_check_in_names_the_model(peer: Peer, join: Join, trainer: VectorTrainer) -> None:
    with join() as participant:
        participant.step()

    request = peer.check_ins[0]
    assert request.layout_fingerprint == trainer.layout.fingerprint
    assert request.base_model_sha256 == trainer.base_model_sha256
    assert request.client_version.startswith("flasc-python/")


def test_another_adapter_is_refused_before_any_training(peer: Peer, join: Join) -> None:
    other = VectorTrainer(a_layout(scale=2))
    with join(trainer=other) as participant, pytest.raises(LayoutMismatch, match="lora_A"):
        participant.run()

    assert other.trained == 0
    assert other.evaluated == []
    assert "DownloadAdapter" not in peer.calls
    assert [outcome.outcome for outcome in peer.outcomes] == [pb.OUTCOME_FAILED]


def test_another_base_model_is_refused_before_any_training(peer: Peer, join: Join) -> None:
    other = VectorTrainer(base=b"another")
    with join(trainer=other) as participant, pytest.raises(BaseModelMismatch, match="tiny"):
        participant.run()

    assert other.trained == 0
    assert "DownloadAdapter" not in peer.calls


@pytest.mark.parametrize(
    ("reason", "code", "error"),
    [
        (Reason.LAYOUT_MISMATCH, grpc.StatusCode.FAILED_PRECONDITION, LayoutMismatch),
        (Reason.BASE_MODEL_MISMATCH, grpc.StatusCode.FAILED_PRECONDITION, BaseModelMismatch),
        (Reason.TASK_UNKNOWN, grpc.StatusCode.NOT_FOUND, TaskUnknown),
        (Reason.DEVICE_REVOKED, grpc.StatusCode.PERMISSION_DENIED, NotAuthorized),
    ],
)
def test_what_waiting_does_not_mend_escapes_with_the_services_message(
    peer: Peer,
    join: Join,
    reason: Reason,
    code: grpc.StatusCode,
    error: type[Exception],
) -> None:
    peer.faults["CheckIn"].append(Fault(code=code, refusal=Refusal(reason, "what to do next")))
    with join() as participant, pytest.raises(error, match="what to do next"):
        participant.run()

    assert peer.calls == ["CheckIn"]


def test_a_wrong_credential_keeps_the_pending_update(peer: Peer, join: Join) -> None:
    unauthenticated = Fault(
        code=grpc.StatusCode.UNAUTHENTICATED,
        refusal=Refusal(Reason.CREDENTIAL_INVALID, "enrol again"),
    )
    peer.faults["SubmitUpdate"].append(unauthenticated)
    with join() as participant, pytest.raises(NotAuthorized):
        participant.step()
    idle = VectorTrainer()
    with join(trainer=idle) as participant:
        participant.step()

    assert len(peer.accepted) == 1
    assert idle.trained == 0


def test_no_work_means_waiting_inside_the_window(
    peer: Peer, join: Join, events: list[Event]
) -> None:
    peer.check_in_answers.append(pb.CheckInResponse(retry_window=a_window(30.0, 40.0)))
    with join() as participant:
        result = participant.step()

    assert result.outcome is StepOutcome.NO_WORK
    assert 30.0 <= result.wait_seconds <= 40.0
    assert events == []


def test_after_a_receipt_the_window_is_honoured(
    peer: Peer, join: Join, time: object, events: list[Event]
) -> None:
    peer.window = (100.0, 110.0)
    with join() as participant:
        participant.run()

    waits = [event.seconds for event in events if isinstance(event, Waiting)]
    assert len(waits) == 1
    assert 100.0 <= waits[0] <= 110.0


def test_run_can_take_part_just_once(peer: Peer, join: Join) -> None:
    peer.rounds = 5
    peer.check_in_answers.append(pb.CheckInResponse(retry_window=a_window(1.0, 2.0)))
    with join() as participant:
        summary = participant.run(until_finished=False)

    assert summary.updates_accepted == 1
    assert not summary.finished


def test_an_evaluation_round_is_scored_and_never_trained(
    peer: Peer, join: Join, trainer: VectorTrainer, events: list[Event]
) -> None:
    peer.purpose = pb.PURPOSE_EVALUATE
    with join() as participant:
        summary = participant.run()

    (outcome,) = peer.outcomes
    assert outcome.outcome == pb.OUTCOME_EVALUATED
    assert outcome.evaluation == pb.Evaluation(correct=3, total=4, loss_sum=2.5)
    assert trainer.trained == 0
    assert peer.payloads == []
    assert summary.evaluations_reported == 1
    assert summary.payload_bytes_sent == 0
    assert kinds(events) == ["CheckedIn", "Downloaded", "Evaluated", "Waiting", "Finished"]


def test_a_device_without_held_out_examples_gives_an_evaluation_round_up(
    peer: Peer, join: Join
) -> None:
    peer.purpose = pb.PURPOSE_EVALUATE
    with join(trainer=VectorTrainer(holdout=False)) as participant:
        for _ in range(5):
            assert participant.step().outcome is StepOutcome.FAILED

    assert {outcome.outcome for outcome in peer.outcomes} == {pb.OUTCOME_GAVE_UP}


def test_a_purpose_that_is_unknown_here_is_left_alone(
    peer: Peer, join: Join, trainer: VectorTrainer
) -> None:
    peer.purpose = pb.PURPOSE_UNSPECIFIED
    with join() as participant, pytest.raises(ProtocolError):
        participant.step()

    assert trainer.trained == 0
    assert [outcome.outcome for outcome in peer.outcomes] == [pb.OUTCOME_FAILED]


def test_a_specification_with_another_digest_is_not_believed(
    peer: Peer, join: Join, trainer: VectorTrainer
) -> None:
    peer.named_task_sha256 = b"\x01" * 32
    with join() as participant, pytest.raises(ProtocolError, match="specification"):
        participant.step()

    assert trainer.trained == 0


@pytest.mark.parametrize("credential", ["", "fld_x\n", "fld x\t", "fld_ü"])
def test_a_credential_that_no_request_can_carry_is_refused_at_once(
    join: Join, credential: str
) -> None:
    with pytest.raises(ValueError, match="credential"):
        join(credential=credential)
    # The folder is free.
    join().close()


def test_a_window_of_no_time_does_not_make_a_device_ask_without_end(peer: Peer, join: Join) -> None:
    peer.check_in_answers.append(pb.CheckInResponse(retry_window=a_window(0.0, 0.0)))
    with join() as participant:
        assert participant.step().wait_seconds >= 1.0


# -- the folder


def test_two_participants_never_share_a_state_folder(peer: Peer, join: Join) -> None:
    with join(), pytest.raises(StateFolderInUse):
        join()
    with join() as participant:
        participant.step()

    assert len(peer.accepted) == 1


def test_a_state_folder_belongs_to_one_task(peer: Peer, join: Join) -> None:
    with join() as participant:
        participant.step()
    with pytest.raises(StateFolderError, match="sentiment"):
        join(task="another")


def test_totals_outlive_the_process(peer: Peer, join: Join) -> None:
    peer.rounds = 2
    for _ in range(2):
        with join() as participant:
            participant.step()
            summary = participant.summary

    assert summary.updates_accepted == 2
    assert summary.payload_bytes_sent == sum(map(len, peer.payloads))


def test_a_damaged_update_on_disk_is_dropped_and_trained_anew(
    peer: Peer, join: Join, trainer: VectorTrainer, tmp_path: Path
) -> None:
    peer.faults["SubmitUpdate"].append(Fault())
    with (
        join(call_retries=NO_RETRIES) as participant,
        pytest.raises(ConnectionFailed),
    ):
        participant.step()
    stored = tmp_path / "state" / "pending-update"
    damaged = bytearray(stored.read_bytes())
    damaged[-1] ^= 1
    stored.write_bytes(damaged)
    with join() as participant:
        participant.step()

    assert trainer.trained == 2
    assert len(peer.accepted) == 1


NO_RETRIES = RetryPolicy(
    max_attempts=1, first_delay_seconds=1.0, max_delay_seconds=1.0, total_seconds=1.0
)
