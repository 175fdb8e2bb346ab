"""A task says how sparse vectors are written, and both ends keep to it."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
import numpy as np
import pytest

from aggregator_service.app.adapter_files import load_masters, load_weights
from aggregator_service.app.export_adapter import Export, WeightsKind
from aggregator_service.domain.tasks import Encodings, Task
from flasc_core.errors import Reason
from flasc_core.pb.v1 import task_spec_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, Encoding, decode, encode, profile_for
from tests.builders import a_policy
from tests.support.device import reason_of
from tests.support.live import LiveService
from tests.support.seen import adapters_of, updates_of

INT6 = Encoding.parse("int6")
BFLOAT16 = Encoding.parse("bfloat16")
COMPACT = Encodings(download=Encoding.parse("int8"), updates=(INT6, BFLOAT16))
VALUES = {3: 1.0, 7: -0.25}


def written(values: Mapping[int, float], encoding: Encoding) -> bytes:
    vector = SparseVector(
        dim=24,
        indices=np.array(sorted(values), dtype=np.int64),
        values=np.array([values[index] for index in sorted(values)], dtype=np.float32),
    )
    return encode(vector, profile_for(encoding))


def a_task(live: LiveService, encodings: Encodings) -> Task:
    return live.create_task(policy=a_policy(goal=1, quorum=1), encodings=encodings)


def test_devices_are_told_what_the_task_accepts_in_its_order(live: LiveService) -> None:
    a_task(live, COMPACT)
    given = live.device().assignment("a-task")
    spec = task_spec_pb2.TaskSpec.FromString(given.task_spec)
    assert [Encoding.from_proto(each) for each in spec.accepted_encodings] == [INT6, BFLOAT16]


@pytest.mark.parametrize("name", ["plain", "int6", "bfloat16"])
def test_an_accepted_encoding_counts_like_the_plain_one(live: LiveService, name: str) -> None:
    task = a_task(live, COMPACT)
    device = live.device()
    device.submit(device.assignment("a-task"), written(VALUES, Encoding.parse(name)))
    live.settle()
    newest, initial = adapters_of(live.store, task)[:2]
    moved = load_weights(live.blobs, newest) - load_weights(live.blobs, initial)
    largest = np.argsort(np.abs(moved))[-2:]
    assert set(largest.tolist()) == set(VALUES)


@pytest.mark.parametrize("name", ["float32", "int8", "int7"])
def test_an_encoding_that_the_task_leaves_out_is_refused(live: LiveService, name: str) -> None:
    task = a_task(live, COMPACT)
    device = live.device()
    given = device.assignment("a-task")
    with pytest.raises(grpc.RpcError) as error:
        device.submit(given, written(VALUES, Encoding.parse(name)))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error.value) is Reason.VALUE_FORMAT
    assert error.value.details() == (
        f"{name} is not accepted here; accepted are plain, bfloat16, int6"
    )
    assert updates_of(live.store, live.latest_round(task)) == []


def test_what_is_exported_as_masked_is_what_devices_decode(live: LiveService) -> None:
    task = a_task(live, COMPACT)
    device = live.device()
    payload = device.download(device.assignment("a-task"))
    limits = DecodeLimits(dim=24, max_nnz=24, max_abs_value=64.0)
    initial = adapters_of(live.store, task)[-1]
    masters = load_masters(live.store, live.blobs, task, 0)
    export = Export(task=task, adapter=initial, masters=masters)
    masked = export.weights(WeightsKind.MASKED)
    assert np.array_equal(masked, decode(payload, limits).to_dense())
    assert not np.array_equal(masked[masked != 0], masters.weights[masked != 0])
