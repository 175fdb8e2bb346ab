"""A thousand uploads that begin and never end do not keep the service from honest devices.

Nothing here measures time: honest calls return while every one of the others is known to hang,
before them and after them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
import pytest

from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import Ending, Task
from aggregator_service.store.base import Store, Transaction
from aggregator_service.store.open import open_blobs
from flasc_core.errors import Reason
from flasc_core.methods import Flasc
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.sparse import SparseVector
from flasc_core.wire import encode
from tests.support.device import (
    SyntheticDevice,
    details_of,
    encoded_vector,
    header_for,
    reason_of,
)
from tests.support.live import LiveService, live_service
from tests.support.mortal_device import flat_layout
from tests.support.one_hot import eager_policy
from tests.support.patience import PATIENCE_SECONDS, until
from tests.support.stalled_connection import StalledConnection, as_message, half_of

T = TypeVar("T")

STREAMS_PER_CONNECTION = 16
CONNECTIONS = 63
STALLED = STREAMS_PER_CONNECTION * CONNECTIONS
# With every coordinate sent: most of what may be in memory at once.
DIM = 240_000
BYTES_IN_FLIGHT = 1 << 20
CHUNK_BYTES = 1_000


class Watched:
    """Lets a test wait until the service has looked something up so and so often."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self._reads: Counter[str] = Counter()
        self._changed = threading.Condition()

    def read(self, name: str, body: Callable[[Transaction], T]) -> T:
        result = self._inner.read(name, body)
        with self._changed:
            self._reads[name] += 1
            self._changed.notify_all()
        return result

    def wait_for(self, name: str, times: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._reads[name] >= times, PATIENCE_SECONDS), (
                self._reads
            )

    def run(self, name: str, body: Callable[[Transaction], T]) -> T:
        return self._inner.run(name, body)

    def check_ready(self) -> None:
        self._inner.check_ready()

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def watched(sqlite_store: Store) -> Watched:
    return Watched(sqlite_store)


def a_service(
    store: Store, folder: Path, *, chunk_idle_seconds: float
) -> AbstractContextManager[LiveService]:
    return live_service(
        store,
        open_blobs(str(folder)),
        upload_bytes_in_flight=BYTES_IN_FLIGHT,
        chunk_idle_seconds=chunk_idle_seconds,
        transfer_seconds=300,
    )


def a_wide_task(live: LiveService) -> Task:
    """Three updates make a round; there are seats enough for those that never send one."""
    return live.create_task(
        layout=flat_layout(DIM),
        method=Flasc(download_density=0.001, upload_density=1.0),
        policy=eager_policy(goal=3, over_selection=10.0),
        ending=Ending(rounds=1, final_evaluation=False),
    )


def a_large_payload() -> bytes:
    values = np.ones(DIM, dtype=np.float32)
    return encode(SparseVector(dim=DIM, indices=np.arange(DIM, dtype=np.int64), values=values))


def stall(connection: StalledConnection, work: pb.Assignment) -> None:
    """Fills a connection with half-sent messages, half-sent chunks and streams that fall silent."""
    payload = encoded_vector(DIM, dict.fromkeys(range(CHUNK_BYTES), 1.0))
    header = header_for(work, payload)
    request = pb.SubmitUpdateRequest(header=header, payload=payload)
    chunk = pb.UpdateChunk(offset=0, data=payload[:CHUNK_BYTES])
    first = as_message(pb.StreamUpdateRequest(header=header).SerializeToString())
    second = as_message(pb.StreamUpdateRequest(chunk=chunk).SerializeToString())
    kinds = [
        ("SubmitUpdate", [half_of(as_message(request.SerializeToString()))]),
        ("StreamUpdate", [first, half_of(second)]),
        ("StreamUpdate", [first, second]),
    ]
    for number in range(STREAMS_PER_CONNECTION):
        connection.begin(*kinds[number % len(kinds)])


def test_honest_devices_are_served_while_a_thousand_uploads_hang(
    watched: Watched, tmp_path: Path
) -> None:
    folder = tmp_path / "blobs"
    with a_service(watched, folder, chunk_idle_seconds=300) as live, ExitStack() as stack:
        task = a_wide_task(live)
        stalled: list[StalledConnection] = []
        for _ in range(CONNECTIONS // 4 + 1):
            hostile = live.device()
            work = hostile.assignment(task.name)
            for _ in range(min(4, CONNECTIONS - len(stalled))):
                connection = StalledConnection(live.port, hostile.credential)
                stalled.append(stack.enter_context(connection))
                stall(connection, work)
        assert sum(connection.still_open() for connection in stalled) == STALLED
        # Two of three are streams, whose headers have been checked by now.
        watched.wait_for("upload_look", CONNECTIONS * (STREAMS_PER_CONNECTION * 2 // 3))

        by_message, by_stream, leaver, large = (live.device() for _ in range(4))
        work = by_message.assignment(task.name)
        assert by_message.download(work)
        assert not by_message.submit(work, encoded_vector(DIM, {0: 1.0})).duplicate
        assert not by_stream.stream(
            by_stream.assignment(task.name), encoded_vector(DIM, {1: 1.0})
        ).duplicate
        leaver.report(leaver.assignment(task.name), pb.OUTCOME_GAVE_UP)
        # What the silent streams hold counts, what they only announced does not.
        work = large.assignment(task.name)
        with pytest.raises(grpc.RpcError) as refused:
            large.stream(work, a_large_payload())
        assert details_of(refused.value).reason == Reason.OVERLOADED
        assert details_of(refused.value).retry_delay is not None
        assert sum(connection.still_open() for connection in stalled) == STALLED

        stack.close()
        receipt = until_there_is_room(lambda: large.stream(work, a_large_payload()))
        assert receipt.payload_sha256 == sha256(a_large_payload()).digest()
        live.settle()
        ended = live.latest_round(task)
        assert ended.state is RoundState.PUBLISHED
        assert ended.accepted_updates == 3
        assert list(live.blobs.keys("rounds/")) == []


def until_there_is_room(call: Callable[[], pb.Receipt]) -> pb.Receipt:
    """As a device does that is told to come back; each attempt is a whole upload."""
    receipts: list[pb.Receipt] = []

    def is_accepted() -> bool:
        try:
            receipts.append(call())
        except grpc.RpcError as error:
            if reason_of(error) is not Reason.OVERLOADED:
                raise
        return bool(receipts)

    until(is_accepted, "the bytes of broken uploads to be given back")
    return receipts[0]


def test_a_stream_that_falls_silent_is_ended_and_told_to_come_back(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "blobs"
    with a_service(sqlite_store, folder, chunk_idle_seconds=0.1) as live:
        task = a_wide_task(live)
        device = live.device()
        work = device.assignment(task.name)
        answered = threading.Event()

        def parts() -> Iterator[bytes]:
            header = header_for(work, a_large_payload())
            yield pb.StreamUpdateRequest(header=header).SerializeToString()
            answered.wait(PATIENCE_SECONDS)

        with pytest.raises(grpc.RpcError) as refused:
            device.stream_bytes("StreamUpdate", parts())
        answered.set()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details_of(refused.value).reason == Reason.OVERLOADED
        assert details_of(refused.value).retry_delay is not None
    # Its assignment is as good as before; only a busy machine is slower than the limit above.
    with a_service(sqlite_store, folder, chunk_idle_seconds=300) as live:
        again = SyntheticDevice(live.channel(), device.credential)
        assert not again.stream(work, a_large_payload()).duplicate
