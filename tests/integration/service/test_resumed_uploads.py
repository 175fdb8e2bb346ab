"""A streamed upload that broke goes on after its last durable piece, and never mixes payloads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import numpy as np
import pytest

from aggregator_service.app.receive_upload import PIECE_BYTES
from aggregator_service.app.report_outcome import ReportOutcome
from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.tasks import Task
from aggregator_service.server import utc_now
from aggregator_service.store.base import Store
from aggregator_service.store.open import open_blobs
from flasc_core.errors import Reason
from flasc_core.methods import Flasc
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.sparse import SparseVector
from flasc_core.wire import encode
from tests.builders import a_policy
from tests.support.device import (
    SERVICE,
    SyntheticDevice,
    details_of,
    header_for,
    reason_of,
    stream_parts,
)
from tests.support.live import LiveService, live_service
from tests.support.mortal_device import flat_layout
from tests.support.patience import PATIENCE_SECONDS, until
from tests.support.refused import refused
from tests.support.seen import device_id_of, record_of, standing_of, updates_of

# Every coordinate with 4 bytes: three whole pieces and a part of one.
DIM = 400_000


def a_payload(value: float = 1.0) -> bytes:
    values = np.full(DIM, value, dtype=np.float32)
    return encode(SparseVector(dim=DIM, indices=np.arange(DIM, dtype=np.int64), values=values))


PAYLOAD, OTHER = a_payload(), a_payload(2.0)
SIZE = len(PAYLOAD)
PIECES = [0, PIECE_BYTES, 2 * PIECE_BYTES, 3 * PIECE_BYTES, SIZE]


@pytest.fixture
def task(live: LiveService) -> Task:
    return a_task(live)


@pytest.fixture
def device(live: LiveService) -> SyntheticDevice:
    return live.device()


@pytest.fixture
def given(device: SyntheticDevice, task: Task) -> pb.Assignment:
    return device.assignment(task.name)


def a_task(live: LiveService, *, goal: int = 2) -> Task:
    return live.create_task(
        layout=flat_layout(DIM),
        method=Flasc(download_density=0.001, upload_density=1.0),
        policy=a_policy(goal=goal, quorum=1),
    )


def send_part(
    device: SyntheticDevice,
    given: pb.Assignment,
    payload: bytes,
    end: int,
    *,
    start: int = 0,
    **header: Any,
) -> None:
    """A stream that the device ends too early."""
    parts = stream_parts(header_for(given, PAYLOAD, **header), payload[:end], start=start)
    error = refused(device.stream_bytes, "StreamUpdate", parts)
    assert reason_of(error) is Reason.CHUNK_SEQUENCE


def send_all_but_the_end(device: SyntheticDevice, given: pb.Assignment) -> None:
    """All of the payload, and then something that keeps it from being handed in."""
    parts = [*stream_parts(header_for(given, PAYLOAD), PAYLOAD), b""]
    assert reason_of(refused(device.stream_bytes, "StreamUpdate", parts)) is Reason.CHUNK_SEQUENCE


def send_header(
    device: SyntheticDevice, given: pb.Assignment, payload: bytes = PAYLOAD
) -> pb.Receipt:
    return device.resume(given, payload, len(payload))


def kept(live: LiveService) -> list[str]:
    return [key for key in live.blobs.keys("rounds/") if "/uploads/" in key]


def kept_bytes(live: LiveService) -> int:
    return sum(len(live.blobs.get(key)) for key in kept(live))


def sent(live: LiveService, given: pb.Assignment) -> int:
    """What the ledger has of the assignment's uploads."""
    live.booked()
    return record_of(live.store, given).payload_bytes_up


def check_accepted(live: LiveService, task: Task, payload: bytes = PAYLOAD) -> None:
    [update] = updates_of(live.store, live.latest_round(task))
    assert update.payload_key is not None
    assert live.blobs.get(update.payload_key) == payload
    assert kept(live) == []


@pytest.mark.parametrize(
    ("end", "durable"),
    [
        (PIECE_BYTES - 1, 0),
        (PIECE_BYTES, PIECE_BYTES),
        (3 * PIECE_BYTES - 1, 2 * PIECE_BYTES),
        (SIZE - 1, 3 * PIECE_BYTES),
    ],
)
def test_a_stream_that_broke_goes_on_after_its_last_durable_piece(
    live: LiveService,
    task: Task,
    device: SyntheticDevice,
    given: pb.Assignment,
    end: int,
    durable: int,
) -> None:
    before = standing_of(live.store, live.latest_round(task))
    send_part(device, given, PAYLOAD, end)
    assert device.query_upload(given, PAYLOAD) == durable
    assert standing_of(live.store, live.latest_round(task)) == before
    assert sent(live, given) == end

    assert not device.resume(given, PAYLOAD, durable).duplicate
    check_accepted(live, task)
    assert sent(live, given) == end + SIZE - durable


def test_a_stream_may_break_again_and_again(
    live: LiveService, task: Task, device: SyntheticDevice, given: pb.Assignment
) -> None:
    for start, end in pairwise(PIECES[:-1]):
        assert device.query_upload(given, PAYLOAD) == start
        send_part(device, given, PAYLOAD, end, start=start)
    assert not device.resume(given, PAYLOAD, PIECES[-2]).duplicate
    check_accepted(live, task)
    # Nothing was sent twice.
    assert sent(live, given) == SIZE


@pytest.mark.parametrize("start", [0, 1, PIECE_BYTES, 2 * PIECE_BYTES - 1, 2 * PIECE_BYTES])
def test_a_stream_may_start_anywhere_up_to_what_is_durable(
    live: LiveService, task: Task, device: SyntheticDevice, given: pb.Assignment, start: int
) -> None:
    send_part(device, given, PAYLOAD, 2 * PIECE_BYTES)
    assert not device.resume(given, PAYLOAD, start).duplicate
    check_accepted(live, task)
    assert sent(live, given) == 2 * PIECE_BYTES + SIZE - start


@pytest.mark.parametrize("start", [2 * PIECE_BYTES + 1, SIZE - 1, SIZE])
def test_a_stream_may_not_start_beyond_what_is_durable(
    live: LiveService, task: Task, device: SyntheticDevice, given: pb.Assignment, start: int
) -> None:
    send_part(device, given, PAYLOAD, 2 * PIECE_BYTES)
    error = refused(device.resume, given, PAYLOAD, start)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.OUT_OF_RANGE, Reason.OFFSET_RANGE)
    assert device.query_upload(given, PAYLOAD) == 2 * PIECE_BYTES
    assert updates_of(live.store, live.latest_round(task)) == []


def test_a_header_is_enough_where_all_of_the_payload_is_durable(
    live: LiveService, task: Task, device: SyntheticDevice, given: pb.Assignment
) -> None:
    send_all_but_the_end(device, given)
    assert device.query_upload(given, PAYLOAD) == SIZE
    assert not send_header(device, given).duplicate
    check_accepted(live, task)
    assert sent(live, given) == SIZE


@pytest.mark.parametrize("ended", [False, True], ids=["in its round", "after it"])
def test_a_header_brings_the_receipt_of_an_accepted_update_again(
    live: LiveService, device: SyntheticDevice, ended: bool
) -> None:
    task = a_task(live, goal=1)
    given = device.assignment(task.name)
    receipt = device.stream(given, PAYLOAD)
    if ended:
        live.settle()
    assert device.query_upload(given, PAYLOAD) == SIZE
    again = send_header(device, given)
    assert again.duplicate
    assert (again.update_id, again.ledger_sequence) == (receipt.update_id, receipt.ledger_sequence)
    assert sent(live, given) == SIZE
    assert kept(live) == []


def test_a_payload_that_is_damaged_once_whole_is_dropped_and_can_be_sent_again(
    live: LiveService, task: Task, device: SyntheticDevice, given: pb.Assignment
) -> None:
    damaged = bytes(PIECE_BYTES) + PAYLOAD[PIECE_BYTES:]
    send_part(device, given, damaged, PIECE_BYTES)
    error = refused(device.resume, given, PAYLOAD, PIECE_BYTES)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.DATA_LOSS, Reason.DIGEST_MISMATCH)
    assert kept(live) == []
    assert device.query_upload(given, PAYLOAD) == 0
    assert not device.stream(given, PAYLOAD).duplicate
    check_accepted(live, task)


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


# -- what is refused before a byte is sent


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


# -- several at once, and breaks that nobody announces


def test_streams_of_one_payload_at_once_count_once_and_all_get_the_receipt(
    live: LiveService, task: Task, device: SyntheticDevice, given: pb.Assignment
) -> None:
    together = threading.Barrier(4)

    def send(_: int) -> pb.Receipt:
        together.wait(PATIENCE_SECONDS)
        return device.stream(given, PAYLOAD)

    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(send, range(4)))
    assert len({receipt.update_id for receipt in receipts}) == 1
    assert sum(not receipt.duplicate for receipt in receipts) == 1
    check_accepted(live, task)
    assert sent(live, given) == 4 * SIZE


def test_streams_of_two_payloads_at_once_never_mix(
    live: LiveService, task: Task, device: SyntheticDevice, given: pb.Assignment
) -> None:
    together = threading.Barrier(2)

    def send(payload: bytes) -> Reason | None:
        together.wait(PATIENCE_SECONDS)
        try:
            device.stream(given, payload)
        except grpc.RpcError as error:
            return reason_of(error)
        return None

    with ThreadPoolExecutor(2) as pool:
        reasons = list(pool.map(send, (PAYLOAD, OTHER)))
    # Either may have dropped the other's pieces, so that even both may have to be sent again.
    assert set(reasons) <= {None, Reason.UPDATE_CONFLICT, Reason.DIGEST_MISMATCH}
    if None not in reasons:
        device.stream(given, PAYLOAD)
    check_accepted(live, task, OTHER if reasons[1] is None else PAYLOAD)


def test_what_had_arrived_of_a_broken_stream_is_charged_once(
    live: LiveService, device: SyntheticDevice, given: pb.Assignment
) -> None:
    silent = threading.Event()

    def parts() -> Iterator[bytes]:
        yield from stream_parts(header_for(given, PAYLOAD), PAYLOAD[: PIECE_BYTES + 1_000])
        silent.wait(PATIENCE_SECONDS)

    call: Any = device.channel.stream_unary(SERVICE + "StreamUpdate")
    broken = call.future(parts(), metadata=device.metadata)
    until(lambda: device.query_upload(given, PAYLOAD) == PIECE_BYTES, "the first piece")
    broken.cancel()
    silent.set()
    # The last chunk may have been under way.
    all_sent = (PIECE_BYTES, PIECE_BYTES + 1_000)
    until(lambda: sent(live, given) in all_sent, "all bytes in the ledger")
    assert device.query_upload(given, PAYLOAD) == PIECE_BYTES


def test_an_overloaded_service_keeps_what_it_can_not_read_back_now(
    sqlite_store: Store, tmp_path: Path
) -> None:
    blobs = open_blobs(str(tmp_path / "blobs"))
    with live_service(sqlite_store, blobs, upload_bytes_in_flight=1 << 20) as small:
        task = a_task(small)
        device = small.device()
        given = device.assignment(task.name)
        # Never more than a piece and a chunk of it are in memory before.
        error = refused(device.stream, given, PAYLOAD)
        assert reason_of(error) is Reason.OVERLOADED
        assert details_of(error).retry_delay is not None
        assert device.query_upload(given, PAYLOAD) == SIZE
    with live_service(sqlite_store, blobs) as larger:
        again = SyntheticDevice(larger.channel(), device.credential)
        assert not send_header(again, given).duplicate
        check_accepted(larger, task)


def test_an_upload_resumes_in_a_service_that_was_restarted(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = str(tmp_path / "blobs")
    with live_service(sqlite_store, open_blobs(folder)) as first:
        task = a_task(first)
        device = first.device()
        given = device.assignment(task.name)
        send_part(device, given, PAYLOAD, 2 * PIECE_BYTES)
    with live_service(sqlite_store, open_blobs(folder)) as second:
        again = SyntheticDevice(second.channel(), device.credential)
        assert again.query_upload(given, PAYLOAD) == 2 * PIECE_BYTES
        assert not again.resume(given, PAYLOAD, 2 * PIECE_BYTES).duplicate
        check_accepted(second, task)
        assert sent(second, given) == SIZE


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
