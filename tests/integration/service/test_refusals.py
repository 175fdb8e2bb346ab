"""Every bad request has its status and its reason, and changes nothing but bytes and one count.

The rows share one service and one round: what is refused leaves nothing that another could see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from aggregator_service.app.upload_rules import payload_limit
from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.builders import a_config, digest
from tests.support.bad_requests import PAYLOAD, TASK, Bad, check_refused, check_spoils_nothing
from tests.support.device import METHODS, SyntheticDevice, header_for, reason_of
from tests.support.live import LiveService
from tests.support.refused import call, refused
from tests.support.seen import assignment_of

CODE = grpc.StatusCode
INVALID, MISSING = CODE.INVALID_ARGUMENT, Reason.FIELD_REQUIRED
RANGE, MALFORMED = Reason.FIELD_RANGE, Reason.MALFORMED_MESSAGE


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


# The largest update of this task keeps 6 values; see payload_limit.
LIMIT = 9 * 6 + 128 + 64


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
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_by_reason_and_changes_nothing(
    roomy: LiveService, name: str
) -> None:
    check_refused(roomy, BAD[name])


@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if bad.payload_bytes])
def test_a_payload_that_came_with_a_bad_request_does_not_spoil_the_next(
    roomy: LiveService, name: str
) -> None:
    check_spoils_nothing(roomy, BAD[name])


def test_the_largest_stream_is_the_rule_s(roomy: LiveService) -> None:
    device = roomy.device()
    given = device.assignment(TASK)
    config = a_config()
    rule = config.method.plan(config.layout, 0).upload
    assert payload_limit(rule) == LIMIT
    header = header_for(given, PAYLOAD)
    parts = [announced(header, LIMIT).SerializeToString()]
    # The limit itself may be announced; then the chunks are missed.
    error = refused(device.stream_bytes, "StreamUpdate", parts)
    assert reason_of(error) is Reason.OFFSET_RANGE


def test_fields_that_nobody_knows_yet_are_ignored(roomy: LiveService) -> None:
    device = roomy.device()
    given = device.assignment(TASK)
    unknown = b"\xf8\x07\x01"
    header = header_for(given, PAYLOAD).SerializeToString() + unknown
    request = pb.SubmitUpdateRequest(
        header=pb.UpdateHeader.FromString(header), payload=PAYLOAD
    ).SerializeToString()
    device.call_bytes("SubmitUpdate", request + unknown)
    assert assignment_of(roomy.store, given).state == "ACCEPTED"
