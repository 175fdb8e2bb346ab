"""A device hands in its update: counted once, whole, and only where it belongs."""

from __future__ import annotations

import threading
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from uuid import UUID

import grpc
import numpy as np
import pytest

from aggregator_service.clock import utc_now
from aggregator_service.domain.assignments import AssignmentState, Evaluation, TrainingMetrics
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import Encodings, UpdateLimits
from aggregator_service.domain.updates import UpdateState
from flasc_core.errors import Reason
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.pb.internal.v1.packed_update_pb2 import PackedUpdate
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.sparse import SparseVector
from flasc_core.wire import Encoding, encode, profile_for
from tests.builders import a_policy, nonzeros_of
from tests.support.device import (
    SyntheticDevice,
    encoded_vector,
    header_for,
    reason_of,
    stream_parts,
)
from tests.support.live import LiveService
from tests.support.patience import PATIENCE_SECONDS
from tests.support.seen import (
    adapters_of,
    assignment_of,
    figures_of,
    record_of,
    rejections_of,
    standing_of,
    updates_of,
)

PAYLOAD = encoded_vector(24, {3: 1.0, 7: -0.5})
OTHER = encoded_vector(24, {3: 1.0, 7: 0.5})
METRICS = {"examples": 12, "steps": 3, "loss_mean": 0.75, "seconds": 1.5}
COUNTS = {"correct": 3, "total": 4, "loss_sum": 2.5}
ROUTES = ("submit", "stream")


def send(device: SyntheticDevice, route: str, given: pb.Assignment, payload: bytes) -> pb.Receipt:
    return {"submit": device.submit, "stream": device.stream}[route](given, payload)


@pytest.mark.parametrize("route", ROUTES)
def test_an_accepted_update_is_in_the_ledger(live: LiveService, route: str) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    receipt = send(device, route, given, PAYLOAD)
    [update] = updates_of(live.store, live.latest_round(task))
    assert update.id == UUID(bytes=receipt.update_id)
    assert update.assignment_id == UUID(bytes=given.assignment_id)
    assert update.state is UpdateState.ACCEPTED
    assert update.payload == PAYLOAD
    assert update.payload_sha256 == receipt.payload_sha256 == sha256(PAYLOAD).digest()
    assert (update.payload_bytes, update.nnz, update.weight) == (len(PAYLOAD), 2, 1)
    assert update.sequence == receipt.ledger_sequence
    assert receipt.accepted_at.ToDatetime(update.accepted_at.tzinfo) == update.accepted_at
    assert not receipt.duplicate


@pytest.mark.parametrize("route", ROUTES)
def test_what_the_device_says_of_its_training_comes_with_the_update(
    live: LiveService, route: str
) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    if route == "submit":
        device.submit(given, PAYLOAD, training_metrics=METRICS, evaluation=COUNTS)
    else:
        device.stream(given, PAYLOAD, training_metrics=METRICS, evaluation=COUNTS)
    ended = assignment_of(live.store, given)
    assert ended.state is AssignmentState.ACCEPTED
    assert ended.training_metrics == TrainingMetrics(
        examples=12, steps=3, loss_mean=0.75, seconds=1.5
    )
    assert ended.evaluation == Evaluation(correct=3, total=4, loss_sum=2.5)
    figures = figures_of(live.store, live.latest_round(task))
    assert (figures.examples, figures.steps, figures.loss_mean) == (12, 3, 0.75)
    assert figures.evaluation == ended.evaluation


@pytest.mark.parametrize("first", ROUTES)
@pytest.mark.parametrize("second", ROUTES)
def test_the_same_payload_again_gets_the_same_receipt_and_counts_once(
    live: LiveService, first: str, second: str
) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    receipt = send(device, first, given, PAYLOAD)
    before = standing_of(live.store, live.latest_round(task))
    again = send(device, second, given, PAYLOAD)
    assert again.duplicate
    again.duplicate = False
    assert again == receipt
    assert standing_of(live.store, live.latest_round(task)) == before
    assert record_of(live.store, given).payload_bytes_up == 2 * len(PAYLOAD)


@pytest.mark.parametrize("first", ROUTES)
@pytest.mark.parametrize("second", ROUTES)
def test_of_two_different_payloads_the_first_stays(
    live: LiveService, first: str, second: str
) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    send(device, first, given, PAYLOAD)
    before = standing_of(live.store, live.latest_round(task))
    with pytest.raises(grpc.RpcError) as error:
        send(device, second, given, OTHER)
    assert error.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(error.value) is Reason.UPDATE_CONFLICT
    assert standing_of(live.store, live.latest_round(task)) == before
    live.booked()
    assert rejections_of(live.store, live.latest_round(task)) == {Reason.UPDATE_CONFLICT: 1}
    # And whoever has the first receipt can still prove it.
    assert send(device, second, given, PAYLOAD).duplicate


def test_one_payload_sent_many_times_at_once_counts_once(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    together = threading.Barrier(8)

    def send_now(number: int) -> pb.Receipt:
        together.wait(PATIENCE_SECONDS)
        return send(device, ROUTES[number % 2], given, PAYLOAD)

    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(send_now, range(8)))
    assert len({receipt.update_id for receipt in receipts}) == 1
    assert sum(not receipt.duplicate for receipt in receipts) == 1
    assert len(updates_of(live.store, live.latest_round(task))) == 1
    assert record_of(live.store, given).payload_bytes_up == 8 * len(PAYLOAD)


def test_of_two_payloads_at_once_one_is_accepted_and_one_refused(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    together = threading.Barrier(2)

    def send_now(payload: bytes) -> bytes | None:
        together.wait(PATIENCE_SECONDS)
        try:
            device.submit(given, payload)
        except grpc.RpcError as error:
            assert reason_of(error) is Reason.UPDATE_CONFLICT  # noqa: PT017 - one of two may pass
            return None
        return payload

    with ThreadPoolExecutor(2) as pool:
        accepted = [payload for payload in pool.map(send_now, (PAYLOAD, OTHER)) if payload]
    [update] = updates_of(live.store, live.latest_round(task))
    assert [update.payload] == accepted


def test_a_receipt_can_be_had_again_after_the_round(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=1, quorum=1))
    device = live.device()
    given = device.assignment("a-task")
    receipt = device.submit(given, PAYLOAD)
    live.settle()
    assert live.latest_round(task).number == 2
    again = device.stream(given, PAYLOAD)
    assert again.duplicate
    assert again.update_id == receipt.update_id
    assert again.ledger_sequence == receipt.ledger_sequence


def test_the_ledger_numbers_updates_in_the_order_they_came(live: LiveService) -> None:
    live.create_task()
    sequences = []
    for _ in range(3):
        device = live.device()
        sequences.append(device.submit(device.assignment("a-task"), PAYLOAD).ledger_sequence)
    assert sequences == sorted(set(sequences))


def test_updates_beyond_the_goal_still_count_until_the_round_is_closed(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=1, quorum=1, over_selection=3.0))
    for device in [live.device() for _ in range(3)]:
        device.submit(device.assignment("a-task"), PAYLOAD)
    live.settle()
    assert adapters_of(live.store, task)[1].divisor == 3


def test_the_answer_says_when_to_come_back(live: LiveService) -> None:
    live.create_task(policy=a_policy(retry_min=timedelta(seconds=7)))
    device = live.device()
    given = device.assignment("a-task")
    header = header_for(given, PAYLOAD)
    unary = pb.SubmitUpdateRequest(header=header, payload=PAYLOAD).SerializeToString()
    answers = (
        pb.SubmitUpdateResponse.FromString(device.call_bytes("SubmitUpdate", unary)),
        pb.StreamUpdateResponse.FromString(
            device.stream_bytes("StreamUpdate", stream_parts(header, PAYLOAD))
        ),
    )
    for answer in answers:
        assert answer.retry_window.delay_min.ToTimedelta() == timedelta(seconds=7)


@pytest.mark.parametrize("chunk", [1, len(PAYLOAD) - 1, len(PAYLOAD), 1 << 20])
def test_a_stream_may_be_cut_anywhere(live: LiveService, chunk: int) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    parts = stream_parts(header_for(given, PAYLOAD), PAYLOAD, chunk)
    device.stream_bytes("StreamUpdate", parts)
    [update] = updates_of(live.store, live.latest_round(task))
    assert update.payload == PAYLOAD


def test_a_weighted_update_counts_as_its_weight_says(live: LiveService) -> None:
    task = live.create_task(
        policy=a_policy(goal=2, quorum=1), limits=UpdateLimits(max_weight=4, largest_cohort=1_000)
    )
    light, heavy = live.device(), live.device()
    light.submit(light.assignment("a-task"), PAYLOAD, weight=1)
    heavy.submit(heavy.assignment("a-task"), PAYLOAD, weight=4)
    live.settle()
    assert adapters_of(live.store, task)[1].divisor == 5


@pytest.mark.parametrize("route", ROUTES)
def test_of_a_closed_round_updates_are_refused(live: LiveService, route: str) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    current = live.latest_round(task)
    live.driver.now = lambda: utc_now() + timedelta(hours=1)
    live.driver.step()
    before = standing_of(live.store, current)
    assert before.round.state is RoundState.ABORTED
    with pytest.raises(grpc.RpcError) as error:
        send(device, route, given, PAYLOAD)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error.value) is Reason.ROUND_CLOSED
    assert standing_of(live.store, current) == before
    live.booked()
    assert rejections_of(live.store, current) == {Reason.ROUND_CLOSED: 1}


def test_an_update_for_the_round_before_does_not_count_in_this_one(live: LiveService) -> None:
    task = live.create_task()
    device = live.device()
    old = device.assignment("a-task")
    live.driver.now = lambda: utc_now() + timedelta(hours=1)
    live.driver.step()
    live.driver.now = utc_now
    live.settle()
    current = device.assignment("a-task")
    assert current.round_number == 2
    # Both rounds start from the same adapter, so that the digests are the same.
    assert current.download.sha256 == old.download.sha256
    with pytest.raises(grpc.RpcError) as error:
        device.submit(old, PAYLOAD)
    assert reason_of(error.value) is Reason.ROUND_CLOSED
    assert updates_of(live.store, live.latest_round(task)) == []


def test_another_device_s_assignment_takes_no_update(live: LiveService) -> None:
    task = live.create_task()
    owner, stranger = live.device(), live.device()
    given = owner.assignment("a-task")
    before = standing_of(live.store, live.latest_round(task))
    for route in ROUTES:
        with pytest.raises(grpc.RpcError) as error:
            send(stranger, route, given, PAYLOAD)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert reason_of(error.value) is Reason.ASSIGNMENT_UNKNOWN
    assert standing_of(live.store, live.latest_round(task)) == before
    assert not owner.submit(given, PAYLOAD).duplicate


def test_a_device_that_has_taken_part_is_not_the_only_one(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=2, quorum=1))
    first, second = live.device(), live.device()
    first.submit(first.assignment("a-task"), PAYLOAD)
    # The same payload from another device is another update.
    assert not second.submit(second.assignment("a-task"), PAYLOAD).duplicate
    assert len(updates_of(live.store, live.latest_round(task))) == 2


def test_a_large_update_is_checked_without_being_unpacked_as_a_whole(live: LiveService) -> None:
    dim = 1_000_000
    layout = AdapterLayout(tensors=(TensorSpec(name="head", shape=(dim,), role=Role.HEAD),))
    method = Flasc(download_density=0.01, upload_density=1.0)
    int3 = Encoding.parse("int3")
    live.create_task(layout=layout, method=method, encodings=Encodings(updates=(int3,)))
    device = live.device()
    given = device.assignment("a-task")
    update = np.random.default_rng(1).standard_normal(dim, dtype=np.float32)
    payload = encode(nonzeros_of(update), profile_for(int3))
    tracemalloc.start()
    try:
        device.submit(given, payload)
        # Both ends are in this process. Unpacked, a value takes eight bytes for its index alone.
        assert tracemalloc.get_traced_memory()[1] < 4 * dim
    finally:
        tracemalloc.stop()


def test_whatever_is_accepted_can_be_added_up(live: LiveService) -> None:
    dim = 70_000
    layout = AdapterLayout(tensors=(TensorSpec(name="head", shape=(dim,), role=Role.HEAD),))
    method = Flasc(download_density=0.01, upload_density=1.0)
    task = live.create_task(layout=layout, method=method, policy=a_policy(goal=1, quorum=1))
    # As many segments as the assignment allows, more than the few values would need.
    pieces = [
        encode(SparseVector(dim=dim, indices=np.array([at]), values=np.ones(1, np.float32)))
        for at in range(4_097)
    ]
    segments = [PackedUpdate.FromString(piece).segments[0] for piece in pieces]
    checksum = zlib.crc32(b"".join(segments))
    payload = PackedUpdate(dim=dim, segments=segments, crc32=checksum).SerializeToString()
    device = live.device()
    device.submit(device.assignment("a-task"), payload)
    live.settle()
    assert len(adapters_of(live.store, task)) == 2


def test_a_payload_larger_than_any_honest_one_is_refused_however_it_comes(
    live: LiveService,
) -> None:
    live.create_task()
    device = live.device()
    # A field that nobody knows, which readers ignore.
    padded = PAYLOAD + b"\xa2\x06\x88\x27" + bytes(5_000)
    with pytest.raises(grpc.RpcError) as refused:
        device.submit(device.assignment("a-task"), padded)
    assert reason_of(refused.value) is Reason.MESSAGE_TOO_LARGE
