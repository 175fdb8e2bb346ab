"""Bad requests of a device that has an assignment, and what a refusal has to leave as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import grpc

from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.support.device import SyntheticDevice, details_of, encoded_vector, reason_of
from tests.support.live import LiveService
from tests.support.refused import refused
from tests.support.seen import all_rejections, record_of, rejections_of, standing_of

__all__ = ["DIM", "PAYLOAD", "TASK", "Bad", "check_refused", "check_spoils_nothing"]

TASK: Final = "a-task"
DIM: Final = 24
PAYLOAD: Final = encoded_vector(DIM, {3: 1.0})


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


def check_refused(service: LiveService, bad: Bad) -> None:
    """The request is refused by its reason, and nothing changes but bytes and one count."""
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


def check_spoils_nothing(service: LiveService, bad: Bad) -> None:
    """Whoever was refused hands in a sound payload all the same."""
    device = service.device()
    given = device.assignment(TASK)
    refused(bad.send, device, given)
    assert not device.submit(given, PAYLOAD).duplicate
