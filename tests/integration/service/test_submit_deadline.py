"""Between a round's deadline and its closing nobody else is let in."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256

import numpy as np
import pytest

from aggregator_service.app.advance_task import AdvanceTask
from aggregator_service.app.check_in import Assigned, CheckIn, Query
from aggregator_service.app.create_task import CreateTask
from aggregator_service.app.submit_update import SubmitUpdate
from aggregator_service.app.upload_rules import UpdateHeader
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from flasc_core.errors import Reason, Refusal
from tests.builders import a_config, a_device, stored
from tests.integration.service.conftest import Clock
from tests.support.device import encoded_vector
from tests.support.seen import standing_of

PAYLOAD = encoded_vector(24, {3: 1.0, 7: -0.5})
TICK = timedelta(microseconds=1)


@pytest.fixture
def submit(sqlite_store: Store, blobs: BlobStore, clock: Clock) -> SubmitUpdate:
    config = a_config()
    weights = np.ones(config.layout.dim, dtype=np.float32)
    task = CreateTask(store=sqlite_store, blobs=blobs, now=clock)("a-task", config, weights)
    AdvanceTask(store=sqlite_store, blobs=blobs, now=clock)(task.id)
    return SubmitUpdate(store=sqlite_store, blobs=blobs, now=clock)


def given_by(submit: SubmitUpdate, clock: Clock) -> Assigned:
    device = a_device()
    stored(submit.store, device)
    found = CheckIn(store=submit.store, now=clock)(device.id, Query(task_name="a-task"))
    assert isinstance(found, Assigned)
    return found


def header_of(given: Assigned) -> UpdateHeader:
    return UpdateHeader(
        assignment_id=given.assignment.id,
        payload_sha256=sha256(PAYLOAD).digest(),
        payload_size_bytes=len(PAYLOAD),
        download_sha256=given.assignment.download_sha256,
        weight=1,
    )


def test_an_update_just_before_the_deadline_counts(submit: SubmitUpdate, clock: Clock) -> None:
    given = given_by(submit, clock)
    clock.move(timedelta(minutes=10) - TICK)
    assert not submit(given.assignment.device_id, header_of(given), PAYLOAD).duplicate


def test_an_update_at_the_deadline_does_not_though_nobody_has_closed_the_round(
    submit: SubmitUpdate, clock: Clock
) -> None:
    given = given_by(submit, clock)
    before = standing_of(submit.store, given.round)
    clock.move(timedelta(minutes=10))
    with pytest.raises(Refusal) as refused:
        submit(given.assignment.device_id, header_of(given), PAYLOAD)
    assert refused.value.reason is Reason.ROUND_CLOSED
    assert standing_of(submit.store, given.round) == before


def test_a_repeat_after_the_deadline_still_gets_its_receipt(
    submit: SubmitUpdate, clock: Clock
) -> None:
    given = given_by(submit, clock)
    first = submit(given.assignment.device_id, header_of(given), PAYLOAD)
    clock.move(timedelta(days=1))
    again = submit(given.assignment.device_id, header_of(given), PAYLOAD)
    assert again.duplicate
    assert again.update.id == first.update.id
