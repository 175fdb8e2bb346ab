"""Every reason for a refusal has its place in each of the three tables."""

from __future__ import annotations

from http import HTTPStatus

import grpc
import pytest

from admin_api.problems import STATUS as HTTP_STATUS
from aggregator_service.rpc.errors import STATUS, storage_refusal, too_slow_refusal
from client_sdk._errors import BY_REASON, ConnectionFailed, ServiceError
from flasc_core.errors import Reason

CODE = grpc.StatusCode
# What a device tries again where the answer does not say otherwise.
TRIED_AGAIN = {CODE.UNAVAILABLE, CODE.DEADLINE_EXCEEDED, CODE.ABORTED, CODE.DATA_LOSS}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_grpc_status(reason: Reason) -> None:
    code = STATUS[reason]
    # OK would hide a refusal; INTERNAL and UNKNOWN are for bugs, and clients retry them for ever.
    assert code not in (CODE.OK, CODE.INTERNAL, CODE.UNKNOWN)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_an_exception_of_the_sdk(reason: Reason) -> None:
    kind = BY_REASON[reason]
    assert issubclass(kind, ServiceError)
    assert kind is not ServiceError


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_an_http_status(reason: Reason) -> None:
    assert HTTP_STATUS[reason] >= HTTPStatus.BAD_REQUEST
    assert HTTP_STATUS[reason] is not HTTPStatus.INTERNAL_SERVER_ERROR


def test_the_tables_hold_nothing_else() -> None:
    assert set(STATUS) == set(BY_REASON) == set(HTTP_STATUS) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_a_status_is_tried_again_just_where_the_exception_is_one_of_the_connection(
    reason: Reason,
) -> None:
    again = STATUS[reason] in TRIED_AGAIN or reason is Reason.OVERLOADED
    assert issubclass(BY_REASON[reason], ConnectionFailed) == again


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_written_as_it_is_named(reason: Reason) -> None:
    assert reason.value == reason.name
    assert reason.name == reason.name.upper()


def test_the_service_s_own_condition_says_when_to_come_back() -> None:
    for refusal, reason in (
        (storage_refusal(), Reason.STORAGE),
        (too_slow_refusal(), Reason.OVERLOADED),
    ):
        assert refusal.reason is reason
        assert refusal.retry_after is not None
        assert refusal.retry_after.total_seconds() > 0
