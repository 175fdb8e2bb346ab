"""Any order, any number of replicas, either database: the same updates give the same bytes.

Devices of a first run compute their updates from what they download; the updates are recorded, and
handed in again elsewhere in another order, through one aggregator or two, folded by one driver or
two. That the recorded updates of the second round are taken at all says that the first one was
published alike: each names the digest of the download that it is relative to.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import grpc
import numpy as np

from aggregator_service.app.create_task import CreateTask
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.clock import utc_now
from aggregator_service.domain.tasks import Ending, TaskConfig
from aggregator_service.domain.updates import FoldProgress
from aggregator_service.store.base import Store
from aggregator_service.store.open import open_blobs
from flasc_core.methods import Flasc
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.server_update import AdamW
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, decode, encode
from tests.builders import a_config
from tests.support.device import SyntheticDevice
from tests.support.mortal_device import flat_layout
from tests.support.one_hot import eager_policy
from tests.support.oracle import adapters_of, rounds_of
from tests.support.postgres import PostgresServer
from tests.support.service_process import ServiceProcess
from tests.support.stores import open_patiently

DIM = 2_000
DEVICES = 40
ROUNDS = 2
SHARDS = 3
NEVER = threading.Event()


@dataclass(frozen=True, slots=True)
class Recording:
    """Payloads by round number and device number; empty where a run is to be recorded."""

    payloads: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def payload(self, number: int, device: SyntheticDevice, work: pb.Assignment) -> bytes:
        key = (work.round_number, number)
        if key not in self.payloads:
            self.payloads[key] = trained(number, device.download(work))
        return self.payloads[key]


def trained(number: int, download: bytes) -> bytes:
    """A quarter of the coordinates, moved from where the download has them."""
    limits = DecodeLimits(dim=DIM, max_nnz=DIM, max_abs_value=1e6)
    start = decode(download, limits).to_dense()
    rng = np.random.default_rng(number)
    indices = np.sort(rng.choice(DIM, size=DIM // 4, replace=False))
    values = (rng.standard_normal(indices.size) - 0.1 * start[indices]).astype(np.float32)
    return encode(SparseVector(dim=DIM, indices=indices, values=values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One task on one database, from creation to completion."""

    database_url: str
    folder: Path
    replicas: int
    order: Sequence[int]

    def published(self, recording: Recording) -> list[bytes]:
        """The digest of every version's weights."""
        with ExitStack() as stack:
            store = open_patiently(self.database_url)
            stack.callback(store.close)
            devices = self._devices(stack, store, self._ports(stack))
            for _ in range(ROUNDS):
                with ThreadPoolExecutor(8) as pool:
                    for done in [
                        pool.submit(hand_in, n, devices[n], recording) for n in self.order
                    ]:
                        done.result()
            come_back_for("finished", devices[0])
            return self._result(store)

    def _ports(self, stack: ExitStack) -> list[int]:
        parts = [
            stack.enter_context(
                ServiceProcess(
                    role,
                    database_url=self.database_url,
                    blobs=self.folder / "blobs",
                    log=self.folder / f"{role}-{number}.log",
                )
            )
            for number in range(self.replicas)
            for role in ("driver", "aggregator")
        ]
        return [part.port for part in parts if part.port]

    def _devices(
        self, stack: ExitStack, store: Store, ports: Sequence[int]
    ) -> list[SyntheticDevice]:
        blobs = open_blobs(str(self.folder / "blobs"))
        weights = np.linspace(-1.0, 1.0, DIM, dtype=np.float32)
        CreateTask(store=store, blobs=blobs, now=utc_now)("a-task", a_round_config(), weights)
        enroll = EnrollDevice(store=store, now=utc_now)
        channels = [stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{p}")) for p in ports]
        return [
            SyntheticDevice(channels[number % len(channels)], enroll(f"device-{number}")[1])
            for number in range(DEVICES)
        ]

    def _result(self, store: Store) -> list[bytes]:
        task = store.read("test", lambda tx: tx.tasks.get_by_name("a-task"))
        assert task is not None
        for one in rounds_of(store, task.id):
            folded = [shard.updates_folded for shard in shards_of(store, one.id)]
            assert len(folded) == SHARDS
            assert sum(folded) == DEVICES
        return [adapter.weights_sha256 for adapter in adapters_of(store, task.id)]


def a_round_config() -> TaskConfig:
    """Every device is in every round."""
    policy = eager_policy(
        goal=DEVICES, retry_min=timedelta(milliseconds=10), retry_max=timedelta(milliseconds=30)
    )
    return a_config(
        layout=flat_layout(DIM),
        method=Flasc(download_density=0.5, upload_density=0.25),
        optimizer=AdamW(learning_rate=0.01),
        policy=policy,
        ending=Ending(rounds=ROUNDS, final_evaluation=False),
        fold_shards=SHARDS,
    )


def shards_of(store: Store, round_id: UUID) -> Sequence[FoldProgress]:
    return store.read("test", lambda tx: tx.accumulators.all(round_id))


def hand_in(number: int, device: SyntheticDevice, recording: Recording) -> None:
    work = come_back_for("assignment", device).assignment
    assert not device.submit(work, recording.payload(number, device, work)).duplicate


def come_back_for(result: str, device: SyntheticDevice) -> pb.CheckInResponse:
    """Checks in, as often as it is told to, until the answer is `result`."""
    while True:
        answer = device.check_in("a-task")
        if answer.WhichOneof("result") == result:
            return answer
        NEVER.wait(answer.retry_window.delay_max.ToTimedelta().total_seconds())


def test_recorded_updates_give_the_same_bytes_in_any_order_on_one_replica_and_on_two(
    sqlite_url: str, postgres_server: PostgresServer, postgres_template: str, tmp_path: Path
) -> None:
    in_turn = list(range(DEVICES))
    shuffled = Random(5).sample(in_turn, DEVICES)
    recording = Recording()

    def published(name: str, database_url: str, replicas: int, order: Sequence[int]) -> list[bytes]:
        folder = tmp_path / name
        folder.mkdir()
        run = Run(database_url=database_url, folder=folder, replicas=replicas, order=order)
        return run.published(recording)

    recorded = published("sqlite", sqlite_url, 1, in_turn)
    assert len(recording.payloads) == ROUNDS * DEVICES
    assert len(set(recorded)) == ROUNDS + 1
    for name, replicas, order in [("one", 1, in_turn[::-1]), ("two", 2, shuffled)]:
        database_url = postgres_server.create_database(template=postgres_template)
        try:
            assert published(name, database_url, replicas, order) == recorded
        finally:
            postgres_server.drop_database(database_url)
    assert len(recording.payloads) == ROUNDS * DEVICES
