"""The next version is a function of the last one, the accepted set and the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
from numpy.typing import NDArray

from aggregator_service.app.adapter_files import load_weights
from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.tasks import Ending, Task, UpdateLimits
from aggregator_service.store.open import open_blobs, open_store
from flasc_core.methods import Flasc
from flasc_core.server_update import AdamW, Sgd
from flasc_core.wire import DecodeLimits, decode
from tests.builders import a_policy
from tests.support.device import SyntheticDevice, encoded_vector
from tests.support.devices import hand_in
from tests.support.live import LiveService, live_service
from tests.support.seen import (
    adapters_of,
    rounds_of,
)

PAYLOAD = encoded_vector(24, {3: 1.0})
INITIAL = np.linspace(-1.0, 1.0, 24, dtype=np.float32)
LIMITS = DecodeLimits(dim=24, max_nnz=24, max_abs_value=64.0)
# One update closes a round.
ALONE = a_policy(goal=1, quorum=1)
FEDAVG = Sgd(learning_rate=1.0)


def weights_of(live: LiveService, adapter: Adapter) -> NDArray[np.float32]:
    return load_weights(live.blobs, adapter)


def dense(values: Mapping[int, float]) -> NDArray[np.float64]:
    vector = np.zeros(24)
    for index, value in values.items():
        vector[index] = value
    return vector


UPDATES = (
    ({1: 1.0, 5: -0.25}, {1: 0.5, 9: 2.0}, {23: -1.5}),
    ({0: 0.125, 5: 3.0}, {5: -1.0}, {9: 0.75, 10: -0.75}),
)


def test_averaging_adds_the_mean_over_all_devices(live: LiveService) -> None:
    task = live.create_task(
        policy=a_policy(goal=3, quorum=3), ending=Ending(rounds=9), optimizer=FEDAVG
    )
    weights = INITIAL
    for number, values in enumerate(UPDATES, start=1):
        hand_in(live, values)
        live.settle()
        # Also where one device alone sent a coordinate the sum is divided by all three.
        mean = sum(dense(one) for one in values) / 3
        weights = weights + np.asarray(mean, dtype=np.float32)
        published = adapters_of(live.store, task)[number]
        assert weights_of(live, published).tobytes() == weights.tobytes()


def test_coordinates_that_nobody_sent_keep_every_bit(live: LiveService) -> None:
    task = live.create_task(policy=ALONE, optimizer=FEDAVG)
    hand_in(live, [{1: 1.0}])
    live.settle()
    weights = weights_of(live, adapters_of(live.store, task)[1])
    untouched = np.arange(24) != 1
    assert weights[untouched].tobytes() == INITIAL[untouched].tobytes()


def test_weighted_updates_count_by_their_examples(live: LiveService) -> None:
    task = live.create_task(
        policy=a_policy(goal=2, quorum=2),
        optimizer=FEDAVG,
        limits=UpdateLimits(max_weight=8, largest_cohort=1_000),
    )
    hand_in(live, [{1: 1.0}, {1: -1.0, 2: 4.0}], weights=[7, 1])
    live.settle()
    expected = INITIAL + np.asarray(dense({1: 6 / 8, 2: 4 / 8}), dtype=np.float32)
    published = adapters_of(live.store, task)[1]
    assert published.divisor == 8
    assert weights_of(live, published).tobytes() == expected.tobytes()


def test_adamw_steps_as_the_paper_has_it(live: LiveService) -> None:
    task = live.create_task(
        policy=a_policy(goal=3, quorum=3),
        ending=Ending(rounds=9),
        optimizer=AdamW(learning_rate=0.05, weight_decay=0.1),
    )
    weights = INITIAL.astype(np.float64)
    mean, square = np.zeros(24), np.zeros(24)
    for step, values in enumerate(UPDATES, start=1):
        hand_in(live, values)
        live.settle()
        gradient = -sum(dense(one) for one in values) / 3
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        corrected = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        weights = weights - 0.05 * (corrected + 0.1 * weights)
        published = adapters_of(live.store, task)[step]
        assert published.optimizer_step == step
        np.testing.assert_allclose(weights_of(live, published), weights, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("shards", [2, 5])
def test_the_number_of_shards_does_not_show(live: LiveService, shards: int) -> None:
    values = [{index: 1 / (index + 3)} for index in range(7)]
    digests = set()
    for number, fold_shards in enumerate((1, shards)):
        task = live.create_task(
            f"task-{number}", policy=a_policy(goal=7, quorum=7), fold_shards=fold_shards
        )
        for chosen in values:
            device = live.device()
            payload = encoded_vector(24, dict(chosen))
            device.submit(device.assignment(task.name), payload)
        live.settle()
        digests.add(adapters_of(live.store, task)[1].weights_sha256)
    assert len(digests) == 1


def test_every_device_s_own_coordinate_is_there_once(live: LiveService) -> None:
    task = live.create_task(policy=a_policy(goal=20, quorum=20), optimizer=FEDAVG)
    hand_in(live, [{index: 1.0} for index in range(20)])
    live.settle()
    moved = weights_of(live, adapters_of(live.store, task)[1]) - INITIAL
    assert np.allclose(moved, [1 / 20] * 20 + [0.0] * 4, atol=1e-7)


def test_the_next_download_is_what_the_version_s_mask_keeps(live: LiveService) -> None:
    task = live.create_task(policy=ALONE)
    hand_in(live, [{1: 1.0}])
    live.settle()
    for adapter, current in zip(
        adapters_of(live.store, task), rounds_of(live.store, task), strict=True
    ):
        assert adapter.mask_nnz == current.downloads[""].nnz == 12


def test_densities_fall_from_the_second_round_on(live: LiveService) -> None:
    method = Flasc(download_density=0.5, upload_density=0.25, decay=0.5)
    task = live.create_task(policy=ALONE, ending=Ending(rounds=9), method=method)
    seen = []
    for _ in range(3):
        device = live.device()
        given = device.assignment("a-task")
        download = decode(device.download(given), LIMITS)
        seen.append((download.nnz, given.upload_rule.groups[0].count))
        device.submit(given, PAYLOAD)
        live.settle()
    assert seen == [(12, 6), (6, 3), (3, 1)]
    assert [one.mask_nnz for one in adapters_of(live.store, task)] == [12, 6, 3, 1]


VALUES = ({1: 1.0, 5: -0.25}, {1: 0.5, 9: 2.0}, {23: -1.5})


def take_turn(live: LiveService, credential: str, values: Mapping[int, float]) -> None:
    """A device checks in, hands in and asks for its receipt again."""
    device = SyntheticDevice(live.channel(), credential)
    given = device.assignment("a-task")
    payload = encoded_vector(24, dict(values))
    receipt = device.submit(given, payload)
    again = device.submit(given, payload)
    assert again.duplicate
    assert again.update_id == receipt.update_id
    live.settle()


def start_task(live: LiveService) -> tuple[Task, list[str]]:
    task = live.create_task(policy=a_policy(goal=3, quorum=3), ending=Ending(rounds=2))
    return task, [live.device().credential for _ in VALUES]


def test_a_restart_in_the_middle_of_a_round_changes_nothing(
    live: LiveService, tmp_path: Path, sqlite_template: Path
) -> None:
    straight, credentials = start_task(live)
    for credential, values in zip(credentials * 2, VALUES * 2, strict=True):
        take_turn(live, credential, values)

    folder = tmp_path / "restarted"
    folder.mkdir()
    copyfile(sqlite_template, folder / "flasc.db")
    with reopened(folder) as first:
        restarted, credentials = start_task(first)
    # A service that knows nothing reads everything from the files again, before every turn.
    for credential, values in zip(credentials * 2, VALUES * 2, strict=True):
        with reopened(folder) as again:
            take_turn(again, credential, values)
    with reopened(folder) as last:
        published = adapters_of(last.store, restarted)
        assert [one.optimizer_step for one in published] == [0, 1, 2]
        assert [one.weights_sha256 for one in published] == [
            one.weights_sha256 for one in adapters_of(live.store, straight)
        ]


@contextmanager
def reopened(folder: Path) -> Iterator[LiveService]:
    store = open_store(f"sqlite:///{folder}/flasc.db")
    with live_service(store, open_blobs(str(folder / "blobs"))) as running:
        yield running
    store.close()
