"""Devices that work without a pause and never give up: each round, each sends its one-hot update.

check in ──▶ submit, again and again with the same bytes ──▶ receipt, or refused for good
    └──▶ a retry window: come back when the service says so
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Final, Self, TypeVar
from uuid import UUID

import grpc

from flasc_core.errors import Reason
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.support.device import SyntheticDevice, reason_of
from tests.support.one_hot import one_hot
from tests.support.patience import PATIENCE_SECONDS

__all__ = ["OneHotLoad"]

T = TypeVar("T")

_CALL_SECONDS: Final = 10.0
_BACK_OFF_SECONDS: Final = 0.05
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    # So that devices are back as soon as a server that was killed is.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
)
# What a device takes for a broken link, a dead server, a busy one or one without its database.
_TRANSIENT: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
# How a device hears that its update counts nowhere.
_TOO_LATE: Final = frozenset({Reason.ROUND_CLOSED, Reason.ASSIGNMENT_EXPIRED})


@dataclass(slots=True)
class _Tally:
    """What has happened so far; whoever waits for more of it is woken."""

    counts: Counter[str] = field(default_factory=Counter)
    receipts: dict[UUID, dict[int, UUID]] = field(default_factory=lambda: defaultdict(dict))
    latest_round: int = 0
    failure: BaseException | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)


class OneHotLoad:
    """As many devices as there are credentials, each with a thread and a connection of its own.

    Every third sends a small message, every third a large one, every third a stream; now and then
    one sends again what it has a receipt for.
    """

    def __init__(self, ports: Sequence[int], credentials: Sequence[str], task: str) -> None:
        self._task: Final = task
        self._tally: Final = _Tally()
        self._stopping: Final = threading.Event()
        self._channels: Final = [
            grpc.insecure_channel(f"127.0.0.1:{ports[number % len(ports)]}", options=_OPTIONS)
            for number in range(len(credentials))
        ]
        devices = [
            SyntheticDevice(channel, credential, timeout=_CALL_SECONDS, wait_for_ready=True)
            for channel, credential in zip(self._channels, credentials, strict=True)
        ]
        self._threads: Final = [
            threading.Thread(target=self._live, args=device) for device in enumerate(devices)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends once every device has the last answer it waits for."""
        self._stopping.set()
        if error is not None:
            self._fail(error)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
        for channel in self._channels:
            channel.close()
        if error is None and self._tally.failure is not None:
            raise self._tally.failure

    @property
    def receipts(self) -> dict[UUID, dict[int, UUID]]:
        return self._tally.receipts

    @property
    def counts(self) -> Counter[str]:
        """Of check-ins answered, uploads begun, acknowledged, repeated, refused, and disturbed."""
        return self._tally.counts

    @property
    def latest_round(self) -> int:
        """The highest round number that any device has heard of."""
        return self._tally.latest_round

    def wait_for(self, what: str, more: int) -> None:
        """Returns after `more` further ones of `what`."""
        goal = self._tally.counts[what] + more
        self._wait(lambda: self._tally.counts[what] >= goal, f"{more} more {what}")

    def wait_for_round_after(self, number: int) -> None:
        self._wait(lambda: self._tally.latest_round > number, f"a round after {number}")

    def _wait(self, reached: Callable[[], bool], what: str) -> None:
        tally = self._tally
        with tally.changed:
            in_time = tally.changed.wait_for(
                lambda: tally.failure is not None or reached(), PATIENCE_SECONDS
            )
        if tally.failure is not None:
            raise tally.failure
        assert in_time, f"waited in vain for {what}; so far {tally.counts}"

    def _live(self, number: int, device: SyntheticDevice) -> None:
        rng = Random(number)
        payload = one_hot(number, as_blob=number % 3 > 0)
        send = device.stream if number % 3 == 2 else device.submit
        try:
            while not self._stopping.is_set():
                answer = self._persist(lambda: device.check_in(self._task))
                self._count("answered")
                if answer.WhichOneof("result") == "assignment":
                    self._hand_in(number, answer.assignment, payload, send, rng)
                else:
                    # The service's own pacing.
                    self._stopping.wait(answer.retry_window.delay_max.ToTimedelta().total_seconds())
        except Exception as error:  # noqa: BLE001 - raised again where the test waits
            self._fail(error)

    def _hand_in(
        self,
        number: int,
        work: pb.Assignment,
        payload: bytes,
        send: Callable[[pb.Assignment, bytes], pb.Receipt],
        rng: Random,
    ) -> None:
        with self._tally.changed:
            self._tally.latest_round = max(self._tally.latest_round, work.round_number)
        self._count("begun")
        try:
            receipt = self._persist(lambda: send(work, payload))
        except grpc.RpcError as error:
            if reason_of(error) not in _TOO_LATE:
                raise
            self._count("refused")
            return
        update_id = UUID(bytes=receipt.update_id)
        self._tally.receipts[UUID(bytes=work.round_id)][number] = update_id
        self._count("acknowledged")
        if rng.random() < 0.2:
            again = self._persist(lambda: send(work, payload))
            assert again.duplicate
            assert again.update_id == receipt.update_id
            self._count("repeated")

    def _persist(self, call: Callable[[], T]) -> T:
        """Repeats the call until the service itself answers it."""
        while self._tally.failure is None:
            try:
                return call()
            except grpc.RpcError as error:
                if error.code() not in _TRANSIENT:
                    raise
                self._count("disturbed")
                # A device's own back-off; shorter than a real one's.
                self._stopping.wait(_BACK_OFF_SECONDS)
        raise self._tally.failure

    def _count(self, what: str) -> None:
        with self._tally.changed:
            self._tally.counts[what] += 1
            self._tally.changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._tally.changed:
            self._tally.failure = self._tally.failure or error
            self._tally.changed.notify_all()
