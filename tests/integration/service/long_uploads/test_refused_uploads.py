"""What is refused of a streamed upload, and what is kept of the pieces that came."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from aggregator_service.app.receive_upload import PIECE_BYTES
from aggregator_service.app.report_outcome import ReportOutcome
from aggregator_service.clock import utc_now
from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.tasks import Task
from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.support.device import SyntheticDevice, header_for, reason_of, stream_parts
from tests.support.live import LiveService
from tests.support.long_uploads import (
    OTHER,
    PAYLOAD,
    SIZE,
    a_task,
    check_accepted,
    kept,
    send_part,
    sent,
)
from tests.support.patience import until
from tests.support.refused import refused
from tests.support.seen import device_id_of, updates_of


def kept_bytes(live: LiveService) -> int:
    return sum(len(live.blobs.get(key)) for key in kept(live))


def test_only_the_payload_that_was_sent_last_is_kept(
    live: LiveService, task: Task, device: SyntheticDevice, given: pb.Assignment
) -> None:
    send_part(device, given, PAYLOAD, 2 * PIECE_BYTES)
    other = stream_parts(header_for(given, OTHER), OTHER[:PIECE_BYTES])
    refused(device.stream_bytes, "StreamUpdate", other)
    assert device.query_upload(given, PAYLOAD) == 0
    assert device.query_upload(given, OTHER) == PIECE_BYTES
    assert kept_bytes(live) == PIECE_BYTES
    assert not device.resume(given, OTHER, PIECE_BYTES).duplicate
    check_accepted(live, task, OTHER)


def test_an_assignment_takes_up_no_more_than_its_payload_whatever_is_sent(
    live: LiveService, device: SyntheticDevice, given: pb.Assignment
) -> None:
    for number in range(6):
        another = bytes([number]) * PIECE_BYTES
        send_part(device, given, another * 2, 2 * PIECE_BYTES)
        # As is claimed of a payload of another size.
        send_part(device, given, another, PIECE_BYTES, payload_size_bytes=SIZE + number)
    assert kept_bytes(live) <= SIZE


def test_a_refused_payload_leaves_nothing_behind(
    live: LiveService, device: SyntheticDevice, given: pb.Assignment
) -> None:
    nothing = bytes(2 * PIECE_BYTES)
    assert reason_of(refused(device.stream, given, nothing)) is not Reason.CHUNK_SEQUENCE
    assert kept(live) == []
    assert sent(live, given) == len(nothing)


def test_a_round_that_ends_takes_the_pieces_with_it(
    live: LiveService, device: SyntheticDevice
) -> None:
    task = a_task(live, goal=1)
    given = device.assignment(task.name)
    send_part(device, given, PAYLOAD, 2 * PIECE_BYTES)
    assert len(kept(live)) == 2
    other = live.device()
    other.stream(other.assignment(task.name), OTHER)
    live.settle()
    assert kept(live) == []


def test_a_device_that_is_too_late_is_told_so_at_its_first_question_and_at_its_header(
    live: LiveService, device: SyntheticDevice
) -> None:
    task = a_task(live, goal=1)
    given = device.assignment(task.name)
    send_part(device, given, PAYLOAD, PIECE_BYTES)
    other = live.device()
    other.stream(other.assignment(task.name), OTHER)
    live.settle()
    for ask in (device.query_upload, device.stream):
        assert reason_of(refused(ask, given, PAYLOAD)) is Reason.ROUND_CLOSED
    assert kept(live) == []


def test_an_assignment_that_was_given_up_takes_no_upload(
    live: LiveService, device: SyntheticDevice, given: pb.Assignment
) -> None:
    device.report(given, pb.OUTCOME_GAVE_UP)
    for ask in (device.query_upload, device.stream):
        assert reason_of(refused(ask, given, PAYLOAD)) is Reason.ASSIGNMENT_EXPIRED
    assert kept(live) == []


def test_another_payload_than_the_accepted_one_is_refused(
    live: LiveService, task: Task, device: SyntheticDevice, given: pb.Assignment
) -> None:
    device.stream(given, PAYLOAD)
    for ask in (device.query_upload, device.stream):
        assert reason_of(refused(ask, given, OTHER)) is Reason.UPDATE_CONFLICT
    check_accepted(live, task)


def test_a_device_learns_nothing_of_another_one_s_upload(
    live: LiveService, device: SyntheticDevice, given: pb.Assignment
) -> None:
    send_part(device, given, PAYLOAD, PIECE_BYTES)
    stranger = live.device()
    for ask in (stranger.query_upload, stranger.stream):
        assert reason_of(refused(ask, given, PAYLOAD)) is Reason.ASSIGNMENT_UNKNOWN
    assert device.query_upload(given, PAYLOAD) == PIECE_BYTES


def test_an_assignment_that_ends_while_its_payload_is_sent_takes_no_update(
    live: LiveService, task: Task, device: SyntheticDevice, given: pb.Assignment
) -> None:
    def parts() -> Iterator[bytes]:
        *first, last = stream_parts(header_for(given, PAYLOAD), PAYLOAD)
        yield from first
        until(lambda: device.query_upload(given, PAYLOAD) == 3 * PIECE_BYTES, "three pieces")
        give_up = ReportOutcome(store=live.store, now=utc_now)
        give_up(device_id_of(device), UUID(bytes=given.assignment_id), AssignmentState.ABANDONED)
        yield last

    error = refused(device.stream_bytes, "StreamUpdate", parts())
    assert reason_of(error) is Reason.ASSIGNMENT_EXPIRED
    assert updates_of(live.store, live.latest_round(task)) == []
    assert kept(live) == []
    assert sent(live, given) == SIZE
