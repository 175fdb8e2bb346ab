"""One task played step by step in one process, on a store of one's own, against the one-hot oracle.

A process that dies is started again and does again what it was doing, as a device, an operator or a
supervisor would; the world (database, blobs, clock) goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TypeVar
from uuid import UUID

import numpy as np

from aggregator_service.app.check_in import Assigned, CheckIn, Query
from aggregator_service.app.create_task import CreateTask
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.app.fold_updates import LEASE
from aggregator_service.app.submit_update import SubmitUpdate
from aggregator_service.app.upload_rules import UpdateHeader
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import Task, TaskConfig
from aggregator_service.domain.updates import Update, UpdateState
from aggregator_service.driver import Driver
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from aggregator_service.store.memory import MemoryBlobs, MemoryStore
from flasc_core.errors import Reason, Refusal
from tests.builders import NOW
from tests.support.faults import Died, Trap, TrappedBlobs, TrappedStore, no_trap
from tests.support.one_hot import one_hot
from tests.support.oracle import adapters_of, check_conservation, rounds_of

__all__ = ["Clock", "OneTask", "Process", "in_memory", "update_header"]

T = TypeVar("T")
NAME = "a-task"


@dataclass(slots=True)
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, span: timedelta) -> None:
        self.now += span


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What one process of the service can be asked."""

    store: Store
    blobs: BlobStore
    clock: Clock

    def create_task(self, config: TaskConfig) -> None:
        create = CreateTask(store=self.store, blobs=self.blobs, now=self.clock)
        try:
            create(NAME, config, np.zeros(config.layout.dim, dtype=np.float32))
        except Refusal as refusal:
            # An operator who did not hear the answer, and asks again.
            if refusal.reason is not Reason.NAME_TAKEN:
                raise

    def settle(self) -> None:
        """Lets a new driver do all that can be done now."""
        driver = Driver(
            store=self.store, blobs=self.blobs, now=self.clock, interval=timedelta(seconds=1)
        )
        for _ in range(1_000):
            if not driver.step():
                return
        raise AssertionError("the driver finds no end")

    def check_in(self, device_id: UUID) -> Assigned:
        result = CheckIn(store=self.store, now=self.clock)(device_id, Query(task_name=NAME))
        assert isinstance(result, Assigned)
        return result

    def submit(self, device_id: UUID, work: Assigned, payload: bytes) -> UUID:
        """The accepted update's id."""
        use_case = SubmitUpdate(store=self.store, blobs=self.blobs, now=self.clock)
        return use_case(device_id, update_header(work, payload), payload).update.id


def update_header(work: Assigned, payload: bytes) -> UpdateHeader:
    return UpdateHeader(
        assignment_id=work.assignment.id,
        payload_sha256=sha256(payload).digest(),
        payload_size_bytes=len(payload),
        download_sha256=work.assignment.download_sha256,
        weight=1,
    )


@dataclass(slots=True, kw_only=True)
class OneTask:
    """`reopen` gives the store as a new process finds it; `traps` wait for one process each."""

    reopen: Callable[[], Store]
    blobs: BlobStore
    traps: Iterator[Trap] = field(default_factory=lambda: iter(()))
    clock: Clock = field(default_factory=Clock)
    # Update ids by round, each by its device's number: what the service has acknowledged.
    receipts: dict[UUID, dict[int, UUID]] = field(default_factory=lambda: defaultdict(dict))
    devices: list[UUID] = field(default_factory=list)
    _store: Store = field(init=False)
    _process: Process = field(init=False)
    _trap: Trap = field(init=False)

    def __post_init__(self) -> None:
        self._store = self.reopen()
        self._process = self.untrapped

    @property
    def untrapped(self) -> Process:
        """Another process, which nothing happens to."""
        return Process(store=self._store, blobs=self.blobs, clock=self.clock)

    def close(self) -> None:
        self._store.close()

    def enroll(self, count: int) -> None:
        enroll = EnrollDevice(store=self._store, now=self.clock)
        self.devices = [enroll(f"device-{number}")[0].id for number in range(count)]

    @property
    def process(self) -> Process:
        """The one that traps wait for."""
        return self._process

    @contextmanager
    def trapped(self) -> Iterator[None]:
        """Traps wait for what happens in here."""
        self._set_trap()
        try:
            yield
        finally:
            self._process = self.untrapped

    def do(self, action: Callable[[Process], T]) -> T:
        while True:
            try:
                return action(self._process)
            except Died:
                self._restart()

    def take_part(self, number: int, *, as_blob: bool = False) -> None:
        """One device's whole round; its receipt is noted."""
        device_id = self.devices[number]
        work = self.do(lambda process: process.check_in(device_id))
        self.hand_in(number, work, one_hot(number, as_blob=as_blob))

    def hand_in(self, number: int, work: Assigned, payload: bytes) -> None:
        update_id = self.do(lambda process: process.submit(self.devices[number], work, payload))
        # A device may hear of its update more than once, and always of the same one.
        assert self.receipts[work.round.id].setdefault(number, update_id) == update_id

    def settle(self) -> None:
        self.do(lambda process: process.settle())

    def _restart(self) -> None:
        self._store.close()
        self._store = self.reopen()
        # By now the leases of the dead are over.
        self.clock.advance(LEASE)
        self._set_trap()

    def _set_trap(self) -> None:
        self._trap = next(self.traps, no_trap())
        self._process = Process(
            store=TrappedStore(self._store, self._trap),
            blobs=TrappedBlobs(self.blobs, self._trap),
            clock=self.clock,
        )

    # -- what must be true at the end

    @property
    def task(self) -> Task:
        found = self._store.read("test", lambda tx: tx.tasks.get_by_name(NAME))
        assert found is not None
        return found

    @property
    def rounds(self) -> Sequence[Round]:
        """Oldest first."""
        return rounds_of(self._store, self.task.id)

    @property
    def published(self) -> list[bytes]:
        """The digest of every version's weights."""
        adapters = adapters_of(self._store, self.task.id)
        return [adapter.weights_sha256 for adapter in adapters]

    def check_conservation(self) -> None:
        """As the oracle has it; and rounds that have ended keep no payload."""
        check_conservation(self._store, self.blobs, self.task.id, self.receipts)
        for one in self.rounds:
            for number in self.receipts.get(one.id, {}):
                kept = self._update(one.id, self.devices[number])
                assert (kept.state is UpdateState.SCRUBBED) == one.state.is_final
                assert not (one.state.is_final and kept.payload)

    def _update(self, round_id: UUID, device_id: UUID) -> Update:
        found = self._store.read("test", lambda tx: tx.updates.get(round_id, device_id))
        assert found is not None
        return found

    def check_transitions(self) -> None:
        """No round entered a state twice, whoever died on the way."""
        states: dict[UUID | None, list[str]] = defaultdict(list)
        for event in self._store.read("test", lambda tx: tx.events.after(0, limit=1_000)):
            seen = states[event.round_id]
            # While it collects, an event tells of each update too.
            if not (seen and seen[-1] == event.state == RoundState.COLLECTING):
                seen.append(event.state)
        for entered in states.values():
            assert len(set(entered)) == len(entered), entered

    def check_swept(self) -> None:
        """After a sweep rounds that have ended keep no payload and no sum."""
        self.untrapped.settle()
        ended = {str(one.id) for one in self.rounds if one.state.is_final}
        kept = [key for key in self.blobs.keys("rounds/") if key.split("/")[1] in ended]
        assert kept == []


def in_memory(traps: Iterable[Trap] = ()) -> OneTask:
    store = MemoryStore()
    return OneTask(reopen=lambda: store, blobs=MemoryBlobs(), traps=iter(traps))
