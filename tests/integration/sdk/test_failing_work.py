"""Work that fails on a device, and updates that the service refuses: what is kept, what goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from client_sdk import (
    Evaluation,
    Event,
    Participant,
    StepOutcome,
    TrainingFailed,
    TrainingResult,
)
from client_sdk.events import (
    Refused,
    Trained,
)
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import Role
from flasc_core.methods import TrainRule
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.integration.sdk.conftest import Time
from tests.support.scripted_service import Fault, Peer, a_task_spec
from tests.support.vector_trainer import VectorTrainer, a_layout

Join = Callable[..., Participant]


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_failed_training_is_reported_without_its_words_and_tried_again(
    peer: Peer, join: Join, events: list[Event]
) -> None:
    with join(trainer=VectorTrainer(failing=2)) as participant:
        summary = participant.run()

    assert summary.updates_accepted == 1
    assert [outcome.outcome for outcome in peer.outcomes] == [pb.OUTCOME_FAILED] * 2
    assert {outcome.detail for outcome in peer.outcomes} == {"training failed: RuntimeError"}
    assert kinds(events).count("Failed") == 2


def test_training_that_keeps_failing_ends_the_run(peer: Peer, join: Join) -> None:
    trainer = VectorTrainer(failing=99)
    with join(trainer=trainer) as participant, pytest.raises(TrainingFailed):
        participant.run()

    assert trainer.trained == 3
    assert len(peer.outcomes) == 3
    assert peer.accepted == []


@pytest.mark.parametrize(("scale", "accepted"), [(1.0, 1), (1e6, 0), (np.nan, 0)])
def test_an_update_that_the_task_would_refuse_is_never_sent(
    peer: Peer, join: Join, scale: float, accepted: int
) -> None:
    with join(trainer=VectorTrainer(scale=scale)) as participant:
        participant.step()

    assert len(peer.payloads) == accepted
    assert len(peer.outcomes) == 1 - accepted


def test_an_update_of_what_should_be_frozen_is_never_sent(peer: Peer, join: Join) -> None:
    peer.train_rule = TrainRule(frozen_roles=frozenset({Role.LORA_A}))
    with join(trainer=VectorTrainer(deaf=True)) as participant:
        participant.step()

    assert not peer.payloads
    assert [outcome.outcome for outcome in peer.outcomes] == [pb.OUTCOME_FAILED]


@pytest.mark.parametrize("wrong", [{"update": None}, {"examples": 20.0}, {"steps": "3"}])
def test_a_trainer_that_returns_what_is_no_result_costs_the_assignment(
    peer: Peer, join: Join, wrong: dict[str, Any]
) -> None:
    class Wrong(VectorTrainer):
        def train(self, *given: Any, **named: Any) -> TrainingResult:
            return replace(super().train(*given, **named), **wrong)

    with join(trainer=Wrong()) as participant:
        assert participant.step().outcome is StepOutcome.FAILED

    assert [outcome.detail for outcome in peer.outcomes] == ["training failed: TypeError"]


def test_an_evaluation_that_counts_in_fractions_costs_the_assignment(
    peer: Peer, join: Join
) -> None:
    class Wrong(VectorTrainer):
        def evaluate(self, weights: NDArray[np.float32]) -> Evaluation | None:
            return Evaluation(correct=0.5, total=1, loss_sum=0.1)  # type: ignore[arg-type]

    with join(trainer=Wrong()) as participant:
        assert participant.step().outcome is StepOutcome.FAILED

    assert [outcome.detail for outcome in peer.outcomes] == ["evaluation failed: TypeError"]


def test_numbers_of_numpy_are_as_good_as_pythons(peer: Peer, join: Join) -> None:
    class OfNumpy(VectorTrainer):
        def train(self, *given: Any, **named: Any) -> TrainingResult:
            result = super().train(*given, **named)
            return replace(result, examples=np.int64(20), loss_mean=np.float32(0.5))  # type: ignore[arg-type]

    with join(trainer=OfNumpy()) as participant:
        assert participant.step().outcome is StepOutcome.UPDATED


def test_an_update_that_rounding_takes_past_the_tasks_bound_is_never_sent(
    peer: Peer, join: Join
) -> None:
    change = np.random.default_rng((7, 1)).standard_normal(a_layout().dim).astype(np.float32)
    bound = float(np.abs(change).max()) * 1.0001
    peer.task_spec = a_task_spec(a_layout(), max_abs_value=bound, encoding="int4")
    with join() as participant:
        assert participant.step().outcome is StepOutcome.FAILED

    assert peer.payloads == []
    assert "on the wire, above the task's" in peer.outcomes[0].detail


@pytest.mark.parametrize(("factor", "accepted"), [(1.0, 1), (0.999, 0)])
def test_the_largest_change_may_reach_the_tasks_bound_but_not_pass_it(
    peer: Peer, join: Join, factor: float, accepted: int
) -> None:
    change = np.random.default_rng((7, 1)).standard_normal(a_layout().dim).astype(np.float32)
    bound = float(np.abs(change).max()) * factor
    peer.task_spec = a_task_spec(a_layout(), max_abs_value=bound)
    with join() as participant:
        participant.step()

    assert len(peer.accepted) == accepted


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.ROUND_CLOSED, grpc.StatusCode.FAILED_PRECONDITION),
        (Reason.ASSIGNMENT_EXPIRED, grpc.StatusCode.FAILED_PRECONDITION),
        (Reason.ASSIGNMENT_UNKNOWN, grpc.StatusCode.NOT_FOUND),
        (Reason.UPDATE_CONFLICT, grpc.StatusCode.ALREADY_EXISTS),
    ],
)
def test_a_final_refusal_drops_the_update_and_the_device_goes_on(
    peer: Peer,
    join: Join,
    trainer: VectorTrainer,
    events: list[Event],
    reason: Reason,
    code: grpc.StatusCode,
) -> None:
    peer.faults["SubmitUpdate"].append(Fault(code=code, refusal=Refusal(reason, "too late")))
    with join() as participant:
        assert participant.step().outcome is StepOutcome.REFUSED
        (trained,) = [event for event in events if isinstance(event, Trained)]
        # Refused bytes were sent too.
        assert participant.summary.payload_bytes_sent == trained.payload_bytes
        assert participant.step().outcome is StepOutcome.UPDATED

    assert [e.reason for e in events if isinstance(e, Refused)] == [reason]
    assert trainer.trained == 2
    assert len(peer.accepted) == 1


def test_a_device_that_is_always_too_late_comes_back_less_and_less_often(
    peer: Peer, join: Join, time: Time
) -> None:
    refused = Fault(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        refusal=Refusal(Reason.ROUND_CLOSED, "too late"),
    )
    peer.faults["SubmitUpdate"].extend([refused] * 9)
    with join() as participant:
        waits = [participant.step().wait_seconds for _ in range(10)]

    for number, wait in enumerate(waits[:9]):
        factor = 2 ** min(number, 7)
        assert factor <= wait <= 10 * factor
    # An update that counts starts afresh.
    assert waits[9] <= 2


def test_updates_that_are_rejected_again_and_again_end_the_run(peer: Peer, join: Join) -> None:
    rejected = Fault(
        code=grpc.StatusCode.INVALID_ARGUMENT, refusal=Refusal(Reason.VALUE_RANGE, "too large")
    )
    peer.faults["SubmitUpdate"].extend([rejected] * 9)
    with join() as participant, pytest.raises(Exception, match="too large"):
        participant.run()

    assert peer.calls.count("SubmitUpdate") == 3
    # Each place is free again.
    assert [outcome.outcome for outcome in peer.outcomes] == [pb.OUTCOME_FAILED] * 3


def test_an_assignment_that_expires_during_the_download_is_let_go(
    peer: Peer, join: Join, trainer: VectorTrainer
) -> None:
    expired = Refusal(Reason.ASSIGNMENT_EXPIRED, "too late")
    peer.faults["DownloadAdapter"].append(
        Fault(code=grpc.StatusCode.FAILED_PRECONDITION, refusal=expired)
    )
    with join() as participant:
        assert participant.step().outcome is StepOutcome.REFUSED

    assert trainer.trained == 0
    assert peer.outcomes == []
