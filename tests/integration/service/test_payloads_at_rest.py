"""A payload is in the database or a blob until its round is over, and nowhere afterwards."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256

import grpc
import numpy as np
import pytest

from aggregator_service.app.submit_update import INLINE_BYTES, SubmitUpdate
from aggregator_service.domain.tasks import Task
from aggregator_service.domain.updates import UpdateState
from aggregator_service.rpc.messages import read_header
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.builders import a_policy
from tests.support.device import (
    SyntheticDevice,
    encoded_vector,
    header_for,
    reason_of,
)
from tests.support.live import LiveService
from tests.support.seen import (
    adapters_of,
    device_id_of,
    standing_of,
    updates_of,
)

PAYLOAD = encoded_vector(24, {3: 1.0, 7: -0.5})
ROUTES = ("submit", "stream")


def send(device: SyntheticDevice, route: str, given: pb.Assignment, payload: bytes) -> pb.Receipt:
    return {"submit": device.submit, "stream": device.stream}[route](given, payload)


def a_large_task(live: LiveService, *, goal: int = 1) -> Task:
    """Updates of 40,000 values, some 200 KB."""
    layout = AdapterLayout(tensors=(TensorSpec(name="a", shape=(200_000,), role=Role.LORA_A),))
    return live.create_task(
        layout=layout,
        method=Flasc(download_density=0.1, upload_density=0.2),
        policy=a_policy(goal=goal, quorum=1),
    )


def a_large_payload(seed: int = 0) -> bytes:
    chosen = np.random.default_rng(seed).choice(200_000, 40_000, replace=False)
    return encoded_vector(200_000, {int(index): 0.5 for index in chosen})


def padded(payload: bytes, size: int) -> bytes:
    """The same update in `size` bytes: a field that no reader knows takes up the rest."""
    room = size - len(payload) - 2
    length = []
    rest = room - 3
    for _ in range(3):
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length[-1] &= 0x7F
    # Field 31, length-delimited, after the length in three bytes.
    return payload + b"\xfa\x01" + bytes(length) + bytes(room - 3)


def test_a_large_payload_is_a_blob_until_its_round_is_published(live: LiveService) -> None:
    task = a_large_task(live)
    device = live.device()
    given = device.assignment("a-task")
    payload = a_large_payload()
    device.stream(given, payload)
    current = live.latest_round(task)
    [update] = updates_of(live.store, current)
    assert update.payload is None
    assert update.payload_key is not None
    assert live.blobs.get(update.payload_key) == payload
    live.settle()
    assert len(adapters_of(live.store, task)) == 2
    [update] = updates_of(live.store, current)
    assert update.state is UpdateState.SCRUBBED
    assert list(live.blobs.keys(f"rounds/{current.id}/")) == []
    # The ledger keeps what proves that it was there.
    assert update.payload_sha256 == sha256(payload).digest()
    assert update.payload_bytes == len(payload)


def test_a_small_payload_is_gone_once_its_round_is_published(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=1, quorum=1))
    current = live.latest_round(task)
    device = live.device()
    device.submit(device.assignment("a-task"), PAYLOAD)
    live.settle()
    [update] = updates_of(live.store, current)
    assert update.state is UpdateState.SCRUBBED
    assert update.payload is None
    assert list(live.blobs.keys(f"rounds/{current.id}/")) == []


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("size", [INLINE_BYTES, INLINE_BYTES + 1])
def test_payloads_up_to_64_kib_stay_in_the_database(
    live: LiveService, route: str, size: int
) -> None:
    task = a_large_task(live)
    device = live.device()
    given = device.assignment("a-task")
    payload = padded(encoded_vector(200_000, {5: 1.0}), size)
    assert len(payload) == size
    send(device, route, given, payload)
    [update] = updates_of(live.store, live.latest_round(task))
    assert (update.payload is None) == (size > INLINE_BYTES)
    assert (update.payload_key is None) == (size <= INLINE_BYTES)


def test_a_conflicting_large_payload_leaves_no_blob_behind(live: LiveService) -> None:
    task = a_large_task(live, goal=2)
    device = live.device()
    given = device.assignment("a-task")
    device.stream(given, a_large_payload(1))
    prefix = f"rounds/{live.latest_round(task).id}/"
    before = set(live.blobs.keys(prefix))
    with pytest.raises(grpc.RpcError) as error:
        device.stream(given, a_large_payload(2))
    assert reason_of(error.value) is Reason.UPDATE_CONFLICT
    assert set(live.blobs.keys(prefix)) == before


def test_a_large_payload_that_is_refused_at_the_last_moment_leaves_no_blob_behind(
    live: LiveService,
) -> None:
    task = a_large_task(live)
    device = live.device()
    given = device.assignment("a-task")
    current = live.latest_round(task)
    assert current.deadline is not None
    before = standing_of(live.store, current)
    payload = a_large_payload()
    # In time when it arrives, too late once it has been read and written down.
    times = iter([current.deadline - timedelta(seconds=1), current.deadline])
    submit = SubmitUpdate(store=live.store, blobs=live.blobs, now=lambda: next(times))
    header = read_header(header_for(given, payload))
    with pytest.raises(Refusal) as refusal:
        submit(device_id_of(device), header, payload)
    assert refusal.value.reason is Reason.ROUND_CLOSED
    assert list(live.blobs.keys(f"rounds/{current.id}/")) == []
    assert standing_of(live.store, current) == before
