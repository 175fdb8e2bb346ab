"""Updates of several durable pieces: streams of them, whole or in part, and what is kept."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from aggregator_service.domain.tasks import Task
from flasc_core.errors import Reason
from flasc_core.methods import Flasc
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.sparse import SparseVector
from flasc_core.wire import encode
from tests.builders import a_policy
from tests.support.device import SyntheticDevice, header_for, reason_of, stream_parts
from tests.support.live import LiveService
from tests.support.mortal_device import flat_layout
from tests.support.refused import refused
from tests.support.seen import record_of, updates_of

__all__ = [
    "OTHER",
    "PAYLOAD",
    "SIZE",
    "a_task",
    "check_accepted",
    "kept",
    "send_part",
    "sent",
]

# Every coordinate with 4 bytes: three whole pieces and a part of one.
_DIM: Final = 400_000


def _payload(value: float = 1.0) -> bytes:
    values = np.full(_DIM, value, dtype=np.float32)
    return encode(SparseVector(dim=_DIM, indices=np.arange(_DIM, dtype=np.int64), values=values))


PAYLOAD: Final = _payload()
OTHER: Final = _payload(2.0)
SIZE: Final = len(PAYLOAD)


def a_task(live: LiveService, *, goal: int = 2) -> Task:
    return live.create_task(
        layout=flat_layout(_DIM),
        method=Flasc(download_density=0.001, upload_density=1.0),
        policy=a_policy(goal=goal, quorum=1),
    )


def send_part(
    device: SyntheticDevice,
    given: pb.Assignment,
    payload: bytes,
    end: int,
    *,
    start: int = 0,
    **header: Any,
) -> None:
    """A stream that the device ends too early."""
    parts = stream_parts(header_for(given, PAYLOAD, **header), payload[:end], start=start)
    error = refused(device.stream_bytes, "StreamUpdate", parts)
    assert reason_of(error) is Reason.CHUNK_SEQUENCE


def kept(live: LiveService) -> list[str]:
    return [key for key in live.blobs.keys("rounds/") if "/uploads/" in key]


def sent(live: LiveService, given: pb.Assignment) -> int:
    """What the ledger has of the assignment's uploads."""
    live.booked()
    return record_of(live.store, given).payload_bytes_up


def check_accepted(live: LiveService, task: Task, payload: bytes = PAYLOAD) -> None:
    [update] = updates_of(live.store, live.latest_round(task))
    assert update.payload_key is not None
    assert live.blobs.get(update.payload_key) == payload
    assert kept(live) == []
