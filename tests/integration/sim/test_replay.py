"""The simulator and the live service agree bit for bit, with cohorts from the service's ledger."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from aggregator_service.app.set_tier import SetTier
from aggregator_service.domain.tasks import BaseModel, Encodings, Ending, Tier
from aggregator_service.domain.tasks import TrainingPlan as TaskTraining
from aggregator_service.store.base import Store
from aggregator_service.store.folder_blobs import FolderBlobs
from client_sdk import Participant, StepOutcome
from client_sdk.peft_trainer import PeftTrainer, adapter_layout, adapter_weights, base_model_sha256
from client_sdk.trainer import Trainer
from flasc_core.base import InitialBase
from flasc_core.methods import Flasc, Method
from flasc_core.server_update import AdamW
from flasc_core.wire import Encoding
from flasc_sim.engine import Trainers
from flasc_sim.partition import Uniform
from flasc_sim.replay import RecordedRound, recorded_rounds, replay
from flasc_sim.workload import AdapterShape
from tests.builders import a_config, a_policy
from tests.support.live import live_service
from tests.support.seen import adapters_of, device_id_of
from tests.support.tiny_workload import a_workload

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDS = 10
DEVICES = 4
COHORT = 3
SPARSE = Flasc(download_density=0.25, upload_density=0.25, head_density=1.0)
SPARSEST = Flasc(download_density=1 / 16, upload_density=1 / 16, head_density=1.0)
DENSE = Flasc(download_density=1.0, upload_density=1.0)


def trainers() -> list[PeftTrainer]:
    """Every device's own: one model, dropout on, and the rows that are a device's."""
    workload = a_workload(40)
    model = workload.build(AdapterShape(rank=4, dropout=0.1), 0)
    clients = Uniform(clients=DEVICES).divide(workload, 0)
    made = Trainers(workload, clients, model, base_model_sha256(model))
    return [made.of(client) for client in range(DEVICES)]


@pytest.mark.parametrize(
    ("method", "tiers"),
    [
        (SPARSE, {}),
        (DENSE, {}),
        (DENSE, {"small": SPARSEST, "middle": SPARSE}),
    ],
    ids=["flasc", "dense", "tiers"],
)
def test_ten_rounds_of_a_recorded_cohort_give_the_published_versions(
    sqlite_store: Store, tmp_path: Path, method: Method, tiers: dict[str, Method]
) -> None:
    devices: list[PeftTrainer] = trainers()
    model = a_workload(40).build(AdapterShape(rank=4), 0)
    layout = adapter_layout(model)
    base = InitialBase(seed=5)
    start = base.initialise(layout, adapter_weights(model))
    with live_service(sqlite_store, FolderBlobs(tmp_path / "blobs")) as service:
        task = service.create_task(
            weights=start,
            layout=layout,
            base_model=BaseModel(name="tiny", sha256=devices[0].base_model_sha256),
            training=TaskTraining(learning_rate=0.3, batch_size=4),
            method=method,
            tiers=tuple(Tier(name=name, method=own) for name, own in tiers.items()),
            optimizer=AdamW(learning_rate=0.02),
            policy=a_policy(goal=COHORT, quorum=1, retry_min=timedelta(0)),
            ending=Ending(rounds=ROUNDS, final_evaluation=False),
            encodings=Encodings(download=Encoding.parse("int6"), updates=(Encoding.parse("int6"),)),
            base=base,
        )
        enrolled = [service.device() for _ in devices]
        ids = [device_id_of(device) for device in enrolled]
        for device, tier in zip(ids, (*tiers, "", "", "", ""), strict=False):
            SetTier(store=sqlite_store)(device, tier)
        for number in range(ROUNDS):
            # Another device sits out, and another comes first, in every round.
            for place in range(COHORT):
                chosen = (number + place) % DEVICES
                folder = tmp_path / str(chosen)
                take_part(service.port, devices[chosen], enrolled[chosen].credential, folder)
            service.settle()
        published = [adapter.weights_sha256 for adapter in adapters_of(service.store, task)]
        recorded = recorded_rounds(service.store, task.id)

    own: dict[UUID, Trainer] = dict(zip(ids, trainers(), strict=True))
    computed = list(replay(task.config, start, recorded, own))
    assert published == [sha256(start.tobytes()).digest(), *computed]
    assert len(set(computed)) == ROUNDS
    assert [len(seen.seats) for seen in recorded] == [COHORT] * ROUNDS


def test_a_round_that_is_missing_is_told() -> None:
    model = a_workload(40).build(AdapterShape(rank=4), 0)
    weights = adapter_weights(model)
    late = RecordedRound(base_version=1, seats=())
    with pytest.raises(ValueError, match="a round is missing"):
        list(replay(a_config(layout=adapter_layout(model)), weights, [late], {}))


def take_part(port: int, trainer: Trainer, credential: str, folder: Path) -> None:
    with Participant(
        f"localhost:{port}",
        task="a-task",
        credential=credential,
        trainer=trainer,
        state_folder=folder,
        insecure=True,
        sleep=lambda seconds: None,
    ) as participant:
        assert participant.step().outcome is StepOutcome.UPDATED
