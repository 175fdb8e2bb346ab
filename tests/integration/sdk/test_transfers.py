"""Broken links: the same bytes again, from where they broke, and never for ever."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from client_sdk import (
    CallLimits,
    ConnectionFailed,
    Event,
    Participant,
    ProtocolError,
    RetryPolicy,
    ServiceBusy,
    StepOutcome,
    TransferDamaged,
)
from client_sdk.events import Downloaded, Retrying, Uploaded
from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.integration.sdk.conftest import LAYOUT, Time
from tests.support.patience import PATIENCE_SECONDS
from tests.support.scripted_service import Fault, Peer, a_task_spec
from tests.support.vector_trainer import VectorTrainer

Join = Callable[..., Participant]
RETRIED = [
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.INTERNAL,
]
NEVER_RETRIED = [
    code for code in grpc.StatusCode if code not in RETRIED and code is not grpc.StatusCode.OK
]
TWO_ATTEMPTS = RetryPolicy(
    max_attempts=2, first_delay_seconds=1.0, max_delay_seconds=1.0, total_seconds=60.0
)


@pytest.mark.parametrize("code", RETRIED)
def test_a_lost_acknowledgement_is_answered_by_the_same_bytes(
    peer: Peer, join: Join, trainer: VectorTrainer, events: list[Event], code: grpc.StatusCode
) -> None:
    peer.faults["SubmitUpdate"].append(Fault(code=code, after_effect=True))
    with join() as participant:
        participant.step()
        summary = participant.summary

    assert peer.payloads[0] == peer.payloads[1]
    assert trainer.trained == 1
    assert len(peer.accepted) == 1
    assert summary.updates_accepted == 1
    assert summary.payload_bytes_sent == len(peer.payloads[0])
    assert [event.duplicate for event in events if isinstance(event, Uploaded)] == [True]


@pytest.mark.parametrize("code", NEVER_RETRIED)
def test_other_failures_are_not_repeated_and_keep_the_update(
    peer: Peer, join: Join, trainer: VectorTrainer, code: grpc.StatusCode
) -> None:
    peer.faults["SubmitUpdate"].append(Fault(code=code))
    with join() as participant:
        with pytest.raises(Exception, match="scripted"):
            participant.step()
        assert peer.calls.count("SubmitUpdate") == 1
        assert participant.step().outcome is StepOutcome.UPDATED

    assert trainer.trained == 1


def test_an_internal_error_with_a_reason_is_not_repeated(peer: Peer, join: Join) -> None:
    told = Refusal(Reason.STORAGE, "broken")
    peer.faults["CheckIn"].append(Fault(code=grpc.StatusCode.INTERNAL, refusal=told))
    with join() as participant, pytest.raises(ServiceBusy):
        participant.step()

    assert peer.calls == ["CheckIn"]


def test_an_overloaded_service_is_left_alone_for_as_long_as_it_asks(
    peer: Peer, join: Join, time: Time
) -> None:
    busy = Refusal(Reason.OVERLOADED, "later", retry_after=timedelta(seconds=17))
    peer.faults["CheckIn"].append(Fault(code=grpc.StatusCode.RESOURCE_EXHAUSTED, refusal=busy))
    with join() as participant:
        assert participant.step().outcome is StepOutcome.UPDATED

    assert 17.0 <= time.slept[0] <= 17.5


def test_a_service_that_is_overloaded_without_saying_when_is_not_asked_again(
    peer: Peer, join: Join
) -> None:
    busy = Refusal(Reason.OVERLOADED, "no idea")
    peer.faults["CheckIn"].append(Fault(code=grpc.StatusCode.RESOURCE_EXHAUSTED, refusal=busy))
    with join() as participant, pytest.raises(ServiceBusy):
        participant.step()

    assert peer.calls == ["CheckIn"]


def test_attempts_are_bounded_and_the_update_survives_them(
    peer: Peer, join: Join, trainer: VectorTrainer
) -> None:
    peer.faults["SubmitUpdate"].append(Fault())
    peer.faults["StreamUpdate"].append(Fault())
    with join(call_retries=TWO_ATTEMPTS) as participant, pytest.raises(ConnectionFailed):
        participant.step()
    assert peer.calls[-3:] == ["SubmitUpdate", "QueryUpload", "StreamUpdate"]
    with join() as participant:
        participant.step()

    assert trainer.trained == 1
    assert len(peer.accepted) == 1


def test_run_outlasts_a_service_that_is_away_for_longer_than_one_call_retries(
    peer: Peer, join: Join, trainer: VectorTrainer
) -> None:
    peer.faults["CheckIn"].extend([Fault()] * 7)
    with join(call_retries=TWO_ATTEMPTS) as participant:
        assert participant.run().finished

    assert trainer.trained == 1


def test_run_gives_up_on_a_service_that_never_comes_back(peer: Peer, join: Join) -> None:
    peer.faults["CheckIn"].extend([Fault()] * 99)
    with (
        join(call_retries=TWO_ATTEMPTS, session_retries=TWO_ATTEMPTS) as participant,
        pytest.raises(ConnectionFailed),
    ):
        participant.run()

    assert len(peer.calls) == 4


def test_nobody_listening_is_a_failed_connection(join: Join) -> None:
    with (
        join(address="localhost:1", call_retries=TWO_ATTEMPTS) as participant,
        pytest.raises(ConnectionFailed),
    ):
        participant.step()


# -- downloads


def test_a_broken_download_resumes_where_it_broke(
    peer: Peer, join: Join, events: list[Event]
) -> None:
    peer.faults["DownloadAdapter"].extend([Fault(after_bytes=128), Fault(after_bytes=64)])
    with join() as participant:
        participant.step()
        received = participant.summary.payload_bytes_received

    assert peer.offsets == [0, 128, 192]
    assert received == len(peer.download)
    assert len(peer.accepted) == 1


def test_a_download_that_brings_something_each_time_is_not_given_up(peer: Peer, join: Join) -> None:
    breaks = len(peer.download) // 64
    assert breaks > TWO_ATTEMPTS.max_attempts
    peer.faults["DownloadAdapter"].extend([Fault(after_bytes=64)] * breaks)
    with join(call_retries=TWO_ATTEMPTS) as participant:
        participant.step()

    assert peer.offsets == [64 * n for n in range(breaks + 1)]


def test_a_download_that_brings_nothing_is_given_up(
    peer: Peer, join: Join, trainer: VectorTrainer
) -> None:
    peer.faults["DownloadAdapter"].extend([Fault()] * 2)
    with join(call_retries=TWO_ATTEMPTS) as participant, pytest.raises(ConnectionFailed):
        participant.step()

    assert trainer.trained == 0
    assert peer.outcomes == []


def test_a_download_resumes_after_a_restart(peer: Peer, join: Join) -> None:
    peer.faults["DownloadAdapter"].extend([Fault(after_bytes=128), Fault(), Fault()])
    with join(call_retries=TWO_ATTEMPTS) as participant, pytest.raises(ConnectionFailed):
        participant.step()
    with join() as participant:
        participant.step()

    assert peer.offsets == [0, 128, 128, 128]


def test_a_download_that_ends_early_is_resumed(peer: Peer, join: Join, tmp_path: Path) -> None:
    whole = peer.download
    peer.download = whole[:100]

    def mend(event: Event) -> None:
        if isinstance(event, Retrying):
            peer.download = whole

    peer.announced_size_bytes = len(whole)
    with join(on_event=mend) as participant:
        assert participant.step().outcome is StepOutcome.UPDATED


def test_a_download_with_another_digest_is_fetched_once_more_and_then_refused(
    peer: Peer, join: Join, trainer: VectorTrainer, tmp_path: Path
) -> None:
    peer.announced_sha256 = b"\x02" * 32
    with join() as participant:
        assert participant.step().outcome is StepOutcome.FAILED

    assert [outcome.outcome for outcome in peer.outcomes] == [pb.OUTCOME_FAILED]
    assert peer.offsets == [0, 0]
    assert trainer.trained == 0
    assert trainer.evaluated == []
    assert list((tmp_path / "state").glob("download-*")) == []


def test_a_download_that_is_always_damaged_ends_the_run(peer: Peer, join: Join) -> None:
    peer.announced_sha256 = b"\x02" * 32
    with join() as participant, pytest.raises(TransferDamaged):
        participant.run()

    assert len(peer.offsets) == 6
    assert len(peer.outcomes) == 3


def test_a_part_that_was_damaged_on_disk_is_fetched_again(
    peer: Peer, join: Join, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    part = folder / f"download-{peer.announced_sha256.hex()}"
    part.write_bytes(b"\xff" * len(peer.download))
    with join() as participant:
        participant.step()

    assert peer.offsets == [0]
    assert len(peer.accepted) == 1


def test_a_download_too_large_for_the_layout_is_not_started(
    peer: Peer, join: Join, trainer: VectorTrainer
) -> None:
    peer.announced_size_bytes = 1 << 30
    with join() as participant, pytest.raises(ProtocolError):
        participant.step()

    assert "DownloadAdapter" not in peer.calls


# -- uploads


@pytest.mark.parametrize(("spare", "call"), [(0, "SubmitUpdate"), (-1, "StreamUpdate")])
def test_payloads_beyond_the_limit_are_streamed(
    peer: Peer, join: Join, spare: int, call: str
) -> None:
    size = _payload_size(peer, join)
    peer.task_spec = a_task_spec(LAYOUT, max_unary_payload_bytes=size + spare)
    peer.rounds, peer.calls = 2, []
    with join(trainer=VectorTrainer(LAYOUT)) as participant:
        participant.step()

    assert [name for name in peer.calls if name.endswith("Update")] == [call]
    assert peer.payloads[0] == peer.payloads[1]


def test_a_service_that_does_not_tell_that_an_upload_is_open_gets_it_all_the_same(
    peer: Peer, join: Join
) -> None:
    peer.task_spec = a_task_spec(LAYOUT, max_unary_payload_bytes=1)
    peer.tells_open_uploads = False
    limits = CallLimits(call_seconds=PATIENCE_SECONDS, opening_seconds=0.05)
    with join(call_limits=limits) as participant:
        assert participant.step().outcome is StepOutcome.UPDATED
    assert peer.calls.count("StreamUpdate") == 1


def test_a_stream_with_a_lost_acknowledgement_is_repeated_byte_for_byte(
    peer: Peer, join: Join, trainer: VectorTrainer
) -> None:
    peer.task_spec = a_task_spec(LAYOUT, max_unary_payload_bytes=1)
    peer.faults["StreamUpdate"].append(Fault(after_effect=True))
    with join() as participant:
        participant.step()

    assert peer.payloads[0] == peer.payloads[1]
    assert trainer.trained == 1
    assert len(peer.accepted) == 1


def test_an_early_end_of_the_upload_stream_is_repeated(peer: Peer, join: Join) -> None:
    peer.task_spec = a_task_spec(LAYOUT, max_unary_payload_bytes=1)
    peer.faults["StreamUpdate"].append(Fault(code=grpc.StatusCode.INTERNAL))
    with join() as participant:
        assert participant.step().outcome is StepOutcome.UPDATED


def _payload_size(peer: Peer, join: Join) -> int:
    with join() as participant:
        participant.step()
    return len(peer.payloads[0])


def test_downloaded_says_what_crossed_the_network(
    peer: Peer, join: Join, events: list[Event]
) -> None:
    peer.faults["SubmitUpdate"].append(
        Fault(
            code=grpc.StatusCode.FAILED_PRECONDITION,
            refusal=Refusal(Reason.ROUND_CLOSED, "too late"),
        )
    )
    with join() as participant:
        participant.step()
        participant.step()

    crossed = [event.payload_bytes for event in events if isinstance(event, Downloaded)]
    assert crossed == [len(peer.download), 0]
