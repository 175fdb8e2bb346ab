"""Reasons and the HTTP statuses that tell them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from admin_api.problems import STATUS, problem_response, refusals
from flasc_core.errors import Reason, Refusal


def test_every_reason_has_a_status() -> None:
    assert STATUS.keys() == set(Reason)


def test_no_refusal_looks_like_success_or_a_bug() -> None:
    assert all(400 <= status < 600 and status != 500 for status in STATUS.values())


@pytest.mark.parametrize(("seconds", "header"), [(0.1, "1"), (2.4, "2"), (90, "90")])
def test_a_refusal_that_may_be_retried_says_when(seconds: float, header: str) -> None:
    refusal = Refusal(Reason.OVERLOADED, "busy", retry_after=timedelta(seconds=seconds))

    assert problem_response(refusal).headers["Retry-After"] == header


def test_a_refusal_for_good_does_not_say_when() -> None:
    answer = problem_response(Refusal(Reason.NAME_TAKEN, "taken", name="x"))

    assert "Retry-After" not in answer.headers
    assert answer.media_type == "application/problem+json"


def test_reasons_of_one_status_are_described_together() -> None:
    described = refusals(Reason.TASK_STATE, Reason.NAME_TAKEN, Reason.TASK_UNKNOWN)

    assert described.keys() == {409, 404}
    examples = described[409]["content"]["application/problem+json"]["examples"]
    assert examples.keys() == {"TASK_STATE", "NAME_TAKEN"}
