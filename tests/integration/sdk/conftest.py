"""One peer and one device per test, on loopback, with a clock that only sleeping moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from client_sdk import CallLimits, Event, Participant
from flasc_core.layout import Role
from flasc_core.methods import KeepLargest, UploadRule
from flasc_core.sparse import SparseVector
from tests.builders import nonzeros_of
from tests.support.patience import PATIENCE_SECONDS
from tests.support.scripted_service import CREDENTIAL, TASK, Peer
from tests.support.vector_trainer import VectorTrainer, a_layout

LAYOUT = a_layout()
RULE = UploadRule(groups=(KeepLargest(roles=frozenset(Role), count=20),))


class Time:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def now(self) -> float:
        return sum(self.slept)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def start() -> SparseVector:
    weights = np.random.default_rng(5).standard_normal(LAYOUT.dim).astype(np.float32)
    weights[::2] = 0
    return nonzeros_of(weights)


@pytest.fixture
def peer(start: SparseVector) -> Iterator[Peer]:
    with Peer(LAYOUT, start, RULE) as running:
        yield running


@pytest.fixture
def trainer() -> VectorTrainer:
    return VectorTrainer(LAYOUT)


@pytest.fixture
def join(
    peer: Peer, tmp_path: Path, time: Time, events: list[Event], trainer: VectorTrainer
) -> Callable[..., Participant]:
    """Make a participant of `peer` that keeps its state in one folder; settings override."""

    def make(**settings: Any) -> Participant:
        given: dict[str, Any] = {
            "task": TASK,
            "credential": CREDENTIAL,
            "trainer": trainer,
            "state_folder": tmp_path / "state",
            "insecure": True,
            "on_event": events.append,
            # A busy machine is no dead link.
            "call_limits": CallLimits(
                call_seconds=PATIENCE_SECONDS, leaving_seconds=PATIENCE_SECONDS
            ),
            "sleep": time.sleep,
            "clock": time.now,
            "rng": Random(3),
        }
        address = settings.pop("address", peer.address)
        return Participant(address, **(given | settings))

    return make
