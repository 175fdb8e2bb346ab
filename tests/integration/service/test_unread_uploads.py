"""What arrived is in the byte ledger, also where nobody came to read it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregator_service.store.base import StoreUnavailable
from aggregator_service.store.memory import MemoryBlobs, MemoryStore
from flasc_core.errors import Reason
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.sparse import SparseVector
from flasc_core.wire import encode
from tests.support.device import reason_of
from tests.support.live import live_service
from tests.support.refused import refused
from tests.support.seen import record_of

TASK = "a-task"
BUDGET = 1 << 20
DIM = 300_000
LAYOUT = AdapterLayout(tensors=(TensorSpec(name="a", shape=(DIM,), role=Role.LORA_A),))
# More than an uploads budget may be, and than a row holds.
PAYLOAD = encode(
    SparseVector(
        dim=DIM, indices=np.arange(DIM, dtype=np.int64), values=np.ones(DIM, dtype=np.float32)
    )
)


class FullBlobs(MemoryBlobs):
    def put(self, key: str, data: bytes) -> None:
        if "/updates/" in key:
            raise StoreUnavailable("the disk is full")
        super().put(key, data)


@pytest.mark.parametrize(
    ("budget", "header", "reason"),
    [
        (BUDGET, {}, Reason.OVERLOADED),
        (2 * BUDGET, {"download_sha256": bytes(31)}, Reason.FIELD_RANGE),
        (2 * BUDGET, {}, Reason.STORAGE),
    ],
)
def test_an_upload_that_is_not_read_is_counted(
    budget: int, header: dict[str, Any], reason: Reason
) -> None:
    store = MemoryStore()
    with live_service(store, FullBlobs(), upload_bytes_in_flight=budget) as live:
        live.create_task(layout=LAYOUT, method=Flasc(download_density=0.1, upload_density=1.0))
        device = live.device()
        given = device.assignment(TASK)
        for attempts in (1, 2):
            assert reason_of(refused(device.submit, given, PAYLOAD, **header)) is reason
            live.booked()
            assert record_of(store, given).payload_bytes_up == attempts * len(PAYLOAD)


def test_of_a_stranger_s_assignment_nothing_is_counted() -> None:
    store = MemoryStore()
    with live_service(store, MemoryBlobs(), upload_bytes_in_flight=BUDGET) as live:
        live.create_task()
        given = live.device().assignment(TASK)
        assert reason_of(refused(live.device().submit, given, PAYLOAD)) is Reason.OVERLOADED
        live.booked()
        assert record_of(store, given).payload_bytes_up == 0
