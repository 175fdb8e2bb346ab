"""Every bad payload has its status and its reason, and changes nothing but bytes and one count.

The rows share one service and one round: what is refused leaves nothing that another could see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from flasc_core.errors import Reason
from flasc_core.pb.v1 import sparse_update_pb2
from tests.support.bad_requests import DIM, TASK, Bad, check_refused, check_spoils_nothing
from tests.support.device import encoded_vector, reason_of
from tests.support.live import LiveService
from tests.support.refused import refused
from tests.unit.core.builders import DENSE, a_payload, a_segment

CODE = grpc.StatusCode
BFLOAT16 = sparse_update_pb2.VALUE_ENCODING_BFLOAT16
DEFLATE = sparse_update_pb2.COMPRESSION_DEFLATE


@dataclass(frozen=True, slots=True)
class BadPayload:
    payload: bytes
    reason: Reason
    code: grpc.StatusCode = CODE.INVALID_ARGUMENT

    def request(self) -> Bad:
        return Bad(
            send=lambda device, given: device.submit(given, self.payload),
            code=self.code,
            reason=self.reason,
            in_round=True,
            payload_bytes=len(self.payload),
        )


def segment(**changes: Any) -> bytes:
    return a_payload(a_segment(**changes), dim=DIM)


def value(number: float) -> bytes:
    return segment(start=9, length=1, nnz=1, index_encoding=DENSE, gaps=[], values=[number])


BAD: dict[str, BadPayload] = {
    "no update": BadPayload(b"\xff\xff", Reason.MALFORMED_MESSAGE),
    "empty payload": BadPayload(b"", Reason.FIELD_REQUIRED),
    "no encoding": BadPayload(segment(value_encoding=0), Reason.FIELD_REQUIRED),
    "unknown encoding": BadPayload(segment(value_encoding=99), Reason.UNKNOWN_ENUM),
    "encoding not accepted": BadPayload(
        segment(value_encoding=BFLOAT16, value_data=bytes(6)), Reason.VALUE_FORMAT
    ),
    "compressed bomb": BadPayload(
        segment(index_compression=DEFLATE, gap_high=bytes(64)), Reason.VALUE_FORMAT
    ),
    "another dimension": BadPayload(a_payload(a_segment(), dim=DIM + 1), Reason.DIMENSION_MISMATCH),
    "a repeated index": BadPayload(
        a_payload(a_segment(), a_segment(), dim=DIM), Reason.SEGMENT_ORDER
    ),
    "an index beyond the end": BadPayload(
        segment(start=DIM - 4), Reason.INDEX_RANGE, CODE.OUT_OF_RANGE
    ),
    "nothing": BadPayload(a_payload(dim=DIM), Reason.K_BUDGET),
    "more than the rule keeps": BadPayload(
        encoded_vector(DIM, dict.fromkeys(range(7), 1.0)), Reason.K_BUDGET
    ),
    "fewer values than indices": BadPayload(segment(values=[1.0]), Reason.LENGTH_MISMATCH),
    "too many bytes": BadPayload(
        a_payload(*[b""] * 5_000, dim=DIM), Reason.MESSAGE_TOO_LARGE, CODE.RESOURCE_EXHAUSTED
    ),
    "NaN": BadPayload(value(float("nan")), Reason.NON_FINITE),
    "infinity": BadPayload(value(float("inf")), Reason.NON_FINITE),
    "minus infinity": BadPayload(value(float("-inf")), Reason.NON_FINITE),
    "too large": BadPayload(value(64.00001), Reason.VALUE_RANGE),
    "too small": BadPayload(value(-64.00001), Reason.VALUE_RANGE),
    "damaged": BadPayload(a_payload(a_segment(), dim=DIM, crc32=1), Reason.CHECKSUM_MISMATCH),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_payload_is_refused_by_reason_and_changes_nothing(
    roomy: LiveService, name: str
) -> None:
    check_refused(roomy, BAD[name].request())


@pytest.mark.parametrize("name", BAD)
def test_a_refused_payload_does_not_spoil_the_next(roomy: LiveService, name: str) -> None:
    check_spoils_nothing(roomy, BAD[name].request())


@pytest.mark.parametrize("name", BAD)
def test_a_streamed_payload_is_refused_for_the_same_reason(roomy: LiveService, name: str) -> None:
    bad = BAD[name]
    device = roomy.device()
    error = refused(device.stream, device.assignment(TASK), bad.payload)
    assert (error.code(), reason_of(error)) == (bad.code, bad.reason)


@pytest.mark.parametrize("number", [64.0, -64.0])
def test_the_largest_value_is_accepted(roomy: LiveService, number: float) -> None:
    device = roomy.device()
    device.submit(device.assignment(TASK), value(number))


def test_as_many_values_as_the_rule_keeps_are_accepted(roomy: LiveService) -> None:
    device = roomy.device()
    device.submit(device.assignment(TASK), encoded_vector(DIM, dict.fromkeys(range(6), 1.0)))
