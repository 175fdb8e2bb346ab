"""One assignment's work on the device: fetch, score, train, and make durable what will be sent."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from client_sdk import _transfer
from client_sdk._errors import ProtocolError, ServiceError, TrainingFailed, translate_refusal
from client_sdk._retry import Retrier
from client_sdk._rpc import DeviceService
from client_sdk._state import PendingUpdate, StateFolder
from client_sdk._task import Task
from client_sdk.events import (
    Downloaded,
    Evaluated,
    Event,
    Retrying,
    Trained,
    TrainingProgressed,
    UploadResumed,
)
from client_sdk.trainer import Evaluation, Trainer, TrainingResult
from flasc_core import wire
from flasc_core.errors import Refusal
from flasc_core.methods import (
    TrainRule,
    UploadRule,
    WeightRule,
    apply_upload_rule,
    steps_down,
    trainable_mask,
    weigh,
)
from flasc_core.pb.v1 import device_service_pb2 as pb
from flasc_core.sparse import SparseVector

__all__ = ["StopRequested", "Worker"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class StopRequested(Exception):
    """The app asked to stop; raised wherever a step may end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What work on an assignment needs. Raises ServiceError, TrainingFailed and StopRequested."""

    service: DeviceService
    calls: Retrier
    state: StateFolder
    trainer: Trainer
    on_event: Callable[[Event], None]
    check_stopped: Callable[[], None]

    def told_of(self, call: str) -> Callable[[int, float, ServiceError], None]:
        """Return a listener that passes retries of `call` on as events."""

        def on_retry(attempt: int, delay_seconds: float, error: ServiceError) -> None:
            _log.info("%s failed, trying again in %.1f s: %s", call, delay_seconds, error)
            self.on_event(
                Retrying(call=call, attempt=attempt, delay_seconds=delay_seconds, cause=str(error))
            )

        return on_retry

    def fetch(self, assignment: pb.Assignment, task: Task) -> bytes:
        """Return the download, which can be read, resuming what an earlier try left on disk."""
        received_before = self.state.totals.payload_bytes_received
        payload = _transfer.download(
            self.service,
            self.calls,
            self.state.open_download(assignment.download.sha256),
            assignment,
            dim=task.layout.dim,
            on_received=self.state.count_received,
            on_retry=self.told_of("DownloadAdapter"),
        )
        nonzeros = sum(values.size for _, values in _parts(task, payload))
        self.on_event(
            Downloaded(
                round_number=assignment.round_number,
                payload_bytes=self.state.totals.payload_bytes_received - received_before,
                nonzeros=nonzeros,
            )
        )
        return payload

    def evaluate(self, assignment: pb.Assignment, task: Task, download: bytes) -> Evaluation | None:
        self.check_stopped()
        evaluation = _guarded(
            "evaluation",
            lambda: self.trainer.evaluate(_start(task, download)),
        )
        if evaluation is not None:
            self.on_event(Evaluated(round_number=assignment.round_number, evaluation=evaluation))
        return evaluation

    def train(
        self,
        assignment: pb.Assignment,
        task: Task,
        download: bytes,
        evaluation: Evaluation | None,
    ) -> PendingUpdate:
        """Return the encoded update, which is on disk by then."""
        self.check_stopped()
        rules = _read_rules(assignment)
        start = _start(task, download)
        held = (indices for indices, _ in _parts(task, download))
        trainable = trainable_mask(task.layout, rules.training, held)
        result = _guarded(
            "training",
            lambda: self.trainer.train(
                start,
                replace(task.plan, rank_penalty=rules.training.rank_penalty),
                assignment.training_seed,
                self._on_step,
                trainable,
            ),
        )
        vector = _select(task, rules.upload, result, trainable)
        pending = _encode(task, assignment, result, evaluation, vector)
        _weigh(pending.request.header, task, rules, start, result)
        self.state.save_pending(pending)
        self.on_event(
            Trained(
                round_number=assignment.round_number,
                examples=result.examples,
                steps=result.steps,
                loss_mean=result.loss_mean,
                seconds=result.seconds,
                nonzeros=vector.nnz,
                payload_bytes=pending.request.header.payload_size_bytes,
            )
        )
        return pending

    def send(self, pending: PendingUpdate, *, was_tried: bool) -> tuple[pb.Receipt, pb.RetryWindow]:
        """Return the receipt and when to come back, resuming what an earlier try left behind."""

        def on_resumed(durable_bytes: int) -> None:
            self.on_event(
                UploadResumed(
                    round_number=pending.round_number,
                    durable_bytes=durable_bytes,
                    payload_bytes=pending.request.header.payload_size_bytes,
                )
            )

        upload = _transfer.Upload(
            self.service, pending, on_sent=self.state.count_sent, on_resumed=on_resumed
        )
        return upload.run(self.calls, self.told_of("SubmitUpdate"), was_tried=was_tried)

    def _on_step(self, step: int, total: int) -> None:
        self.on_event(TrainingProgressed(step=step, total=total))
        self.check_stopped()


def _guarded(what: str, work: Callable[[], _T]) -> _T:
    # The app's own code: whatever it raises costs this assignment, not the device. Only the type
    # goes to the operator, since a message can quote training data.
    try:
        return work()
    except (StopRequested, TrainingFailed):
        raise
    except Exception as error:
        _log.exception("%s failed", what)
        raise TrainingFailed(f"{what} failed: {type(error).__name__}") from error


def _parts(task: Task, download: bytes) -> Iterator[wire.Part]:
    # Read once more wherever it is needed, a segment at a time: that takes far less time than
    # training does, and less memory than what is read.
    try:
        yield from wire.decode_segments(download, wire.DecodeLimits.of_download(task.layout.dim))
    except Refusal as refusal:
        raise ProtocolError(f"the download cannot be read: {refusal.message}") from refusal


def _start(task: Task, download: bytes) -> NDArray[np.float32]:
    return task.base.start_from(task.layout, _parts(task, download))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """What an assignment says of training, of what is sent, and of what that weighs."""

    training: TrainRule
    upload: UploadRule
    weighing: WeightRule


def _read_rules(assignment: pb.Assignment) -> _Rules:
    weighing = WeightRule()
    try:
        if assignment.HasField("weight_rule"):
            weighing = WeightRule.from_message(assignment.weight_rule)
        return _Rules(
            training=TrainRule.from_message(assignment.train_rule),
            upload=UploadRule.from_message(assignment.upload_rule),
            weighing=weighing,
        )
    except Refusal as refusal:
        raise translate_refusal(refusal) from refusal


def _select(
    task: Task, rule: UploadRule, result: TrainingResult, trainable: NDArray[np.bool_] | None
) -> SparseVector:
    """Return what of the update is sent; TrainingFailed for one that the task would refuse."""
    update = result.update
    if update.dtype != np.float32 or update.shape != (task.layout.dim,):
        raise TrainingFailed(
            f"the trainer's update is {update.dtype} of shape {update.shape}, "
            f"not float32 of shape ({task.layout.dim},)"
        )
    if trainable is not None and update[~trainable].any():
        raise TrainingFailed(
            "training changed what this round keeps frozen; the trainer must leave alone what its "
            "`trainable` argument excludes"
        )
    try:
        vector = apply_upload_rule(task.layout, update, rule)
        # The service sees values as they are rounded, which may take one past the limit.
        largest = wire.largest_written(vector, task.encoding)
    except Refusal as refusal:
        raise TrainingFailed(refusal.message) from refusal
    if largest > task.max_abs_value:
        raise TrainingFailed(
            f"the largest change is {largest:g} on the wire, above the task's "
            f"{task.max_abs_value:g}; training diverges"
        )
    return vector


def _weigh(
    header: pb.UpdateHeader,
    task: Task,
    rules: _Rules,
    start: NDArray[np.float32],
    result: TrainingResult,
) -> None:
    """Enter what the update weighs, and whether the device asks for the next tier."""
    trained = start + result.update
    header.weight = weigh(
        rules.weighing,
        task.layout,
        trained,
        examples=result.examples,
        max_weight=task.max_weight,
    )
    header.steps_down = steps_down(rules.training, task.layout, start, trained)


def _encode(
    task: Task,
    assignment: pb.Assignment,
    result: TrainingResult,
    evaluation: Evaluation | None,
    vector: SparseVector,
) -> PendingUpdate:
    payload = wire.encode(vector, wire.profile_for(task.encoding))
    header = pb.UpdateHeader(
        assignment_id=assignment.assignment_id,
        payload_sha256=hashlib.sha256(payload).digest(),
        payload_size_bytes=len(payload),
        download_sha256=assignment.download.sha256,
        training_metrics=pb.TrainingMetrics(
            examples=result.examples,
            steps=result.steps,
            loss_mean=result.loss_mean,
            seconds=result.seconds,
        ),
        evaluation=None if evaluation is None else evaluation.to_message(),
    )
    return PendingUpdate(
        round_number=assignment.round_number,
        max_unary_payload_bytes=task.max_unary_payload_bytes,
        request=pb.SubmitUpdateRequest(header=header, payload=payload),
    )
