"""A device that dies, wherever it dies, ends in one counted update or in none, never in two.

The device is the real SDK in a process of its own, with its state on disk; it is killed while it
trains, while half of its upload has left, and while the answer is on its way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.enroll_device import EnrollDevice
from aggregator_service.app.submit_update import INLINE_BYTES
from aggregator_service.app.task_spec import MAX_UNARY_PAYLOAD_BYTES
from aggregator_service.clock import utc_now
from aggregator_service.domain.rounds import Round, RoundState
from aggregator_service.domain.tasks import Ending, Task
from aggregator_service.store.base import Store
from aggregator_service.store.open import open_blobs
from flasc_core.methods import Flasc
from tests.support.holding_forwarder import Hold, HoldingForwarder, Way
from tests.support.live import LiveService, live_service
from tests.support.mortal_device import MortalDevice, flat_layout
from tests.support.one_hot import eager_policy

# Every coordinate is sent, with 4 bytes each: in its row, as a blob, and as a stream of chunks.
DIMS = {
    "in its row": INLINE_BYTES // 8,
    "as a blob": INLINE_BYTES // 2,
    "streamed": MAX_UNARY_PAYLOAD_BYTES // 4 + 1_000,
}
# Which call hands the update in: after check-in and download, after check-in where the download is
# on disk, and after the question what the service has of it where the update is.
SUBMIT, SUBMIT_AFTER_TRAINING_AGAIN, SUBMIT_AGAIN = 3, 2, 2


@pytest.fixture
def live(sqlite_store: Store, tmp_path: Path) -> Iterator[LiveService]:
    with live_service(sqlite_store, open_blobs(str(tmp_path / "blobs"))) as running:
        yield running


@pytest.fixture(params=[*DIMS.values()], ids=[*DIMS])
def dim(request: pytest.FixtureRequest) -> int:
    size: int = request.param
    return size


@pytest.fixture
def task(live: LiveService, dim: int) -> Task:
    """One round of one device; a second round follows where the first one is aborted."""
    return live.create_task(
        layout=flat_layout(dim),
        method=Flasc(download_density=1.0, upload_density=1.0),
        policy=eager_policy(goal=1),
        ending=Ending(rounds=1, final_evaluation=False),
    )


@pytest.fixture
def device(live: LiveService, task: Task, dim: int, tmp_path: Path) -> MortalDevice:
    _, credential = EnrollDevice(store=live.store, now=utc_now)("mortal")
    folder = tmp_path / "device"
    folder.mkdir()
    return MortalDevice(
        port=live.port, task=task.name, credential=credential, dim=dim, folder=folder
    )


def die_in_training(device: MortalDevice) -> None:
    stopping = replace(device, stops_in_training=True)
    stopping.run_until(lambda process: process.stdout and process.stdout.readline())


def die_at(device: MortalDevice, hold: Hold) -> None:
    with HoldingForwarder(device.port, hold) as forwarder:
        device.through(forwarder.port).run_until(lambda _: forwarder.wait_until_held())


def accepted(live: LiveService, task: Task) -> int:
    current = live.latest_round(task)
    return live.store.read("test", lambda tx: tx.updates.count(current.id))


def published(live: LiveService, task: Task) -> Round:
    live.settle()
    latest = live.latest_round(task)
    assert latest.state is RoundState.PUBLISHED
    assert latest.accepted_updates == 1
    return latest


def test_a_device_that_dies_while_training_trains_again_and_counts_once(
    live: LiveService, task: Task, device: MortalDevice
) -> None:
    die_in_training(device)
    assert accepted(live, task) == 0
    assert device.run()["updates_accepted"] == 1
    assert device.trainings == ["begun", "begun", "ended"]
    published(live, task)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["nothing", "half", "nearly all"])
def test_a_device_that_dies_while_uploading_counts_once_and_does_not_train_again(
    live: LiveService, task: Task, device: MortalDevice, dim: int, share: float
) -> None:
    # Payload, header and framing are more than 4 bytes a coordinate.
    die_at(device, Hold(way=Way.REQUEST, call=SUBMIT, after_bytes=int(share * 4 * dim)))
    assert accepted(live, task) == 0
    assert device.run()["updates_accepted"] == 1
    assert device.trainings == ["begun", "ended"]
    published(live, task)


def test_a_device_that_dies_before_it_hears_the_answer_counts_once(
    live: LiveService, task: Task, device: MortalDevice
) -> None:
    die_at(device, Hold(way=Way.RESPONSE, call=SUBMIT))
    # No answer leaves before its update is in the ledger.
    assert accepted(live, task) == 1
    live.settle()
    summary = device.run()
    assert summary["updates_accepted"] == 1
    assert summary["payload_bytes_sent"] > 4 * device.dim
    assert device.trainings == ["begun", "ended"]
    published(live, task)


def test_a_device_that_dies_at_every_step_in_turn_counts_once(
    live: LiveService, task: Task, device: MortalDevice
) -> None:
    die_in_training(device)
    half = Hold(way=Way.REQUEST, call=SUBMIT_AFTER_TRAINING_AGAIN, after_bytes=1_000)
    die_at(device, half)
    die_at(device, Hold(way=Way.REQUEST, call=SUBMIT_AGAIN, after_bytes=2_000))
    die_at(device, Hold(way=Way.RESPONSE, call=SUBMIT_AGAIN))
    die_at(device, Hold(way=Way.RESPONSE, call=SUBMIT_AGAIN))
    assert device.run()["updates_accepted"] == 1
    assert device.trainings == ["begun", "begun", "ended"]
    published(live, task)


def test_an_update_whose_round_ended_while_its_device_was_dead_counts_nowhere(
    live: LiveService, task: Task, device: MortalDevice
) -> None:
    die_at(device, Hold(way=Way.REQUEST, call=SUBMIT, after_bytes=1_000))
    missed = live.latest_round(task)
    AbortRound(store=live.store, now=utc_now)(missed.id)
    live.settle()
    assert device.run()["updates_accepted"] == 1
    # The first update was dropped; the second one is the next round's.
    assert device.trainings == ["begun", "ended", "begun", "ended"]
    assert live.store.read("test", lambda tx: tx.updates.count(missed.id)) == 0
    assert published(live, task).number == missed.number + 1
