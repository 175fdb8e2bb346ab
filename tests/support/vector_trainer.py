"""A trainer without a model: its update follows from the seed, and it counts how often it works."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from client_sdk import Evaluation, TrainingPlan, TrainingResult
from flasc_core.layout import AdapterLayout, Role, TensorSpec

__all__ = ["VectorTrainer", "a_layout"]


def a_layout(scale: int = 1) -> AdapterLayout:
    return AdapterLayout(
        tensors=(
            TensorSpec(name="q.lora_A", shape=(4, 8 * scale), role=Role.LORA_A),
            TensorSpec(name="q.lora_B", shape=(8 * scale, 4), role=Role.LORA_B),
            TensorSpec(name="head.weight", shape=(3, 8), role=Role.HEAD),
        )
    )


class VectorTrainer:
    """`steps` steps; `failing` trainings raise first; `scale` sizes the update.

    A `deaf` one trains what should stay frozen.
    """

    def __init__(
        self,
        layout: AdapterLayout | None = None,
        *,
        base: bytes = b"base",
        steps: int = 3,
        holdout: bool = True,
        scale: float = 1.0,
        failing: int = 0,
        deaf: bool = False,
    ) -> None:
        self.layout = layout or a_layout()
        self.base_model_sha256 = hashlib.sha256(base).digest()
        self.trained = 0
        self.evaluated: list[NDArray[np.float32]] = []
        self.plans: list[TrainingPlan] = []
        # What the last training was told to leave alone.
        self.trainable: NDArray[np.bool_] | None = None
        self._steps = steps
        self._holdout = holdout
        self._scale = np.float32(scale)
        self._failing = failing
        self._deaf = deaf

    def evaluate(self, weights: NDArray[np.float32]) -> Evaluation | None:
        self.evaluated.append(weights.copy())
        return Evaluation(correct=3, total=4, loss_sum=2.5) if self._holdout else None

    def train(
        self,
        weights: NDArray[np.float32],
        plan: TrainingPlan,
        seed: int,
        on_step: Callable[[int, int], None],
        trainable: NDArray[np.bool_] | None = None,
    ) -> TrainingResult:
        self.trained += 1
        self.plans.append(plan)
        self.trainable = trainable
        if self._failing:
            self._failing -= 1
            raise RuntimeError("the private example 'my diagnosis' does not fit in memory")
        for step in range(1, self._steps + 1):
            on_step(step, self._steps)
        noise = np.random.default_rng((seed, self.trained)).standard_normal(weights.shape)
        if trainable is not None and not self._deaf:
            noise[~trainable] = 0
        return TrainingResult(
            update=noise.astype(np.float32) * self._scale,
            examples=20,
            steps=self._steps,
            loss_mean=0.5,
            seconds=1.0,
        )
