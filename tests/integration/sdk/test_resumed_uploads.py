"""Uploads over broken links: asked for, gone on with, counted in every attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest

from client_sdk import ConnectionFailed, Event, Participant, ProtocolError, RetryPolicy, StepOutcome
from client_sdk._transfer import CHUNK_BYTES
from client_sdk.events import Refused, Retrying, Trained, Uploaded, UploadResumed
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import Role
from flasc_core.methods import KeepLargest, UploadRule
from tests.builders import nonzeros_of
from tests.support.scripted_service import Fault, Peer, a_task_spec
from tests.support.vector_trainer import VectorTrainer, a_layout

Join = Callable[..., Participant]

# All of it is sent, with 4 bytes each: three whole chunks and a part of one.
LAYOUT = a_layout(7_000)
TWO_ATTEMPTS = RetryPolicy(
    max_attempts=2, first_delay_seconds=1.0, max_delay_seconds=1.0, total_seconds=60.0
)


@pytest.fixture
def peer() -> Iterator[Peer]:
    rule = UploadRule(groups=(KeepLargest(roles=frozenset(Role), count=LAYOUT.dim),))
    start = nonzeros_of(np.ones(LAYOUT.dim, dtype=np.float32))
    spec = a_task_spec(LAYOUT, max_unary_payload_bytes=1 << 20)
    with Peer(LAYOUT, start, rule, task_spec=spec, chunk_bytes=1 << 20) as running:
        yield running


@pytest.fixture
def trainer() -> VectorTrainer:
    return VectorTrainer(LAYOUT)


def size_of(events: list[Event]) -> int:
    (trained,) = [event for event in events if isinstance(event, Trained)]
    return trained.payload_bytes


def resumed_at(events: list[Event]) -> list[int]:
    return [event.durable_bytes for event in events if isinstance(event, UploadResumed)]


def uploads(peer: Peer) -> list[str]:
    return [name for name in peer.calls if name in ("StreamUpdate", "SubmitUpdate", "QueryUpload")]


def test_a_first_attempt_asks_nothing(peer: Peer, join: Join, events: list[Event]) -> None:
    with join() as participant:
        assert participant.step().outcome is StepOutcome.UPDATED
        assert participant.summary.payload_bytes_sent == size_of(events)

    assert uploads(peer) == ["StreamUpdate"]
    assert (peer.starts, resumed_at(events)) == ([0], [])


def test_a_broken_upload_goes_on_where_it_broke(
    peer: Peer, join: Join, trainer: VectorTrainer, events: list[Event]
) -> None:
    breaks = [chunks * CHUNK_BYTES for chunks in (1, 3)]
    for after_bytes in breaks:
        peer.faults["StreamUpdate"].append(Fault(after_bytes=after_bytes))
    with join() as participant:
        assert participant.step().outcome is StepOutcome.UPDATED
        sent = participant.summary.payload_bytes_sent

    assert uploads(peer) == ["StreamUpdate", *["QueryUpload", "StreamUpdate"] * 2]
    assert peer.starts == [0, CHUNK_BYTES, 3 * CHUNK_BYTES]
    assert sum(peer.chunks) == len(peer.payloads[0]) == size_of(events)
    # What was under way as a call ended counts as sent: up to all that the peer had not read.
    lost = sum(size_of(events) - after_bytes for after_bytes in breaks)
    assert size_of(events) <= sent <= size_of(events) + lost
    assert resumed_at(events) == peer.starts[1:]
    assert trainer.trained == len(peer.accepted) == 1


def test_an_upload_that_leaves_something_each_time_is_not_given_up(peer: Peer, join: Join) -> None:
    breaks = [Fault(after_bytes=n * CHUNK_BYTES) for n in (1, 2, 3)]
    assert len(breaks) > TWO_ATTEMPTS.max_attempts
    peer.faults["StreamUpdate"].extend(breaks)
    with join(call_retries=TWO_ATTEMPTS) as participant:
        assert participant.step().outcome is StepOutcome.UPDATED

    assert peer.starts == [CHUNK_BYTES * n for n in range(4)]


def test_an_upload_that_leaves_nothing_more_is_given_up(peer: Peer, join: Join) -> None:
    # What the first attempt left is known at the second, which counts afresh.
    peer.faults["StreamUpdate"].extend([Fault(after_bytes=CHUNK_BYTES), *[Fault()] * 2])
    with join(call_retries=TWO_ATTEMPTS) as participant:
        with pytest.raises(ConnectionFailed):
            participant.step()
        assert peer.calls.count("StreamUpdate") == 3
        assert participant.step().outcome is StepOutcome.UPDATED

    assert peer.starts == [0, CHUNK_BYTES]


def test_an_upload_goes_on_after_a_restart(
    peer: Peer, join: Join, trainer: VectorTrainer, events: list[Event]
) -> None:
    peer.faults["StreamUpdate"].append(Fault(after_bytes=2 * CHUNK_BYTES))
    peer.faults["QueryUpload"].append(Fault())
    with join(call_retries=TWO_ATTEMPTS) as participant, pytest.raises(ConnectionFailed):
        participant.step()
    with join() as participant:
        assert participant.step().outcome is StepOutcome.UPDATED

    assert peer.starts == [0, 2 * CHUNK_BYTES]
    assert resumed_at(events) == [2 * CHUNK_BYTES]
    assert trainer.trained == len(peer.accepted) == 1


@pytest.mark.parametrize(("limit", "call"), [(1, "StreamUpdate"), (1 << 30, "SubmitUpdate")])
def test_an_update_whose_receipt_was_lost_is_not_sent_again(
    peer: Peer, join: Join, events: list[Event], limit: int, call: str
) -> None:
    peer.task_spec = a_task_spec(LAYOUT, max_unary_payload_bytes=limit)
    peer.faults[call].append(Fault(after_effect=True))
    with join() as participant:
        assert participant.step().outcome is StepOutcome.UPDATED
        assert participant.summary.payload_bytes_sent == size_of(events)

    assert uploads(peer) == [call, "QueryUpload", "StreamUpdate"]
    assert [event.duplicate for event in events if isinstance(event, Uploaded)] == [True]
    assert len(peer.accepted) == 1


def test_a_service_that_knows_no_such_question_gets_everything_again(
    peer: Peer, join: Join, events: list[Event]
) -> None:
    peer.faults["StreamUpdate"].append(Fault(after_bytes=2 * CHUNK_BYTES))
    peer.faults["QueryUpload"].append(Fault(code=grpc.StatusCode.UNIMPLEMENTED))
    with join() as participant:
        assert participant.step().outcome is StepOutcome.UPDATED

    assert peer.starts == [0, 0]
    assert resumed_at(events) == []


def test_a_part_that_is_gone_meanwhile_is_asked_for_again(peer: Peer, join: Join) -> None:
    peer.faults["StreamUpdate"].append(Fault(after_bytes=2 * CHUNK_BYTES))

    def lose(event: Event) -> None:
        if isinstance(event, UploadResumed) and len(peer.starts) == 1:
            peer.durable.clear()

    with join(on_event=lose) as participant:
        assert participant.step().outcome is StepOutcome.UPDATED

    assert peer.starts == [0, 2 * CHUNK_BYTES, 0]
    assert len(peer.accepted) == 1


def test_a_service_that_claims_more_than_there_is_is_not_believed(
    peer: Peer, join: Join, trainer: VectorTrainer
) -> None:
    peer.faults["StreamUpdate"].append(Fault(after_bytes=CHUNK_BYTES))

    def exaggerate(event: Event) -> None:
        if isinstance(event, Retrying):
            peer.durable.update({key: bytes(1 << 23) for key in peer.durable})

    with join(on_event=exaggerate) as participant:
        with pytest.raises(ProtocolError, match="more of the update"):
            participant.step()
        peer.durable.clear()
        # The update is kept.
        assert participant.step().outcome is StepOutcome.UPDATED
    assert trainer.trained == 1


@pytest.mark.parametrize("reason", [Reason.ROUND_CLOSED, Reason.ASSIGNMENT_EXPIRED])
def test_a_device_that_hears_at_its_question_that_it_is_too_late_sends_nothing(
    peer: Peer, join: Join, events: list[Event], reason: Reason
) -> None:
    peer.faults["StreamUpdate"].append(Fault(after_bytes=CHUNK_BYTES))
    told = Fault(code=grpc.StatusCode.FAILED_PRECONDITION, refusal=Refusal(reason, "too late"))
    peer.faults["QueryUpload"].append(told)
    with join() as participant:
        assert participant.step().outcome is StepOutcome.REFUSED
        assert participant.step().outcome is StepOutcome.UPDATED

    assert uploads(peer) == ["StreamUpdate", "QueryUpload", "StreamUpdate"]
    assert [event.reason for event in events if isinstance(event, Refused)] == [reason]


def test_bytes_of_every_attempt_are_counted(peer: Peer, join: Join, events: list[Event]) -> None:
    peer.task_spec = a_task_spec(LAYOUT, max_unary_payload_bytes=1 << 30)
    peer.faults["SubmitUpdate"].append(Fault())
    with join() as participant:
        participant.step()
        assert participant.summary.payload_bytes_sent == 2 * size_of(events)


def test_an_update_that_one_message_could_not_bring_is_streamed(peer: Peer, join: Join) -> None:
    peer.task_spec = a_task_spec(LAYOUT, max_unary_payload_bytes=1 << 30)
    peer.faults["SubmitUpdate"].append(Fault())
    peer.faults["StreamUpdate"].append(Fault(after_bytes=CHUNK_BYTES))
    with join() as participant:
        assert participant.step().outcome is StepOutcome.UPDATED

    assert uploads(peer) == [
        "SubmitUpdate",
        *["QueryUpload", "StreamUpdate"],
        *["QueryUpload", "StreamUpdate"],
    ]
    assert peer.starts == [0, CHUNK_BYTES]
