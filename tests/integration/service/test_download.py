"""A device fetches the adapter that its assignment starts from."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import grpc
import numpy as np
import pytest

from aggregator_service.app.abort_round import AbortRound
from aggregator_service.app.advance_task import AdvanceTask
from aggregator_service.app.check_in import Assigned, CheckIn, Query
from aggregator_service.app.create_task import CreateTask
from aggregator_service.app.read_download import ReadDownload
from aggregator_service.clock import utc_now
from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import Task
from aggregator_service.rpc.device_service import DOWNLOAD_CHUNK_BYTES
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods import Flasc
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.wire import DecodeLimits, decode
from tests.builders import a_config, a_device, a_policy, stored
from tests.integration.service.conftest import Clock
from tests.support.device import SyntheticDevice, encoded_vector, reason_of
from tests.support.live import LiveService
from tests.support.seen import record_of

LIMITS = DecodeLimits(dim=24, max_nnz=24, max_abs_value=64.0)
TICK = timedelta(microseconds=1)


def a_large_task(live: LiveService) -> Task:
    """Its download has several chunks."""
    dim = 200_000
    layout = AdapterLayout(tensors=(TensorSpec(name="a", shape=(dim,), role=Role.LORA_A),))
    return live.create_task(layout=layout, method=Flasc(download_density=1.0, upload_density=0.01))


def parts_of(device: SyntheticDevice, given: pb.Assignment) -> list[pb.DownloadAdapterResponse]:
    request = pb.DownloadAdapterRequest(assignment_id=given.assignment_id)
    parts = device.receive_bytes("DownloadAdapter", request.SerializeToString())
    return [pb.DownloadAdapterResponse.FromString(part) for part in parts]


def refused(device: SyntheticDevice, given: pb.Assignment, offset: int = 0) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        device.download(given, offset)
    return error.value


def down(live: LiveService, given: pb.Assignment) -> int:
    live.booked()
    return record_of(live.store, given).payload_bytes_down


def current_of(live: LiveService, task: Task) -> Round:
    return live.latest_round(task)


def test_the_download_is_the_largest_half_of_the_weights(live: LiveService) -> None:
    live.create_task()
    device = live.device()
    vector = decode(device.download(device.assignment("a-task")), LIMITS)
    weights = np.linspace(-1.0, 1.0, 24, dtype=np.float32)
    # The initial weights rise from -1 to 1, so that the largest are at both ends.
    assert vector.indices.tolist() == [*range(6), *range(18, 24)]
    assert vector.values.tobytes() == weights[vector.indices].tobytes()


def test_the_download_has_the_size_and_digest_that_were_promised(live: LiveService) -> None:
    live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    payload = device.download(given)
    assert len(payload) == given.download.size_bytes
    assert sha256(payload).digest() == given.download.sha256


def test_every_device_of_a_round_gets_the_same_bytes(live: LiveService) -> None:
    live.create_task()
    devices = [live.device() for _ in range(3)]
    payloads = {device.download(device.assignment("a-task")) for device in devices}
    assert len(payloads) == 1


def test_a_large_download_comes_in_chunks_that_say_where_they_belong(live: LiveService) -> None:
    a_large_task(live)
    device = live.device()
    given = device.assignment("a-task")
    parts = parts_of(device, given)
    assert len(parts) == 2
    assert [part.offset for part in parts] == [0, DOWNLOAD_CHUNK_BYTES]
    payload = b"".join(part.data for part in parts)
    assert len(payload) == given.download.size_bytes > DOWNLOAD_CHUNK_BYTES
    assert sha256(payload).digest() == given.download.sha256


@pytest.mark.parametrize(
    "offset", [1, DOWNLOAD_CHUNK_BYTES - 1, DOWNLOAD_CHUNK_BYTES, DOWNLOAD_CHUNK_BYTES + 1]
)
def test_a_broken_download_goes_on_where_it_ended(live: LiveService, offset: int) -> None:
    a_large_task(live)
    device = live.device()
    given = device.assignment("a-task")
    whole = device.download(given)
    assert device.download(given, offset) == whole[offset:]
    assert down(live, given) == 2 * len(whole) - offset


def test_the_last_byte_can_be_asked_for_alone(live: LiveService) -> None:
    live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    assert device.download(given, given.download.size_bytes - 1) == device.download(given)[-1:]


def test_after_the_last_byte_there_is_nothing_to_send(live: LiveService) -> None:
    live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    assert device.download(given, given.download.size_bytes) == b""
    assert down(live, given) == 0


@pytest.mark.parametrize("beyond", [1, 2**63])
def test_an_offset_beyond_the_end_is_refused(live: LiveService, beyond: int) -> None:
    live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    error = refused(device, given, given.download.size_bytes + beyond)
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    assert reason_of(error) is Reason.OFFSET_RANGE
    assert down(live, given) == 0


def started_over(live: LiveService, task: Task) -> list[Round]:
    """The task's first round, which an operator ends before anybody sends anything, and what comes
    of the second one although the weights that it starts from can not be read any more.
    """
    first = current_of(live, task)
    AbortRound(store=live.store, now=utc_now)(first.id)
    for key in list(live.blobs.keys(f"tasks/{task.id}/weights/")):
        live.blobs.delete(key)
    live.settle()
    return [first, current_of(live, task)]


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_a_round_that_starts_over_sends_the_same_file_without_encoding_it_again(
    live: LiveService, decay: float
) -> None:
    method = Flasc(download_density=0.5, upload_density=0.5, decay=decay)
    first, second = started_over(live, live.create_task(method=method))
    assert (first.number, second.number) == (1, 2)
    assert second.downloads[""] == first.downloads[""]
    device = live.device()
    given = device.assignment("a-task")
    assert sha256(device.download(given)).digest() == given.download.sha256
    assert given.round_id == second.id.bytes


def test_a_new_version_gets_a_file_of_its_own(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=1, quorum=1))
    first = current_of(live, task)
    device = live.device()
    device.submit(device.assignment("a-task"), encoded_vector(24, {1: 1.0}))
    live.settle()
    second = current_of(live, task)
    assert (second.number, second.base_version) == (2, 1)
    assert second.downloads[""].nnz == first.downloads[""].nnz
    assert second.downloads[""].sha256 != first.downloads[""].sha256


def test_another_device_s_assignment_is_not_found(live: LiveService) -> None:
    live.create_task()
    owner, stranger = live.device(), live.device()
    given = owner.assignment("a-task")
    error = refused(stranger, given)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(error) is Reason.ASSIGNMENT_UNKNOWN
    assert down(live, given) == 0


def test_an_unknown_assignment_gets_the_same_answer_as_a_stranger_s(live: LiveService) -> None:
    live.create_task()
    owner, stranger = live.device(), live.device()
    theirs = refused(stranger, owner.assignment("a-task"))
    nobodys = refused(stranger, pb.Assignment(assignment_id=bytes(16)))
    assert theirs.code() is nobodys.code()
    assert theirs.details() == nobodys.details()
    assert theirs.trailing_metadata() == nobodys.trailing_metadata()


def test_the_ledger_counts_what_was_sent_repeats_included(live: LiveService) -> None:
    live.create_task()
    device, other = live.device(), live.device()
    given, apart = device.assignment("a-task"), other.assignment("a-task")
    size = given.download.size_bytes
    for repeats in (1, 2, 3):
        device.download(given)
        assert down(live, given) == repeats * size
    assert down(live, apart) == 0


def test_downloading_changes_nothing_but_the_bytes(live: LiveService) -> None:
    live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    before = record_of(live.store, given).assignment
    device.download(given)
    live.booked()
    assert record_of(live.store, given).assignment == before


def test_after_handing_in_there_is_nothing_more_to_download(live: LiveService) -> None:
    live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    device.submit(given, encoded_vector(24, {1: 1.0}))
    error = refused(device, given)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(error) is Reason.ASSIGNMENT_EXPIRED


def test_of_a_round_that_has_been_closed_nothing_is_sent(live: LiveService) -> None:
    live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    live.driver.now = lambda: utc_now() + timedelta(hours=1)
    live.driver.step()
    assert reason_of(refused(device, given)) is Reason.ASSIGNMENT_EXPIRED


def test_a_file_that_has_lost_bytes_is_the_service_s_fault(
    live: LiveService, tmp_path: Path
) -> None:
    task = live.create_task()
    device = live.device()
    given = device.assignment("a-task")
    download = current_of(live, task).downloads[""]
    assert download is not None
    path = tmp_path / "blobs" / download.key
    path.write_bytes(path.read_bytes()[:-1])
    error = refused(device, given)
    assert error.code() is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("waited", [timedelta(minutes=10) - TICK, timedelta(minutes=10)])
def test_an_assignment_gives_its_download_until_it_expires(
    sqlite_store: Store, blobs: BlobStore, clock: Clock, waited: timedelta
) -> None:
    config, device = a_config(), a_device()
    weights = np.ones(config.layout.dim, dtype=np.float32)
    task = CreateTask(store=sqlite_store, blobs=blobs, now=clock)("a-task", config, weights)
    AdvanceTask(store=sqlite_store, blobs=blobs, now=clock)(task.id)
    stored(sqlite_store, device)
    given = CheckIn(store=sqlite_store, now=clock)(device.id, Query(task_name="a-task"))
    assert isinstance(given, Assigned)
    read = ReadDownload(store=sqlite_store, blobs=blobs, now=clock)
    clock.move(waited)
    if waited < timedelta(minutes=10):
        assert read(device.id, given.assignment.id, 0) == given.round.downloads[""]
        return
    with pytest.raises(Refusal) as refusal:
        read(device.id, given.assignment.id, 0)
    assert refusal.value.reason is Reason.ASSIGNMENT_EXPIRED
