"""Participants in rounds of the real service, with every step in the test's hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from aggregator_service.app.retract_update import RetractUpdate
from aggregator_service.clock import utc_now
from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.credentials import SecretKind, claimed_id
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import BaseModel, Encodings, Ending, Task
from aggregator_service.store.base import Store
from aggregator_service.store.folder_blobs import FolderBlobs
from client_sdk import (
    BaseModelMismatch,
    Event,
    LayoutMismatch,
    NotAuthorized,
    Participant,
    StepOutcome,
    TaskUnknown,
)
from client_sdk.events import Refused, Uploaded
from flasc_core.errors import Reason
from flasc_core.methods import Flasc
from flasc_core.sparse import count_kept
from flasc_core.wire import Encoding
from tests.builders import PLAIN_BOTH_WAYS, a_policy
from tests.support.live import LiveService, live_service
from tests.support.seen import figures_of
from tests.support.vector_trainer import VectorTrainer, a_layout


@pytest.fixture
def service(sqlite_store: Store, tmp_path: Path) -> Iterator[LiveService]:
    with live_service(sqlite_store, FolderBlobs(tmp_path / "blobs")) as running:
        yield running


def a_task(
    service: LiveService,
    *,
    goal: int = 2,
    rounds: int = 1,
    scale: int = 1,
    encodings: Encodings | None = None,
) -> Task:
    trainer = VectorTrainer(a_layout(scale))
    return service.create_task(
        "sentiment",
        layout=trainer.layout,
        base_model=BaseModel(name="tiny", sha256=trainer.base_model_sha256),
        method=Flasc(download_density=0.5, upload_density=0.25),
        policy=a_policy(goal=goal, quorum=1, retry_min=timedelta(seconds=5)),
        ending=Ending(rounds=rounds, final_evaluation=True),
        encodings=encodings or PLAIN_BOTH_WAYS,
    )


Join = Callable[..., Participant]


@pytest.fixture
def join(service: LiveService, tmp_path: Path) -> Iterator[Join]:
    joined: list[Participant] = []

    def make(trainer: VectorTrainer | None = None, **settings: object) -> Participant:
        given = {
            "task": "sentiment",
            "credential": service.device().credential,
            "trainer": trainer or VectorTrainer(),
            "state_folder": tmp_path / f"device-{len(joined)}",
            "insecure": True,
            "sleep": lambda seconds: None,
        }
        participant = Participant(f"localhost:{service.port}", **(given | settings))  # type: ignore[arg-type]
        joined.append(participant)
        return participant

    yield make
    for participant in joined:
        participant.close()


def test_devices_take_a_task_from_its_first_round_to_its_last_evaluation(
    service: LiveService, join: Join
) -> None:
    task = a_task(service, goal=2, rounds=2)
    devices = [join(), join()]
    for _ in range(2):
        assert [device.step().outcome for device in devices] == [StepOutcome.UPDATED] * 2
        service.settle()
    # Now only the final adapter's score is wanted.
    assert [device.step().outcome for device in devices] == [StepOutcome.EVALUATED] * 2
    service.settle()
    assert [device.step().outcome for device in devices] == [StepOutcome.FINISHED] * 2

    latest = service.store.read("test", lambda tx: tx.adapters.latest(task.id))
    assert latest is not None
    assert latest.version == 2
    for device in devices:
        assert device.summary.updates_accepted == 2
        assert device.summary.evaluations_reported == 1


def test_a_device_writes_what_the_task_prefers_and_reads_what_it_sends(
    service: LiveService, join: Join
) -> None:
    compact = Encoding.parse("int6")
    task = a_task(
        service, goal=1, scale=64, encodings=Encodings(download=compact, updates=(compact,))
    )
    device = join(VectorTrainer(a_layout(64)))
    assert device.step().outcome is StepOutcome.UPDATED
    dim = task.config.layout.dim
    # The plain profile takes 5 bytes for each.
    assert device.summary.payload_bytes_sent < 2.5 * count_kept(dim, 0.25)
    assert device.summary.payload_bytes_received < 2.5 * count_kept(dim, 0.5)


def test_both_ends_count_the_same_payload_bytes(service: LiveService, join: Join) -> None:
    task = a_task(service, goal=2)
    devices = [join(), join()]
    for device in devices:
        device.step()
    current = service.latest_round(task)
    figures = figures_of(service.store, current)
    counted = figures.tiers[""].bytes
    assert counted.up == sum(device.summary.payload_bytes_sent for device in devices)
    assert counted.down == sum(device.summary.payload_bytes_received for device in devices)


def test_a_device_that_took_part_is_told_when_to_come_back(
    service: LiveService, join: Join
) -> None:
    a_task(service, goal=2)
    device = join()
    assert device.step().wait_seconds >= 5
    result = device.step()
    assert result.outcome is StepOutcome.NO_WORK
    assert result.wait_seconds >= 5


@pytest.mark.parametrize(
    ("trainer", "error"),
    [
        (VectorTrainer(a_layout(scale=2)), LayoutMismatch),
        (VectorTrainer(base=b"another"), BaseModelMismatch),
    ],
)
def test_a_model_that_is_not_the_tasks_is_refused_before_it_gets_an_assignment(
    service: LiveService, join: Join, trainer: VectorTrainer, error: type[Exception]
) -> None:
    task = a_task(service)
    with pytest.raises(error):
        join(trainer).run()

    assert trainer.trained == 0
    current = service.latest_round(task)
    training = service.store.read(
        "test", lambda tx: tx.assignments.count(current.id, AssignmentState.TRAINING)
    )
    assert training == 0


def test_unknown_tasks_and_credentials_are_told_apart(service: LiveService, join: Join) -> None:
    a_task(service)
    with pytest.raises(TaskUnknown):
        join(task="nothing").run()
    with pytest.raises(NotAuthorized):
        join(credential="fld_wrong").run()


def test_failed_training_frees_the_place_for_another_device(
    service: LiveService, join: Join
) -> None:
    task = a_task(service, goal=1)
    assert join(VectorTrainer(failing=1)).step().outcome is StepOutcome.FAILED
    current = service.latest_round(task)
    failed = service.store.read(
        "test", lambda tx: tx.assignments.count(current.id, AssignmentState.FAILED)
    )
    assert failed == 1
    assert join().step().outcome is StepOutcome.UPDATED


def test_an_update_for_a_round_that_has_closed_is_dropped_and_the_device_goes_on(
    service: LiveService, join: Join, tmp_path: Path
) -> None:
    task = a_task(service, goal=1, rounds=2)

    class Killed(BaseException):
        pass

    def die(event: Event) -> None:
        if type(event).__name__ == "Trained":
            raise Killed

    slow_credential = service.device().credential
    folder = tmp_path / "slow"
    slow = join(credential=slow_credential, state_folder=folder, on_event=die)
    with pytest.raises(Killed):
        slow.step()
    slow.close()
    assert join().step().outcome is StepOutcome.UPDATED
    service.settle()

    events: list[Event] = []
    trainer = VectorTrainer()
    again = join(trainer, credential=slow_credential, state_folder=folder, on_event=events.append)
    assert again.step().outcome is StepOutcome.REFUSED
    assert [event.reason for event in events if isinstance(event, Refused)] == ["ROUND_CLOSED"]
    assert trainer.trained == 0
    assert again.step().outcome is StepOutcome.UPDATED
    service.settle()
    assert service.latest_round(task).state is not RoundState.ABORTED


def test_an_update_of_several_megabytes_is_streamed(service: LiveService, join: Join) -> None:
    task = service.create_task(
        "sentiment",
        layout=a_layout(10_000),
        base_model=BaseModel(name="tiny", sha256=VectorTrainer().base_model_sha256),
        method=Flasc(download_density=1.0, upload_density=1.0),
        policy=a_policy(goal=1, quorum=1),
        ending=Ending(rounds=1),
    )
    events: list[Event] = []
    device = join(VectorTrainer(a_layout(10_000)), on_event=events.append)
    assert device.step().outcome is StepOutcome.UPDATED
    (uploaded,) = [event for event in events if isinstance(event, Uploaded)]
    assert uploaded.payload_bytes > 2 << 20
    service.settle()
    latest = service.store.read("test", lambda tx: tx.adapters.latest(task.id))
    assert latest is not None
    assert latest.version == 1


def test_a_retracted_update_is_dropped_and_counts_as_no_failure_of_the_device(
    service: LiveService, join: Join, tmp_path: Path
) -> None:
    """The device never heard that its update was accepted, so it goes on handing it in."""
    task = a_task(service, goal=2, rounds=1)
    folder, credential = tmp_path / "forgetful", service.device().credential
    kept: list[bytes] = []
    heard: list[Event] = []

    def note(event: Event) -> None:
        heard.append(event)
        if type(event).__name__ == "Trained":
            kept.append((folder / "pending-update").read_bytes())

    device = join(credential=credential, state_folder=folder, on_event=note)
    assert device.step().outcome is StepOutcome.UPDATED
    current = service.latest_round(task)
    retract = RetractUpdate(store=service.store, blobs=service.blobs, now=utc_now)
    retract(current.id, claimed_id(SecretKind.DEVICE, credential), "consent withdrawn")

    # More often than a device may fail.
    for _ in range(4):
        (folder / "pending-update").write_bytes(kept[0])
        assert device.step().outcome is StepOutcome.REFUSED
    assert isinstance(heard[-1], Refused)
    assert heard[-1].reason == Reason.UPDATE_RETRACTED
    assert not (folder / "pending-update").exists()
    assert device.step().outcome is StepOutcome.NO_WORK
    for _ in range(2):
        assert join().step().outcome is StepOutcome.UPDATED
    service.settle()
    published = service.store.read("test", lambda tx: tx.adapters.latest(task.id))
    assert published is not None
    assert (published.version, published.divisor) == (1, 2)
