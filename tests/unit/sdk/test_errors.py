"""Exceptions are chosen by reason, and the choice is complete."""

from __future__ import annotations

import inspect
from datetime import timedelta

import grpc
import pytest

from client_sdk import _errors
from client_sdk._errors import (
    BY_REASON,
    AssignmentOver,
    CallUnknown,
    ConnectionFailed,
    NotAuthorized,
    ParticipantError,
    ProtocolError,
    ServiceError,
    UpdateRejected,
    translate,
    translate_refusal,
)
from flasc_core.errors import Reason, Refusal
from flasc_core.status import encode_status


class Failure(grpc.RpcError):
    """A failed call as grpc hands it over, without a socket."""

    def __init__(self, code: grpc.StatusCode, *trailers: tuple[str, str | bytes]) -> None:
        super().__init__()
        self._code = code
        self._trailers = trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "words"

    def trailing_metadata(self) -> tuple[object, ...]:  # type: ignore[override]
        return tuple(_Entry(key, value) for key, value in self._trailers)


class _Entry:
    def __init__(self, key: str, value: str | bytes) -> None:
        self.key, self.value = key, value


def a_failure(code: grpc.StatusCode, refusal: Refusal) -> Failure:
    return Failure(code, ("grpc-status-details-bin", encode_status(code.value[0], refusal)))


def test_every_reason_has_its_exception() -> None:
    assert set(BY_REASON) == set(Reason)


def test_every_exception_stands_in_the_tree_that_the_module_draws() -> None:
    drawn = inspect.getdoc(_errors) or ""
    classes = [
        member
        for member in vars(_errors).values()
        if inspect.isclass(member) and issubclass(member, ParticipantError)
    ]
    assert len(classes) > 10
    assert [cls.__name__ for cls in classes if cls.__name__ not in drawn] == []


@pytest.mark.parametrize("reason", list(Reason))
def test_the_reason_decides_and_not_the_code(reason: Reason) -> None:
    error = translate(a_failure(grpc.StatusCode.UNKNOWN, Refusal(reason, "do this", k=3)))
    assert type(error) is BY_REASON[reason]
    assert (str(error), error.reason, error.facts) == ("do this", reason.value, {"k": "3"})
    assert not error.retryable


def test_a_reason_of_a_later_version_falls_back_to_the_code() -> None:
    trailer = encode_status(8, Refusal(Reason.OVERLOADED, "later")).replace(
        b"OVERLOADED", b"OVERBOOKED"
    )
    error = translate(Failure(grpc.StatusCode.UNAVAILABLE, ("grpc-status-details-bin", trailer)))
    assert type(error) is ConnectionFailed
    assert error.reason == "OVERBOOKED"
    assert error.retryable


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, ConnectionFailed),
        (grpc.StatusCode.INTERNAL, ConnectionFailed),
        (grpc.StatusCode.UNAUTHENTICATED, NotAuthorized),
        (grpc.StatusCode.PERMISSION_DENIED, NotAuthorized),
        (grpc.StatusCode.UNIMPLEMENTED, CallUnknown),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ProtocolError),
    ],
)
def test_a_failure_without_a_reason_is_told_by_its_code(
    code: grpc.StatusCode, kind: type[ServiceError]
) -> None:
    error = translate(Failure(code))
    assert type(error) is kind
    assert str(error) == f"{code.name}: words"


@pytest.mark.parametrize(
    "trailer",
    [("grpc-status-details-bin", b"\xff\xff"), ("grpc-status-details-bin", "text"), ("x", b"y")],
)
def test_a_trailer_that_is_no_status_is_no_reason(trailer: tuple[str, str | bytes]) -> None:
    error = translate(Failure(grpc.StatusCode.UNAVAILABLE, trailer))
    assert (error.reason, error.retry_after) == ("", None)


@pytest.mark.parametrize(
    ("code", "retry_after", "retryable"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, timedelta(seconds=2), True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, None, False),
        (grpc.StatusCode.UNAVAILABLE, None, True),
        (grpc.StatusCode.INTERNAL, timedelta(seconds=2), False),
        (grpc.StatusCode.FAILED_PRECONDITION, timedelta(seconds=2), False),
    ],
)
def test_what_may_be_repeated_follows_the_code(
    code: grpc.StatusCode, retry_after: timedelta | None, retryable: bool
) -> None:
    refusal = Refusal(Reason.OVERLOADED, "later", retry_after=retry_after)
    error = translate(a_failure(code, refusal))
    assert error.retryable is retryable
    assert error.retry_after == retry_after


def test_a_rule_broken_by_the_services_answer_keeps_its_reason() -> None:
    error = translate_refusal(Refusal(Reason.K_BUDGET, "too many", count=3))
    assert isinstance(error, UpdateRejected)
    assert error.facts == {"count": "3"}
    assert not isinstance(error, AssignmentOver)
