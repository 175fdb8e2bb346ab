"""Stopping: soon, wherever the device is, and nothing that it has is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from client_sdk import CallLimits, Event, Participant, StepOutcome
from client_sdk.events import Retrying, TrainingProgressed, Waiting
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.support.patience import PATIENCE_SECONDS
from tests.support.scripted_service import Fault, Peer, a_task_spec, a_window
from tests.support.vector_trainer import VectorTrainer, a_layout

Join = Callable[..., Participant]


@pytest.fixture
def ended() -> Iterator[threading.Event]:
    """Until when a service that was asked to stop the device answers nothing."""
    event = threading.Event()
    yield event
    event.set()


def test_stopping_during_training_gives_the_assignment_up(
    peer: Peer, join: Join, trainer: VectorTrainer
) -> None:
    def stop_at_second_step(event: Event) -> None:
        if event == TrainingProgressed(step=2, total=3):
            participant.stop()

    with join(on_event=stop_at_second_step) as participant:
        summary = participant.run()

    assert not summary.finished
    assert [outcome.outcome for outcome in peer.outcomes] == [pb.OUTCOME_GAVE_UP]
    assert peer.payloads == []


def test_a_device_leaves_though_nobody_answers(
    peer: Peer, join: Join, ended: threading.Event
) -> None:
    answers: list[bool] = []

    def stop(event: Event) -> None:
        if isinstance(event, TrainingProgressed):
            participant.stop()

    peer.faults["ReportOutcome"].append(
        Fault(first=lambda: answers.append(ended.wait(PATIENCE_SECONDS)))
    )
    limits = CallLimits(call_seconds=PATIENCE_SECONDS, leaving_seconds=0.1)
    with join(on_event=stop, call_limits=limits) as participant:
        assert participant.step().outcome is StepOutcome.STOPPED
    assert peer.payloads == []
    assert answers == []


def test_stopping_while_an_update_waits_for_its_receipt_keeps_it(
    peer: Peer, join: Join, trainer: VectorTrainer
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Retrying):
            participant.stop()

    peer.faults["SubmitUpdate"].append(Fault())
    with join(on_event=stop) as participant:
        assert participant.step().outcome is StepOutcome.STOPPED
    with join() as participant:
        assert participant.step().outcome is StepOutcome.UPDATED

    assert peer.outcomes == []
    assert trainer.trained == 1


def test_stop_wakes_a_participant_that_sleeps(peer: Peer, join: Join) -> None:
    peer.check_in_answers.append(pb.CheckInResponse(retry_window=a_window(3600.0, 3600.0)))

    def stop(event: Event) -> None:
        if isinstance(event, Waiting):
            participant.stop()

    with join(on_event=stop, sleep=None) as participant:
        assert not participant.run().finished


@pytest.mark.parametrize(
    ("call", "after_bytes"),
    [
        ("CheckIn", 0),
        ("DownloadAdapter", 0),
        ("DownloadAdapter", 64),
        ("SubmitUpdate", 0),
        ("StreamUpdate", 0),
        ("StreamUpdate", 1),
    ],
)
def test_stop_ends_a_call_that_is_under_way(
    peer: Peer,
    join: Join,
    trainer: VectorTrainer,
    events: list[Event],
    ended: threading.Event,
    call: str,
    after_bytes: int,
) -> None:
    def stop_and_never_answer() -> None:
        participant.stop()
        ended.wait(PATIENCE_SECONDS)

    if call == "StreamUpdate":
        peer.task_spec = a_task_spec(a_layout(), max_unary_payload_bytes=10)
    peer.faults[call].append(Fault(first=stop_and_never_answer, after_bytes=after_bytes))
    with join() as participant:
        assert participant.step().outcome is StepOutcome.STOPPED
        ended.set()
    # The call did not run into its deadline.
    assert not [event for event in events if isinstance(event, Retrying)]
    assert peer.calls.count(call) == 1
    # What was trained and not handed in stays, for the next time.
    with join() as participant:
        assert participant.step().outcome is StepOutcome.UPDATED
    assert trainer.trained == 1


def test_a_download_that_is_stopped_keeps_and_counts_what_arrives(peer: Peer, join: Join) -> None:
    # However slow the machine is, the message arrives before the device looks again.
    patient = CallLimits(look_seconds=PATIENCE_SECONDS)
    with join(call_limits=patient) as participant:
        peer.on_chunk = participant.stop
        assert participant.step().outcome is StepOutcome.STOPPED
        received = participant.summary.payload_bytes_received
    peer.on_chunk = lambda: None
    with join() as participant:
        participant.step()
        assert participant.summary.payload_bytes_received == len(peer.download)

    # The message that came although the device was to stop.
    assert received == 64
    assert peer.offsets == [0, received]
