"""A streamed upload that broke goes on after its last durable piece."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from aggregator_service.app.receive_upload import PIECE_BYTES
from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import Store
from aggregator_service.store.open import open_blobs
from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.support.device import (
    SERVICE,
    SyntheticDevice,
    details_of,
    header_for,
    reason_of,
    stream_parts,
)
from tests.support.live import LiveService, live_service
from tests.support.long_uploads import PAYLOAD, SIZE, a_task, check_accepted, kept, send_part, sent
from tests.support.patience import PATIENCE_SECONDS, until
from tests.support.refused import refused
from tests.support.seen import standing_of, updates_of

PIECES = (0, PIECE_BYTES, 2 * PIECE_BYTES, 3 * PIECE_BYTES, SIZE)


def send_header(
    device: SyntheticDevice, given: pb.Assignment, payload: bytes = PAYLOAD
) -> pb.Receipt:
    return device.resume(given, payload, len(payload))


def send_all_but_the_end(device: SyntheticDevice, given: pb.Assignment) -> None:
    """All of the payload, and then something that keeps it from being handed in."""
    parts = [*stream_parts(header_for(given, PAYLOAD), PAYLOAD), b""]
    assert reason_of(refused(device.stream_bytes, "StreamUpdate", parts)) is Reason.CHUNK_SEQUENCE


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
