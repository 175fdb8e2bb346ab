"""Devices whose payload bytes three count: they themselves, the service, and the socket.

Among them are a refused upload, a repeated one, downloads in parts, work that comes to nothing,
devices that stay connected over several rounds, and one that connects and does nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import grpc
import numpy as np

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.clock import utc_now
from aggregator_service.domain.tasks import BaseModel, Encodings, Ending
from aggregator_service.store.base import Transaction
from client_sdk import Event, Participant, StepOutcome
from flasc_cli.demo.forwarder import CountingForwarder, SocketBytes
from flasc_core.methods import Flasc
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.sparse import SparseVector
from flasc_core.wire import Encoding, encode
from tests.builders import a_policy
from tests.support.device import SyntheticDevice
from tests.support.live import LiveService
from tests.support.logged import Logged, logged
from tests.support.vector_trainer import VectorTrainer, a_layout

__all__ = [
    "CONNECTED",
    "ROUNDS_FOR_A_HANDSHAKE",
    "SCENES",
    "STAYING",
    "Counted",
    "count_bytes",
]

# How many rows the trainer's matrices have: small updates are a call, large ones are streamed.
SCALES: Final = {"small": 1_000, "round-by-round": 1_000, "large": 140_000}
CONNECTED: Final = "connected alone"
# Devices by the rounds that they take part in over one connection, with a small update in each.
STAYING: Final[Mapping[int, str]] = {1: "one round"} | {
    rounds: f"{rounds} rounds" for rounds in (2, 3, 4, 5)
}
# From so many of them on, what connecting under TLS takes is within the bound too.
ROUNDS_FOR_A_HANDSHAKE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One device; what it sent and received of payloads as each end has it, and of bytes."""

    name: str
    calls: int
    connections: int
    own: SocketBytes
    ledger: SocketBytes
    socket: SocketBytes

    @property
    def payload_bytes(self) -> int:
        return self.own.sent + self.own.received

    @property
    def excess_bytes(self) -> int:
        """What gRPC, HTTP/2 and the messages around payloads take."""
        return self.socket.sent + self.socket.received - self.payload_bytes

    @property
    def share_of_bound(self) -> float:
        """Of an excess of 2 % and 1 KiB per call; connecting counts as everything else does."""
        return self.share_apart_from(0)

    def share_apart_from(self, connecting: int) -> float:
        """The same where what each connection takes, in bytes, is counted by itself."""
        beyond = self.excess_bytes - connecting * self.connections
        return beyond / (0.02 * self.payload_bytes + 1024 * self.calls)


@dataclass(slots=True)
class HandmadeDevice:
    """Every call by hand; what it gave to the network and got from there."""

    device: SyntheticDevice
    sent: int = 0
    received: int = 0

    def download(self, given: pb.Assignment, offset: int = 0) -> None:
        self.received += len(self.device.download(given, offset))

    def submit(self, given: pb.Assignment, payload: bytes) -> None:
        self.sent += len(payload)
        self.device.submit(given, payload)

    def stream(self, given: pb.Assignment, payload: bytes, **header: Any) -> None:
        self.sent += len(payload)
        self.device.stream(given, payload, **header)


@dataclass(slots=True, kw_only=True)
class Fleet:
    live: LiveService
    forwarder: CountingForwarder
    folder: Path
    stack: ExitStack
    encoding: Encoding
    roots: bytes | None
    ids: dict[str, UUID] = field(default_factory=dict)
    own: dict[str, Callable[[], SocketBytes]] = field(default_factory=dict)

    def participant(self, name: str, task: str, **settings: Any) -> Participant:
        trainer = VectorTrainer(a_layout(SCALES[task]), failing=settings.pop("failing", 0))
        joined = Participant(
            f"127.0.0.1:{self.forwarder.ports[name]}",
            task=task,
            credential=self._enroll(name),
            trainer=trainer,
            state_folder=self.folder / name,
            insecure=self.roots is None,
            tls_root_certificates=self.roots,
            sleep=lambda seconds: None,
            **settings,
        )
        self.stack.enter_context(closing(joined))
        self.own[name] = lambda: SocketBytes(
            sent=joined.summary.payload_bytes_sent, received=joined.summary.payload_bytes_received
        )
        return joined

    def handmade(self, name: str) -> HandmadeDevice:
        made = HandmadeDevice(SyntheticDevice(self.channel(name), self._enroll(name)))
        self.own[name] = lambda: SocketBytes(sent=made.sent, received=made.received)
        return made

    def channel(self, name: str) -> grpc.Channel:
        # Connections are shared per target unless a channel has options of its own.
        options = (("grpc.use_local_subchannel_pool", 1),)
        address = f"127.0.0.1:{self.forwarder.ports[name]}"
        if self.roots is None:
            channel = grpc.insecure_channel(address, options=options)
        else:
            trust = grpc.ssl_channel_credentials(self.roots)
            channel = grpc.secure_channel(address, trust, options=options)
        return self.stack.enter_context(channel)

    def update(self, task: str) -> bytes:
        """As much as the task lets a device keep of its matrices."""
        dim = a_layout(SCALES[task]).dim
        draws = np.random.default_rng(7)
        indices = np.sort(draws.choice(dim - 24, (dim - 24) // 4, replace=False))
        values = draws.standard_normal(indices.size, dtype=np.float32)
        return encode(SparseVector(dim=dim, indices=indices, values=values), self.encoding)

    def _enroll(self, name: str) -> str:
        device, credential = EnrollDevice(store=self.live.store, now=utc_now)(name)
        self.ids[name] = device.id
        return credential


def refused(fleet: Fleet, name: str, task: str) -> None:
    """The round ends while the device trains; what it then hands in is refused."""
    live = fleet.live

    def end_round(event: Event) -> None:
        if type(event).__name__ == "Trained":
            AbortRound(store=live.store, now=utc_now)(_open_round(live, task))

    device = fleet.participant(name, task, on_event=end_round)
    assert device.step().outcome is StepOutcome.REFUSED
    live.settle()


def repeated_unary(fleet: Fleet, name: str) -> None:
    """A device that hears no answers asks for everything twice."""
    made = fleet.handmade(name)
    given = made.device.assignment("small")
    payload = fleet.update("small")
    for step in (made.download, partial(made.submit, payload=payload)):
        for _ in range(2):
            step(given)


def accepted_stream(fleet: Fleet, name: str) -> None:
    assert fleet.participant(name, "large").step().outcome is StepOutcome.UPDATED


def refused_and_repeated_stream(fleet: Fleet, name: str) -> None:
    made = fleet.handmade(name)
    given = made.device.assignment("large")
    payload = fleet.update("large")
    made.download(given)
    made.download(given, offset=given.download.size_bytes // 2)
    try:
        made.stream(given, payload, payload_sha256=sha256(b"another").digest())
    except grpc.RpcError:
        made.stream(given, payload)
        made.stream(given, payload)
    else:
        raise AssertionError("a damaged payload was accepted")


def failed_training(fleet: Fleet, name: str) -> None:
    """All that this device fetched was for nothing."""
    device = fleet.participant(name, "large", failing=1)
    assert device.step().outcome is StepOutcome.FAILED


def staying(fleet: Fleet, name: str, rounds: int) -> None:
    device = fleet.participant(name, "round-by-round")
    for _ in range(rounds):
        assert device.step().outcome is StepOutcome.UPDATED
        fleet.live.settle()


def connected(fleet: Fleet, name: str) -> None:
    """What a connection takes before anything is called."""
    made = fleet.handmade(name)
    grpc.channel_ready_future(made.device.channel).result(60)


SCENES: Final[dict[str, Callable[[Fleet, str], None]]] = {
    # First: these end the rounds that they are in.
    "unary, refused": partial(refused, task="small"),
    "streamed, refused at its header": partial(refused, task="large"),
    "unary, repeated": repeated_unary,
    "streamed": accepted_stream,
    "streamed, refused and repeated": refused_and_repeated_stream,
    "training failed": failed_training,
    **{name: partial(staying, rounds=rounds) for rounds, name in STAYING.items()},
    CONNECTED: connected,
}


def count_bytes(
    live: LiveService, folder: Path, encoding: Encoding, roots: bytes | None = None
) -> Sequence[Counted]:
    """Every scene with a device and a port of its own; under TLS where there are `roots`."""
    _create_task(live, "small", encoding)
    _create_task(live, "round-by-round", encoding, updates=1, rounds=sum(STAYING))
    _create_task(live, "large", encoding)
    with logged() as log:
        with (
            CountingForwarder(("127.0.0.1", live.port), list(SCENES)) as forwarder,
            ExitStack() as stack,
        ):
            fleet = Fleet(
                live=live,
                forwarder=forwarder,
                folder=folder,
                stack=stack,
                encoding=encoding,
                roots=roots,
            )
            for name, play in SCENES.items():
                play(fleet, name)
            own = {name: count() for name, count in fleet.own.items()}
        live.booked()
        calls = _calls(log)
    return [
        Counted(
            name=name,
            calls=calls[sha256(device_id.bytes).hexdigest()[:12]],
            connections=forwarder.connections(name),
            own=own[name],
            ledger=_ledger(live, device_id),
            socket=forwarder.count(name),
        )
        for name, device_id in fleet.ids.items()
    ]


def _create_task(
    live: LiveService, name: str, encoding: Encoding, *, updates: int = 8, rounds: int = 1
) -> None:
    """Rounds close after so many updates; of 8, nobody's closes one."""
    trainer = VectorTrainer(a_layout(SCALES[name]))
    live.create_task(
        name,
        layout=trainer.layout,
        base_model=BaseModel(name="tiny", sha256=trainer.base_model_sha256),
        method=Flasc(download_density=0.5, upload_density=0.25),
        policy=a_policy(goal=updates, quorum=1, retry_min=timedelta(0)),
        ending=Ending(rounds=rounds),
        encodings=Encodings(download=encoding, updates=(encoding,)),
    )


def _calls(log: Logged) -> Counter[str]:
    """Of each device, by the name that the service's log has for it."""
    return Counter(entry["device"] for entry in log.rest() if entry["event"] == "rpc")


def _open_round(live: LiveService, task: str) -> UUID:
    def body(tx: Transaction) -> UUID:
        owner = tx.tasks.get_by_name(task)
        assert owner is not None
        latest = tx.rounds.latest(owner.id)
        assert latest is not None
        return latest.id

    return live.store.read("test", body)


def _ledger(live: LiveService, device_id: UUID) -> SocketBytes:
    """Over all of a device's assignments."""

    def body(tx: Transaction) -> SocketBytes:
        tasks = tx.tasks.page(limit=10, after=None)
        rounds = [
            one for task in tasks for one in tx.rounds.page(task.id, limit=99, before_number=None)
        ]
        parts = [
            part
            for one in rounds
            for part in tx.assignments.page(one.id, limit=99, after=None)
            if part.assignment.device_id == device_id
        ]
        return SocketBytes(
            sent=sum(part.payload_bytes_up for part in parts),
            received=sum(part.payload_bytes_down for part in parts),
        )

    return live.store.read("test", body)
