"""Bytes that are no message get INVALID_ARGUMENT and a reason, on every rpc and in every part.

INTERNAL, which Python's gRPC would answer, is what devices retry for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random

import grpc
import pytest
from google.protobuf.message import DecodeError, Message

from aggregator_service.domain.tasks import Task
from aggregator_service.store.base import Store
from aggregator_service.store.open import open_blobs
from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.support.device import (
    SyntheticDevice,
    details_of,
    encoded_vector,
    header_for,
    reason_of,
)
from tests.support.live import LiveService, live_service

Send = Callable[[bytes], object]
RPCS: Mapping[str, type[Message]] = {
    "CheckIn": pb.CheckInRequest,
    "DownloadAdapter": pb.DownloadAdapterRequest,
    "SubmitUpdate": pb.SubmitUpdateRequest,
    "QueryUpload": pb.QueryUploadRequest,
    "ReportOutcome": pb.ReportOutcomeRequest,
    "StreamUpdate, header": pb.StreamUpdateRequest,
    "StreamUpdate, chunk": pb.StreamUpdateRequest,
    "StreamUpdate, last chunk": pb.StreamUpdateRequest,
}
# A field of the reserved wire types 6 and 7, a group that nobody began, one that nobody ends, a
# number without an end, and a length beyond the message.
UNREADABLE = [b"\x0e", b"\x0f\x00", b"\x0c", b"\x0b", b"\x08" + b"\xff" * 11, b"\x0a\xff\xff\x7fx"]


@pytest.fixture
def live(sqlite_store: Store, tmp_path: Path) -> Iterator[LiveService]:
    with live_service(sqlite_store, open_blobs(str(tmp_path / "blobs"))) as running:
        yield running


@pytest.fixture
def task(live: LiveService) -> Task:
    return live.create_task()


@pytest.fixture
def device(live: LiveService) -> SyntheticDevice:
    return live.device()


@pytest.fixture
def work(device: SyntheticDevice, task: Task) -> pb.Assignment:
    return device.assignment(task.name)


PAYLOAD = encoded_vector(24, {0: 1.0, 7: -2.0})


def sound(rpc: str, work: pb.Assignment) -> Message:
    """What an honest device would send there."""
    header = header_for(work, PAYLOAD)
    counts = pb.Evaluation(correct=1, total=2, loss_sum=0.5)
    messages: Mapping[str, Message] = {
        "CheckIn": pb.CheckInRequest(task_name="a-task", client_version="test/1"),
        "DownloadAdapter": pb.DownloadAdapterRequest(assignment_id=work.assignment_id, offset=1),
        "SubmitUpdate": pb.SubmitUpdateRequest(header=header, payload=PAYLOAD),
        "QueryUpload": pb.QueryUploadRequest(
            assignment_id=work.assignment_id, payload_sha256=header.payload_sha256
        ),
        "ReportOutcome": pb.ReportOutcomeRequest(
            assignment_id=work.assignment_id,
            outcome=pb.OUTCOME_GAVE_UP,
            detail="battery",
            evaluation=counts,
        ),
        "StreamUpdate, header": pb.StreamUpdateRequest(header=header),
        "StreamUpdate, chunk": chunk(0, 10),
        "StreamUpdate, last chunk": chunk(10, len(PAYLOAD)),
    }
    return messages[rpc]


def chunk(start: int, end: int) -> pb.StreamUpdateRequest:
    return pb.StreamUpdateRequest(chunk=pb.UpdateChunk(offset=start, data=PAYLOAD[start:end]))


def sender(rpc: str, device: SyntheticDevice, work: pb.Assignment) -> Send:
    """Sends bytes as `rpc`'s message, or as that part of an otherwise sound stream."""
    method, _, part = rpc.partition(", ")
    if method == "DownloadAdapter":
        return partial(device.receive_bytes, method)
    if method != "StreamUpdate":
        return partial(device.call_bytes, method)
    parts = {name: sound(f"{method}, {name}", work) for name in ("header", "chunk", "last chunk")}
    encoded = {name: message.SerializeToString() for name, message in parts.items()}
    return lambda data: device.stream_bytes(method, (encoded | {part: data}).values())


def is_readable(kind: type[Message], data: bytes) -> bool:
    try:
        kind.FromString(data)
    except DecodeError:
        return False
    return True


def assert_refused(send: Send, data: bytes, *reasons: Reason) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        send(data)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, data
    assert reason_of(refused.value) in reasons, data
    # A second attempt would end the same way.
    assert details_of(refused.value).retry_delay is None


def assert_nothing_happened(live: LiveService, task: Task) -> None:
    current = live.latest_round(task)
    assert live.store.read("test", lambda tx: tx.updates.count(current.id)) == 0
    assert list(live.blobs.keys("rounds/")) == []


@pytest.mark.parametrize("rpc", RPCS)
def test_bytes_that_no_parser_reads_are_malformed(
    live: LiveService, task: Task, device: SyntheticDevice, work: pb.Assignment, rpc: str
) -> None:
    send = sender(rpc, device, work)
    for data in UNREADABLE:
        assert not is_readable(RPCS[rpc], data)
        assert_refused(send, data, Reason.MALFORMED_MESSAGE)
    live.booked()
    counted = live.store.read("test", lambda tx: tx.rejections.totals())
    assert counted == {Reason.MALFORMED_MESSAGE: len(UNREADABLE)}
    assert_nothing_happened(live, task)


@pytest.mark.parametrize("rpc", RPCS)
def test_a_message_cut_short_anywhere_is_malformed_unless_it_is_another_message(
    live: LiveService, task: Task, device: SyntheticDevice, work: pb.Assignment, rpc: str
) -> None:
    send = sender(rpc, device, work)
    whole = sound(rpc, work).SerializeToString()
    cuts = [whole[:end] for end in range(len(whole)) if not is_readable(RPCS[rpc], whole[:end])]
    assert whole[:-1] in cuts
    for data in cuts:
        assert_refused(send, data, Reason.MALFORMED_MESSAGE)
    assert_nothing_happened(live, task)


@pytest.mark.parametrize("rpc", RPCS)
def test_random_bytes_never_fail_the_service_itself(
    live: LiveService, task: Task, device: SyntheticDevice, work: pb.Assignment, rpc: str
) -> None:
    rng = Random(7)
    send = sender(rpc, device, work)
    refused = 0
    for _ in range(60):
        data = rng.randbytes(rng.randint(1, 40))
        if not is_readable(RPCS[rpc], data):
            assert_refused(send, data, Reason.MALFORMED_MESSAGE)
            refused += 1
    assert refused > 30
    assert_nothing_happened(live, task)


@pytest.mark.parametrize("rpc", RPCS)
def test_fields_of_another_wire_type_are_no_fields_at_all(
    live: LiveService, task: Task, device: SyntheticDevice, work: pb.Assignment, rpc: str
) -> None:
    """Protobuf keeps them as unknown fields, so what they should have been is missing."""
    wrong = [
        # Field 1, which is text, bytes or a message everywhere, as a number and as fixed bits.
        b"\x08\x01",
        b"\x0d\x01\x02\x03\x04",
        b"\x09\x01\x02\x03\x04\x05\x06\x07\x08",
    ]
    send = sender(rpc, device, work)
    for data in wrong:
        assert is_readable(RPCS[rpc], data)
        assert_refused(send, data, Reason.FIELD_REQUIRED, Reason.CHUNK_SEQUENCE)
    assert_nothing_happened(live, task)


@pytest.mark.parametrize(
    ("rpc", "data"),
    [
        ("CheckIn", b"\x0a\x02\xc3\x28"),
        ("CheckIn", b"\x0a\x06a-task\x2a\x01\xff"),
        ("ReportOutcome", b"\x0a\x10" + bytes(16) + b"\x10\x01\x1a\x03\xe2\x28\xa1"),
    ],
    ids=["task name", "client version", "detail"],
)
def test_text_that_is_not_utf8_is_malformed(
    live: LiveService,
    task: Task,
    device: SyntheticDevice,
    work: pb.Assignment,
    rpc: str,
    data: bytes,
) -> None:
    assert_refused(sender(rpc, device, work), data, Reason.MALFORMED_MESSAGE)


@pytest.mark.parametrize("way", ["submit", "stream"])
@pytest.mark.parametrize("payload", [b"\x0c", b"\x08", b"\xff" * 40, PAYLOAD[:-1], PAYLOAD[:9]])
def test_a_payload_that_is_no_update_is_refused_though_its_digest_is_right(
    live: LiveService,
    task: Task,
    device: SyntheticDevice,
    work: pb.Assignment,
    way: str,
    payload: bytes,
) -> None:
    send = getattr(device, way)
    assert sha256(payload).digest() != sha256(PAYLOAD).digest()
    assert_refused(
        lambda data: send(work, data),
        payload,
        Reason.MALFORMED_MESSAGE,
        Reason.FIELD_REQUIRED,
        Reason.CHECKSUM_MISMATCH,
    )
    assert_nothing_happened(live, task)
    # The device may still hand in a sound one.
    assert not send(work, PAYLOAD).duplicate


def test_a_stream_of_nothing_is_refused(
    live: LiveService, task: Task, device: SyntheticDevice, work: pb.Assignment
) -> None:
    del work
    assert_refused(lambda _: device.stream_bytes("StreamUpdate", []), b"", Reason.CHUNK_SEQUENCE)
    assert_nothing_happened(live, task)
