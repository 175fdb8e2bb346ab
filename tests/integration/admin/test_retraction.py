"""An operator takes an update back over REST."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.credentials import Device
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.updates import Update, UpdateState
from flasc_core.errors import Reason
from tests.builders import (
    a_device,
    a_round,
    a_task,
    an_adapter,
    an_assignment,
    an_update,
    some_counts,
    some_training,
    stored,
)
from tests.support.operator import Operator

WHY = "the owner withdrew consent"


def a_stored_part(operator: Operator, *, state: RoundState) -> tuple[Round, Device]:
    """A round with one device's accepted update, for which it has taken a seat."""
    task, device = a_task(), a_device()
    current = a_round(task, state=state)
    part = an_assignment(
        current,
        device,
        state=AssignmentState.ACCEPTED,
        training_metrics=some_training(),
        evaluation=some_counts(),
    )
    stored(operator.store, task, device, an_adapter(task), current, part, an_update(part))
    operator.store.run("seat", lambda tx: tx.rounds.take_seat(current.id, 1))
    return current, device


def retract(operator: Operator, current: UUID, device: UUID, **body: Any) -> httpx.Response:
    path = f"/v1/rounds/{current}/updates/{device}/retract"
    return operator.post(path, json=body or {"reason": WHY})


def update_of(operator: Operator, current: Round, device: Device) -> Update:
    found = operator.store.read("test", lambda tx: tx.updates.get(current.id, device.id))
    assert found is not None
    return found


def test_an_update_is_retracted_and_the_round_says_so(operator: Operator) -> None:
    current, device = a_stored_part(operator, state=RoundState.COLLECTING)

    answer = retract(operator, current.id, device.id)

    assert answer.status_code == 200
    shown = answer.json()
    assert shown["state"] == "COLLECTING"
    assert shown["devices"]["accepted"] == 0
    assert shown["devices"]["by_state"]["RETRACTED"] == 1
    assert shown["training"]["examples"] == 0
    assert shown["evaluation"] is None
    assert update_of(operator, current, device).state is UpdateState.RETRACTED
    (part,) = operator.get(f"/v1/rounds/{current.id}/assignments").json()["items"]
    assert (part["state"], part["detail"]) == ("RETRACTED", WHY)
    assert (part["training"], part["evaluation"]) == (None, None)


def test_retracting_again_keeps_the_first_reason_and_tells_of_it_once(operator: Operator) -> None:
    current, device = a_stored_part(operator, state=RoundState.COLLECTING)
    first = retract(operator, current.id, device.id)
    events = operator.store.read("test", lambda tx: tx.events.last_sequence())

    again = retract(operator, current.id, device.id, reason="another")

    assert (again.status_code, again.json()) == (200, first.json())
    (part,) = operator.get(f"/v1/rounds/{current.id}/assignments").json()["items"]
    assert part["detail"] == WHY
    assert events == 1
    assert operator.store.read("test", lambda tx: tx.events.last_sequence()) == events


@pytest.mark.parametrize("state", [RoundState.CLOSING, RoundState.FOLDING, RoundState.PUBLISHED])
def test_after_the_close_a_retraction_is_refused_with_what_to_do(
    operator: Operator, state: RoundState
) -> None:
    current, device = a_stored_part(operator, state=state)
    before = update_of(operator, current, device)

    answer = retract(operator, current.id, device.id)

    assert (answer.status_code, answer.json()["reason"]) == (409, Reason.ROUND_CLOSED)
    assert ("abort the round" in answer.json()["detail"]) == (state is not RoundState.PUBLISHED)
    assert update_of(operator, current, device) == before


def test_what_does_not_exist_is_not_retracted(operator: Operator) -> None:
    current, device = a_stored_part(operator, state=RoundState.COLLECTING)
    for round_id, device_id, reason in (
        (uuid4(), device.id, Reason.ROUND_UNKNOWN),
        (current.id, uuid4(), Reason.UPDATE_UNKNOWN),
    ):
        answer = retract(operator, round_id, device_id)
        assert (answer.status_code, answer.json()["reason"]) == (404, reason)


@pytest.mark.parametrize(
    "body",
    [
        {"reason": text}
        for text in ("", " ", "x" * 501, "a\0b", "a\nb", "\x1b[2J", "a\u2028b", "a\x9b2J", "\xa0")
    ],
)
def test_a_reason_says_something_and_is_short(operator: Operator, body: dict[str, str]) -> None:
    current, device = a_stored_part(operator, state=RoundState.COLLECTING)

    answer = retract(operator, current.id, device.id, **body)

    assert (answer.status_code, answer.json()["reason"]) == (422, Reason.FIELD_RANGE)
    assert update_of(operator, current, device).state is UpdateState.ACCEPTED


def test_a_retraction_without_a_reason_is_refused(operator: Operator) -> None:
    current, device = a_stored_part(operator, state=RoundState.COLLECTING)

    path = f"/v1/rounds/{current.id}/updates/{device.id}/retract"
    answer = operator.post(path, json={})

    assert (answer.status_code, answer.json()["reason"]) == (422, Reason.FIELD_REQUIRED)
    assert update_of(operator, current, device).state is UpdateState.ACCEPTED
