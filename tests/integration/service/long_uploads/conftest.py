"""A task whose updates have several pieces, and one device in it."""

from __future__ import annotations

import pytest

from aggregator_service.domain.tasks import Task
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.support.device import SyntheticDevice
from tests.support.live import LiveService
from tests.support.long_uploads import a_task


@pytest.fixture
def task(live: LiveService) -> Task:
    return a_task(live)


@pytest.fixture
def device(live: LiveService) -> SyntheticDevice:
    return live.device()


@pytest.fixture
def given(device: SyntheticDevice, task: Task) -> pb.Assignment:
    return device.assignment(task.name)
