"""Every bad input has its status and its reason, and changes nothing but bytes and one count.

The rows share one service and one round: what is refused leaves nothing that another could see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
import pytest

from aggregator_service.app.upload_rules import payload_limit
from aggregator_service.store.open import open_blobs, open_store
from aggregator_service.store.schema import upgrade
from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.pb.v1 import sparse_update_pb2
from tests.builders import a_config, a_policy, digest
from tests.support.device import (
    METHODS,
    SyntheticDevice,
    details_of,
    encoded_vector,
    header_for,
    reason_of,
)
from tests.support.live import LiveService, live_service
from tests.support.refused import call, refused
from tests.support.seen import (
    all_rejections,
    assignment_of,
    record_of,
    rejections_of,
    standing_of,
)
from tests.unit.core.builders import DENSE, a_payload, a_segment

CODE = grpc.StatusCode
PAYLOAD = encoded_vector(24, {3: 1.0})
DIM = 24
TASK = "a-task"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    folder = tmp_path_factory.mktemp("refusals")
    url = f"sqlite:///{folder}/flasc.db"
    upgrade(url)
    store = open_store(url)
    with live_service(store, open_blobs(str(folder / "blobs"))) as running:
        running.create_task(TASK, policy=a_policy(goal=100, quorum=1, over_selection=10.0))
        yield running
    store.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """One bad request of a device that has an assignment."""

    send: Callable[[SyntheticDevice, pb.Assignment], object]
    code: grpc.StatusCode
    reason: Reason
    # Whether the request names a round that the refusal can be counted under.
    in_round: bool = False
    # Payload bytes that the service takes down for the assignment.
    payload_bytes: int = 0


def raw(method: str, data: bytes, code: grpc.StatusCode, reason: Reason) -> Bad:
    def send(device: SyntheticDevice, _: pb.Assignment) -> object:
        return call(device, method, data)

    return Bad(send=send, code=code, reason=reason)


def bad_query(reason: Reason, code: grpc.StatusCode, **fields: Any) -> Bad:
    request = pb.CheckInRequest(**{"task_name": TASK, **fields})
    return raw("CheckIn", request.SerializeToString(), code, reason)


def bad_upload_query(reason: Reason, code: grpc.StatusCode, **fields: bytes) -> Bad:
    def send(device: SyntheticDevice, given: pb.Assignment) -> object:
        known = {"assignment_id": given.assignment_id, "payload_sha256": digest("payload")}
        request = pb.QueryUploadRequest(**(known | fields))
        return device.call_bytes("QueryUpload", request.SerializeToString())

    return Bad(send=send, code=code, reason=reason)


def bad_header(
    reason: Reason,
    code: grpc.StatusCode,
    *,
    counted: bool = True,
    in_round: bool | None = None,
    **header: Any,
) -> Bad:
    """A sound payload under a header that is not.

    `counted` where the assignment is known by then, and with it the round unless said otherwise.
    """

    def send(device: SyntheticDevice, given: pb.Assignment) -> object:
        request = pb.SubmitUpdateRequest(header=header_for(given, PAYLOAD), payload=PAYLOAD)
        for name, value in header.items():
            setattr(request.header, name, value)
        return device.call_bytes("SubmitUpdate", request.SerializeToString())

    size = len(PAYLOAD) if counted else 0
    return Bad(
        send=send,
        code=code,
        reason=reason,
        in_round=counted if in_round is None else in_round,
        payload_bytes=size,
    )


def bad_payload(
    payload: bytes, reason: Reason, code: grpc.StatusCode = CODE.INVALID_ARGUMENT
) -> Bad:
    return Bad(
        send=lambda device, given: device.submit(given, payload),
        code=code,
        reason=reason,
        in_round=True,
        payload_bytes=len(payload),
    )


def bad_stream(
    cut: Callable[[pb.UpdateHeader], list[pb.StreamUpdateRequest]],
    reason: Reason = Reason.CHUNK_SEQUENCE,
    code: grpc.StatusCode = CODE.INVALID_ARGUMENT,
    *,
    in_round: bool = False,
    payload_bytes: int = 0,
) -> Bad:
    """`payload_bytes` of its chunks arrive, the one that is refused among them."""

    def send(device: SyntheticDevice, given: pb.Assignment) -> object:
        parts = [part.SerializeToString() for part in cut(header_for(given, PAYLOAD))]
        return device.stream_bytes("StreamUpdate", parts)

    return Bad(send=send, code=code, reason=reason, in_round=in_round, payload_bytes=payload_bytes)


def bad_report(reason: Reason, **fields: Any) -> Bad:
    def send(device: SyntheticDevice, given: pb.Assignment) -> object:
        request = pb.ReportOutcomeRequest(assignment_id=given.assignment_id, **fields)
        return device.call_bytes("ReportOutcome", request.SerializeToString())

    return Bad(send=send, code=CODE.INVALID_ARGUMENT, reason=reason)


def first(header: pb.UpdateHeader) -> pb.StreamUpdateRequest:
    return pb.StreamUpdateRequest(header=header)


def chunk(offset: int, data: bytes) -> pb.StreamUpdateRequest:
    return pb.StreamUpdateRequest(chunk=pb.UpdateChunk(offset=offset, data=data))


def announced(header: pb.UpdateHeader, size: int) -> pb.StreamUpdateRequest:
    header.payload_size_bytes = size
    return pb.StreamUpdateRequest(header=header)


def segment(**changes: Any) -> bytes:
    return a_payload(a_segment(**changes), dim=DIM)


def value(number: float) -> bytes:
    return segment(start=9, length=1, nnz=1, index_encoding=DENSE, gaps=[], values=[number])


# The largest update of this task keeps 6 values; see payload_limit.
LIMIT = 9 * 6 + 128 + 64
INVALID, MISSING = CODE.INVALID_ARGUMENT, Reason.FIELD_REQUIRED
RANGE, MALFORMED = Reason.FIELD_RANGE, Reason.MALFORMED_MESSAGE
BFLOAT16 = sparse_update_pb2.VALUE_ENCODING_BFLOAT16
DEFLATE = sparse_update_pb2.COMPRESSION_DEFLATE

BAD: dict[str, Bad] = {
    # Malformed and truncated messages, on every rpc.
    **{f"{name}: no protobuf": raw(name, b"\xff\xff", INVALID, MALFORMED) for name in METHODS},
    **{f"{name}: cut off": raw(name, b"\x0a\x10abc", INVALID, MALFORMED) for name in METHODS},
    "CheckIn: invalid UTF-8": raw("CheckIn", b"\x0a\x02\xff\xfe", INVALID, MALFORMED),
    "ReportOutcome: invalid UTF-8": raw("ReportOutcome", b"\x1a\x01\xff", INVALID, MALFORMED),
    "StreamUpdate: malformed after the header": Bad(
        send=lambda device, given: device.stream_bytes(
            "StreamUpdate", [first(header_for(given, PAYLOAD)).SerializeToString(), b"\xff"]
        ),
        code=INVALID,
        reason=MALFORMED,
    ),
    # Fields that are missing.
    "CheckIn: empty": raw("CheckIn", b"", INVALID, MISSING),
    "DownloadAdapter: empty": raw("DownloadAdapter", b"", INVALID, MISSING),
    "SubmitUpdate: empty": raw("SubmitUpdate", b"", INVALID, MISSING),
    "QueryUpload: empty": raw("QueryUpload", b"", INVALID, MISSING),
    "ReportOutcome: empty": raw("ReportOutcome", b"", INVALID, MISSING),
    "StreamUpdate: empty": raw("StreamUpdate", b"", INVALID, Reason.CHUNK_SEQUENCE),
    "StreamUpdate: empty header": bad_stream(lambda _: [first(pb.UpdateHeader())], MISSING),
    "no payload digest": bad_header(MISSING, INVALID, in_round=False, payload_sha256=b""),
    "no download digest": bad_header(MISSING, INVALID, in_round=False, download_sha256=b""),
    "no outcome": bad_report(MISSING),
    # Fields out of range.
    "unknown outcome": bad_report(Reason.UNKNOWN_ENUM, outcome=99),
    "negative outcome": bad_report(Reason.UNKNOWN_ENUM, outcome=-1),
    "short assignment id": bad_header(RANGE, INVALID, counted=False, assignment_id=b"short"),
    "long assignment id": bad_header(RANGE, INVALID, counted=False, assignment_id=bytes(17)),
    "short payload digest": bad_header(RANGE, INVALID, in_round=False, payload_sha256=bytes(31)),
    "long download digest": bad_header(RANGE, INVALID, in_round=False, download_sha256=bytes(33)),
    "no digest asked for": bad_upload_query(MISSING, INVALID, payload_sha256=b""),
    "short digest asked for": bad_upload_query(RANGE, INVALID, payload_sha256=bytes(31)),
    "unknown assignment asked for": bad_upload_query(
        Reason.ASSIGNMENT_UNKNOWN, CODE.NOT_FOUND, assignment_id=bytes(16)
    ),
    "short fingerprint": bad_query(RANGE, INVALID, layout_fingerprint=b"short"),
    "long base digest": bad_query(RANGE, INVALID, base_model_sha256=bytes(64)),
    "NUL in a task's name": bad_query(RANGE, INVALID, task_name="a\0task"),
    "NUL in a detail": bad_report(RANGE, outcome=pb.OUTCOME_FAILED, detail="a\0b"),
    "detail too long": bad_report(RANGE, outcome=pb.OUTCOME_FAILED, detail="x" * 501),
    # What is asked for.
    "unknown task": bad_query(Reason.TASK_UNKNOWN, CODE.NOT_FOUND, task_name="no-such-task"),
    "another layout": bad_query(
        Reason.LAYOUT_MISMATCH, CODE.FAILED_PRECONDITION, layout_fingerprint=digest("other")
    ),
    "another base model": bad_query(
        Reason.BASE_MODEL_MISMATCH, CODE.FAILED_PRECONDITION, base_model_sha256=digest("other")
    ),
    "unknown assignment": bad_header(
        Reason.ASSIGNMENT_UNKNOWN, CODE.NOT_FOUND, counted=False, assignment_id=bytes(16)
    ),
    "stale base": bad_header(
        Reason.STALE_BASE, CODE.FAILED_PRECONDITION, download_sha256=digest("other")
    ),
    "weight of 0": bad_header(Reason.WEIGHT_RANGE, INVALID, weight=0),
    "weight above the task's": bad_header(Reason.WEIGHT_RANGE, INVALID, weight=2),
    "largest weight": bad_header(Reason.WEIGHT_RANGE, INVALID, weight=2**32 - 1),
    "digest of other bytes": bad_header(
        Reason.DIGEST_MISMATCH, CODE.DATA_LOSS, payload_sha256=digest("other")
    ),
    "a byte less than announced": bad_header(
        Reason.LENGTH_MISMATCH, INVALID, payload_size_bytes=len(PAYLOAD) + 1
    ),
    "a byte more than announced": bad_header(
        Reason.LENGTH_MISMATCH, INVALID, payload_size_bytes=len(PAYLOAD) - 1
    ),
    # The stream.
    "chunk before the header": bad_stream(lambda _: [chunk(0, PAYLOAD)]),
    "no chunk": bad_stream(lambda header: [first(header)], Reason.OFFSET_RANGE, CODE.OUT_OF_RANGE),
    "second header": bad_stream(lambda header: [first(header), first(header)]),
    "part that is neither": bad_stream(lambda header: [first(header), pb.StreamUpdateRequest()]),
    "empty chunk": bad_stream(lambda header: [first(header), chunk(0, b""), chunk(0, PAYLOAD)]),
    "start beyond what is durable": bad_stream(
        lambda header: [first(header), chunk(1, PAYLOAD[1:])],
        Reason.OFFSET_RANGE,
        CODE.OUT_OF_RANGE,
        payload_bytes=len(PAYLOAD) - 1,
    ),
    "gap": bad_stream(
        lambda header: [first(header), chunk(0, PAYLOAD[:4]), chunk(5, PAYLOAD[5:])],
        payload_bytes=len(PAYLOAD) - 1,
    ),
    "overlap": bad_stream(
        lambda header: [first(header), chunk(0, PAYLOAD[:4]), chunk(3, PAYLOAD[3:])],
        payload_bytes=len(PAYLOAD) + 1,
    ),
    "chunk twice": bad_stream(
        lambda header: [first(header), chunk(0, PAYLOAD[:4]), chunk(0, PAYLOAD[:4])],
        payload_bytes=8,
    ),
    "ends early": bad_stream(
        lambda header: [first(header), chunk(0, PAYLOAD[:-1])], payload_bytes=len(PAYLOAD) - 1
    ),
    "more than announced": bad_stream(
        lambda header: [first(header), chunk(0, PAYLOAD + b"\0")], payload_bytes=len(PAYLOAD) + 1
    ),
    "chunk after the end": bad_stream(
        lambda header: [first(header), chunk(0, PAYLOAD), chunk(len(PAYLOAD), b"\0")],
        payload_bytes=len(PAYLOAD) + 1,
    ),
    "more announced than any update has": bad_stream(
        lambda header: [announced(header, LIMIT + 1)],
        Reason.MESSAGE_TOO_LARGE,
        CODE.RESOURCE_EXHAUSTED,
        in_round=True,
    ),
    "as much announced as there are numbers": bad_stream(
        lambda header: [announced(header, 2**64 - 1)],
        Reason.MESSAGE_TOO_LARGE,
        CODE.RESOURCE_EXHAUSTED,
        in_round=True,
    ),
    # The payload; its own tests have the rest.
    "no update": bad_payload(b"\xff\xff", MALFORMED),
    "empty payload": bad_payload(b"", MISSING),
    "no encoding": bad_payload(segment(value_encoding=0), MISSING),
    "unknown encoding": bad_payload(segment(value_encoding=99), Reason.UNKNOWN_ENUM),
    "encoding not accepted": bad_payload(
        segment(value_encoding=BFLOAT16, value_data=bytes(6)), Reason.VALUE_FORMAT
    ),
    "compressed bomb": bad_payload(
        segment(index_compression=DEFLATE, gap_high=bytes(64)), Reason.VALUE_FORMAT
    ),
    "another dimension": bad_payload(
        a_payload(a_segment(), dim=DIM + 1), Reason.DIMENSION_MISMATCH
    ),
    "a repeated index": bad_payload(
        a_payload(a_segment(), a_segment(), dim=DIM), Reason.SEGMENT_ORDER
    ),
    "an index beyond the end": bad_payload(
        segment(start=DIM - 4), Reason.INDEX_RANGE, CODE.OUT_OF_RANGE
    ),
    "nothing": bad_payload(a_payload(dim=DIM), Reason.K_BUDGET),
    "more than the rule keeps": bad_payload(
        encoded_vector(DIM, dict.fromkeys(range(7), 1.0)), Reason.K_BUDGET
    ),
    "fewer values than indices": bad_payload(segment(values=[1.0]), Reason.LENGTH_MISMATCH),
    "too many bytes": bad_payload(
        a_payload(*[b""] * 5_000, dim=DIM), Reason.MESSAGE_TOO_LARGE, CODE.RESOURCE_EXHAUSTED
    ),
    "NaN": bad_payload(value(float("nan")), Reason.NON_FINITE),
    "infinity": bad_payload(value(float("inf")), Reason.NON_FINITE),
    "minus infinity": bad_payload(value(float("-inf")), Reason.NON_FINITE),
    "too large": bad_payload(value(64.00001), Reason.VALUE_RANGE),
    "too small": bad_payload(value(-64.00001), Reason.VALUE_RANGE),
    "damaged": bad_payload(a_payload(a_segment(), dim=DIM, crc32=1), Reason.CHECKSUM_MISMATCH),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_by_reason_and_changes_nothing(
    service: LiveService, name: str
) -> None:
    bad = BAD[name]
    device = service.device()
    given = device.assignment(TASK)
    store = service.store
    current = store.read("test", lambda tx: tx.rounds.get(UUID(bytes=given.round_id)))
    assert current is not None
    before, counted = standing_of(store, current), rejections_of(store, current)
    total, up = all_rejections(store), record_of(store, given).payload_bytes_up

    error = refused(bad.send, device, given)

    assert (error.code(), reason_of(error)) == (bad.code, bad.reason)
    assert details_of(error).retry_delay is None
    service.booked()
    assert standing_of(store, current) == before
    assert record_of(store, given).payload_bytes_up == up + bad.payload_bytes
    assert all_rejections(store) == {**total, bad.reason: total.get(bad.reason, 0) + 1}
    one_more = {**counted, bad.reason: counted.get(bad.reason, 0) + 1}
    assert rejections_of(store, current) == (one_more if bad.in_round else counted)


@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if bad.payload_bytes])
def test_a_refused_payload_does_not_spoil_the_next(service: LiveService, name: str) -> None:
    device = service.device()
    given = device.assignment(TASK)
    refused(BAD[name].send, device, given)
    assert not device.submit(given, PAYLOAD).duplicate


@pytest.mark.parametrize(
    "name", [name for name, bad in BAD.items() if bad.send.__qualname__.startswith("bad_payload")]
)
def test_a_streamed_payload_is_refused_for_the_same_reason(service: LiveService, name: str) -> None:
    sent: list[bytes] = []

    @dataclass(frozen=True)
    class Recorder:
        def submit(self, _: pb.Assignment, payload: bytes) -> None:
            sent.append(payload)

    bad = BAD[name]
    device = service.device()
    given = device.assignment(TASK)
    bad.send(Recorder(), given)  # type: ignore[arg-type]
    [payload] = sent
    error = refused(device.stream, given, payload)
    assert (error.code(), reason_of(error)) == (bad.code, bad.reason)


def test_the_largest_stream_is_the_rule_s(service: LiveService) -> None:
    device = service.device()
    given = device.assignment(TASK)
    config = a_config()
    rule = config.method.plan(config.layout, 0).upload
    assert payload_limit(rule) == LIMIT
    header = header_for(given, PAYLOAD)
    parts = [announced(header, LIMIT).SerializeToString()]
    # The limit itself may be announced; then the chunks are missed.
    error = refused(device.stream_bytes, "StreamUpdate", parts)
    assert reason_of(error) is Reason.OFFSET_RANGE


@pytest.mark.parametrize("number", [64.0, -64.0])
def test_the_largest_value_is_accepted(service: LiveService, number: float) -> None:
    device = service.device()
    device.submit(device.assignment(TASK), value(number))


def test_as_many_values_as_the_rule_keeps_are_accepted(service: LiveService) -> None:
    device = service.device()
    device.submit(device.assignment(TASK), encoded_vector(DIM, dict.fromkeys(range(6), 1.0)))


def test_fields_that_nobody_knows_yet_are_ignored(service: LiveService) -> None:
    device = service.device()
    given = device.assignment(TASK)
    unknown = b"\xf8\x07\x01"
    header = header_for(given, PAYLOAD).SerializeToString() + unknown
    request = pb.SubmitUpdateRequest(
        header=pb.UpdateHeader.FromString(header), payload=PAYLOAD
    ).SerializeToString()
    device.call_bytes("SubmitUpdate", request + unknown)
    assert assignment_of(service.store, given).state == "ACCEPTED"
