"""What an app implements so that its model can take part: one protocol and its values."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout
from flasc_core.methods import RankPenalty
from flasc_core.pb.v1 import device_service_pb2, task_spec_pb2

__all__ = ["Evaluation", "Trainer", "TrainingPlan", "TrainingResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Local training as the task prescribes it: plain SGD with momentum over shuffled batches.

    `max_steps` of 0 means as many steps as the epochs give. Some rounds add a `rank_penalty` to the
    loss, see there; none of the losses that a trainer reports contain it.
    """

    local_epochs: int
    max_steps: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    rank_penalty: RankPenalty | None = None

    @classmethod
    def from_message(cls, message: task_spec_pb2.TrainingPlan) -> TrainingPlan:
        """Refuses FIELD_RANGE."""
        if message.local_epochs < 1 or message.batch_size < 1:
            raise Refusal(Reason.FIELD_RANGE, "a plan has at least one epoch and batches of one")
        numbers = (message.learning_rate, message.momentum, message.weight_decay)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise Refusal(Reason.FIELD_RANGE, "a plan's rates are finite and not negative")
        return cls(
            local_epochs=message.local_epochs,
            max_steps=message.max_steps,
            batch_size=message.batch_size,
            learning_rate=message.learning_rate,
            momentum=message.momentum,
            weight_decay=message.weight_decay,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Counts over held-out examples. `loss_sum` is the sum over examples, not their mean.

    TypeError for counts that are no integers, ValueError for counts that cannot be and for a loss
    that is not finite.
    """

    correct: int
    total: int
    loss_sum: float

    def __post_init__(self) -> None:
        _hold_as(self, correct=operator.index, total=operator.index, loss_sum=float)
        if not 0 <= self.correct <= self.total or not math.isfinite(self.loss_sum):
            raise ValueError(f"{self} is no evaluation")

    def to_message(self) -> device_service_pb2.Evaluation:
        return device_service_pb2.Evaluation(
            correct=self.correct, total=self.total, loss_sum=self.loss_sum
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """`update` is float32 of shape (dim,): trained weights minus the weights that were given.

    A coordinate that training did not touch is exactly zero. `examples` counts the distinct
    examples that were used; `loss_mean` is per example that was processed. TypeError for an update
    that is no array and for counts that are no integers, ValueError for counts below zero and for
    numbers that are not finite.
    """

    update: NDArray[np.float32]
    examples: int
    steps: int
    loss_mean: float
    seconds: float

    def __post_init__(self) -> None:
        if not isinstance(self.update, np.ndarray):
            raise TypeError(f"an update is a numpy array, not {type(self.update).__name__}")
        _hold_as(self, examples=operator.index, steps=operator.index)
        _hold_as(self, loss_mean=float, seconds=float)
        if not (math.isfinite(self.loss_mean) and math.isfinite(self.seconds)):
            raise ValueError("a training result holds finite numbers")
        if self.examples < 0 or self.steps < 0:
            raise ValueError("a training result counts from zero")


class Trainer(Protocol):
    """A model, its local data, and how the one learns from the other.

    Weights come and go as one float32 vector of shape (layout.dim,), in the layout's order.
    """

    @property
    def layout(self) -> AdapterLayout: ...

    @property
    def base_model_sha256(self) -> bytes:
        """SHA-256 over the frozen tensors, as `peft_trainer.base_model_sha256` computes it."""
        ...

    def evaluate(self, weights: NDArray[np.float32]) -> Evaluation | None:
        """Score `weights` on held-out examples; None where there are none."""
        ...

    def train(
        self,
        weights: NDArray[np.float32],
        plan: TrainingPlan,
        seed: int,
        on_step: Callable[[int, int], None],
        trainable: NDArray[np.bool_] | None = None,
    ) -> TrainingResult:
        """Train from `weights`; the same arguments give the same update.

        Coordinates outside `trainable`, shape (dim,), stay as they are; without it all may change.
        Calls `on_step(steps_done, steps_in_all)` after each step and lets what it raises pass: that
        is how a participant stops. Raises TrainingFailed where training makes no sense.
        """
        ...


def _hold_as(values: object, **kinds: Callable[[Any], float]) -> None:
    """Turn numpy's and torch's scalars into Python's, as messages want them."""
    for name, kind in kinds.items():
        object.__setattr__(values, name, kind(getattr(values, name)))
