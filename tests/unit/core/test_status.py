"""Refusals in the status trailer."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import status_pb2
from flasc_core.status import StatusDetails, decode_status, encode_status

ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


def a_status(*details: tuple[str, bytes]) -> bytes:
    return status_pb2.Status(
        code=3,
        message="no",
        details=[AnyMessage(type_url=url, value=value) for url, value in details],
    ).SerializeToString()


def test_a_refusal_arrives_with_reason_facts_and_delay() -> None:
    refusal = Refusal(
        Reason.OVERLOADED,
        "come back later",
        retry_after=timedelta(seconds=2, milliseconds=500),
        queue=7,
        share=0.5,
    )
    assert decode_status(encode_status(8, refusal)) == StatusDetails(
        code=8,
        message="come back later",
        reason="OVERLOADED",
        metadata={"queue": "7", "share": "0.5"},
        retry_delay=timedelta(seconds=2.5),
    )


def test_a_refusal_that_is_final_has_no_delay() -> None:
    details = decode_status(encode_status(3, Refusal(Reason.INDEX_RANGE, "too far")))
    assert details.retry_delay is None
    assert details.metadata == {}


def test_the_bytes_are_those_of_google_rpc() -> None:
    # Field numbers and type URLs as google.rpc.Status, ErrorInfo and RetryInfo have them.
    assert encode_status(5, Refusal(Reason.STORAGE, "m", retry_after=timedelta(seconds=1))) == (
        b"\x08\x05\x12\x01m"
        b"\x1a\x3f\x0a\x28type.googleapis.com/google.rpc.ErrorInfo"
        b"\x12\x13\x0a\x07STORAGE\x12\x08flasc.v1"
        b"\x1a\x30\x0a\x28type.googleapis.com/google.rpc.RetryInfo"
        b"\x12\x04\x0a\x02\x08\x01"
    )


def test_details_of_others_are_ignored() -> None:
    foreign = status_pb2.ErrorInfo(reason="QUOTA", domain="example.org").SerializeToString()
    details = decode_status(a_status((ERROR_INFO, foreign), ("type.googleapis.com/else", b"\xff")))
    assert details == StatusDetails(
        code=3, message="no", reason=None, metadata={}, retry_delay=None
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        encode_status(3, Refusal(Reason.STORAGE, "m"))[:-1],
        a_status((ERROR_INFO, b"\xff")),
        a_status(
            (
                "type.googleapis.com/google.rpc.RetryInfo",
                status_pb2.RetryInfo(retry_delay=Duration(seconds=2**62)).SerializeToString(),
            )
        ),
    ],
)
def test_what_is_no_status_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="is no status"):
        decode_status(data)
