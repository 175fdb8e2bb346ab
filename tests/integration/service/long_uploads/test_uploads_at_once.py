"""Streams of one assignment at once never mix, and count once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from aggregator_service.domain.tasks import Task
from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.support.device import SyntheticDevice, reason_of
from tests.support.live import LiveService
from tests.support.long_uploads import OTHER, PAYLOAD, SIZE, check_accepted, sent
from tests.support.patience import PATIENCE_SECONDS


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
