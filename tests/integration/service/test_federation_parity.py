"""Rounds in one process give the versions that the live service publishes, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from aggregator_service.app.close_round import CloseRound
from aggregator_service.app.set_tier import SetTier
from aggregator_service.domain.rounds import Round
from aggregator_service.domain.tasks import BaseModel, Encodings, Ending, Task, Tier, UpdateLimits
from aggregator_service.store.base import Store
from aggregator_service.store.folder_blobs import FolderBlobs
from client_sdk import Evaluation, Participant, StepOutcome, TrainingPlan, TrainingResult
from flasc_core.base import Base, InitialBase, ZeroBase
from flasc_core.methods import (
    METHODS,
    AdapterLth,
    FederatedSelect,
    FfaLora,
    Flasc,
    HeadOnly,
    HetLora,
    Method,
    PublishedHetLora,
    RoLora,
    SparseAdapter,
)
from flasc_core.server_update import Sgd
from flasc_core.wire import Encoding
from flasc_sim.device_work import TierWork
from flasc_sim.federation import Federation
from tests.builders import a_policy, a_privacy
from tests.support.live import LiveService, live_service
from tests.support.seen import adapters_of, device_id_of, rounds_of
from tests.support.vector_trainer import a_layout

ROUNDS = 3
# By device; more than the largest weight, and fewer.
EXAMPLES = (20, 7)
LAYOUT = a_layout(64)

METHOD_CASES: Final[tuple[tuple[Method, Base], ...]] = (
    (
        Flasc(download_density=0.5, upload_density=0.25, head_density=1.0, decay=0.5),
        InitialBase(seed=5),
    ),
    (SparseAdapter(density=0.25), InitialBase(seed=5)),
    (AdapterLth(density=0.5, decay=0.5), InitialBase(seed=5)),
    (FederatedSelect(density=0.25, head_density=1.0), InitialBase(seed=5)),
    (FfaLora(upload_density=0.5), InitialBase(seed=5)),
    (RoLora(), InitialBase(seed=5)),
    (HeadOnly(), InitialBase(seed=5)),
    (HetLora(rank=2), ZeroBase()),
    (HetLora(rank=2, order="norm"), ZeroBase()),
    (PublishedHetLora(rank=2), ZeroBase()),
)


class PullTrainer:
    """Pulls its weights towards a point that the seed draws, and remembers the seeds."""

    layout = LAYOUT
    base_model_sha256 = sha256(b"base").digest()

    def __init__(self, examples: int) -> None:
        self.seeds: list[int] = []
        self.examples = examples

    def evaluate(self, weights: NDArray[np.float32]) -> Evaluation | None:
        return None

    def train(
        self,
        weights: NDArray[np.float32],
        plan: TrainingPlan,
        seed: int,
        on_step: Callable[[int, int], None],
        trainable: NDArray[np.bool_] | None = None,
    ) -> TrainingResult:
        self.seeds.append(seed)
        # Under a penalty everything shrinks, as the last ranks should.
        size = np.float32(1.0 if plan.rank_penalty is None else 0.0)
        point = size * np.random.default_rng(seed).standard_normal(weights.shape, dtype=np.float32)
        update = (point - weights) * np.float32(plan.learning_rate)
        if trainable is not None:
            update[~trainable] = 0
        return TrainingResult(
            update=update, examples=self.examples, steps=1, loss_mean=0.5, seconds=1.0
        )


@pytest.mark.parametrize("encoding", ["plain", "bfloat16", "int6"])
@pytest.mark.parametrize("density", [1.0, 0.25])
@pytest.mark.parametrize(("base", "max_weight"), [(ZeroBase(), 1), (InitialBase(seed=5), 15)])
def test_the_live_service_publishes_what_the_federation_computes(
    sqlite_store: Store, tmp_path: Path, encoding: str, density: float, base: Base, max_weight: int
) -> None:
    chosen = Encoding.parse(encoding)
    check_parity(
        sqlite_store,
        tmp_path,
        method=Flasc(download_density=density, upload_density=density),
        encodings=Encodings(download=chosen, updates=(chosen,)),
        base=base,
        limits=UpdateLimits(max_weight=max_weight, largest_cohort=100),
    )


def test_every_method_that_a_task_can_have_is_compared() -> None:
    compared = {method.name for method, _ in METHOD_CASES}

    missing = [kind.__name__ for name, kind in METHODS.items() if name not in compared]

    assert not missing, (
        f"add {' and '.join(missing)} to METHOD_CASES: settings that change what three rounds "
        "compute, and a base that the method runs with"
    )


@pytest.mark.parametrize(
    ("method", "base"), METHOD_CASES, ids=[method.name for method, _ in METHOD_CASES]
)
def test_every_method_is_the_same_in_the_service_and_in_process(
    sqlite_store: Store, tmp_path: Path, method: Method, base: Base
) -> None:
    check_parity(sqlite_store, tmp_path, method=method, base=base)


@pytest.mark.parametrize("method", [Flasc(download_density=0.5, upload_density=0.25), FfaLora()])
def test_a_private_task_is_the_same_in_the_service_and_in_process(
    sqlite_store: Store, tmp_path: Path, method: Method
) -> None:
    check_parity(
        sqlite_store,
        tmp_path,
        method=method,
        base=InitialBase(seed=5),
        privacy=a_privacy(clip_norm=0.01),
    )


def test_self_pruning_is_the_same_in_the_service_and_in_process(
    sqlite_store: Store, tmp_path: Path
) -> None:
    steps = check_parity(
        sqlite_store,
        tmp_path,
        base=ZeroBase(),
        method=PublishedHetLora(rank=4, prune_to=2, penalty=0.1),
        tiers=(
            Tier(name="half", method=PublishedHetLora(rank=2, prune_to=1, penalty=0.1)),
            Tier(name="one", method=PublishedHetLora(rank=1)),
        ),
        device_tiers=("", "half"),
        optimizer=Sgd(learning_rate=1.0),
        limits=UpdateLimits(max_weight=10_000, max_abs_value=8.0, largest_cohort=100),
    )
    # From the whole rank to the last tier, and no further.
    assert steps == [2, 1]


@pytest.mark.parametrize(
    "tiers",
    [
        {"small": Flasc(download_density=1 / 16, upload_density=1 / 16, head_density=1.0)},
        {"small": HetLora(rank=1), "middle": HetLora(rank=2)},
    ],
    ids=["densities", "ranks"],
)
def test_tiers_are_the_same_in_the_service_and_in_process(
    sqlite_store: Store, tmp_path: Path, tiers: dict[str, Method]
) -> None:
    check_parity(
        sqlite_store,
        tmp_path,
        base=ZeroBase(),
        method=Flasc(download_density=1.0, upload_density=1.0),
        tiers=tuple(Tier(name=name, method=method) for name, method in tiers.items()),
        device_tiers=(*tiers, "", "")[: len(EXAMPLES)],
    )


def check_parity(
    store: Store,
    folder: Path,
    *,
    base: Base,
    device_tiers: tuple[str, ...] = ("",) * len(EXAMPLES),
    **settings: Any,
) -> list[int]:
    """Return how many tiers down each device has asked to be."""
    start = base.initialise(LAYOUT, np.linspace(-1, 1, LAYOUT.dim, dtype=np.float32))
    trainers = [PullTrainer(examples) for examples in EXAMPLES]
    with live_service(store, FolderBlobs(folder / "blobs")) as service:
        task = service.create_task(
            weights=start,
            layout=LAYOUT,
            base_model=BaseModel(name="tiny", sha256=PullTrainer.base_model_sha256),
            policy=a_policy(goal=len(EXAMPLES), quorum=1, retry_min=timedelta(0)),
            ending=Ending(rounds=ROUNDS, final_evaluation=False),
            base=base,
            **settings,
        )
        devices = [service.device() for _ in trainers]
        for device, tier in zip(devices, device_tiers, strict=True):
            SetTier(store=store)(device_id_of(device), tier)
        credentials = [device.credential for device in devices]
        seeds: list[bytes | None] = []
        for _ in range(ROUNDS):
            for trainer, credential in zip(trainers, credentials, strict=True):
                take_part(service.port, trainer, credential, folder)
            seeds.append(closing_seed(service, task))
            service.settle()
        published = [adapter.weights_sha256 for adapter in adapters_of(service.store, task)]
        given = [tiers_given(store, one) for one in rounds_of(store, task)]

    federation = Federation(task.config, start)
    computed = [sha256(start.tobytes()).digest()]
    steps = [0] * len(trainers)
    for number in range(ROUNDS):
        seats = [
            task.config.tier_below(tier, taken)
            for tier, taken in zip(device_tiers, steps, strict=True)
        ]
        assert given[number] == sorted(seats)
        updates = [
            TierWork(task.config, federation.open(tier)).do(
                PullTrainer(trainer.examples), trainer.seeds[number]
            )
            for trainer, tier in zip(trainers, seats, strict=True)
        ]
        steps = [taken + one.steps_down for taken, one in zip(steps, updates, strict=True)]
        federation.close(updates, seeds[number])
        computed.append(sha256(federation.weights.tobytes()).digest())
    assert published == computed
    assert len(set(computed)) == ROUNDS + 1
    return steps


def tiers_given(store: Store, current: Round) -> list[str]:
    records = store.read("test", lambda tx: tx.assignments.page(current.id, limit=99, after=None))
    return sorted(one.assignment.tier for one in records)


def closing_seed(service: LiveService, task: Task) -> bytes | None:
    """Closes the round; returns what its noise is to be drawn from, if it has any."""
    current = service.latest_round(task)
    CloseRound(store=service.store, now=service.driver.now)(current)
    reserved = service.store.read("test", lambda tx: tx.reservations.get(current.id))
    return None if reserved is None else reserved.noise_seed


def take_part(port: int, trainer: PullTrainer, credential: str, folder: Path) -> None:
    with Participant(
        f"localhost:{port}",
        task="a-task",
        credential=credential,
        trainer=trainer,
        state_folder=folder / credential,
        insecure=True,
        sleep=lambda seconds: None,
    ) as participant:
        assert participant.step().outcome is StepOutcome.UPDATED
