"""A device's part of a round in process: decode the download, train, select, encode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.domain.tasks import TaskConfig
from client_sdk import TrainingFailed
from client_sdk.trainer import Trainer, TrainingPlan
from flasc_core.errors import Refusal
from flasc_core.layout import Role
from flasc_core.methods import (
    TrainRule,
    UploadRule,
    WeightRule,
    apply_upload_rule,
    mask_composition,
    steps_down,
    trainable_mask,
    weigh,
)
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, Encoding, decode_segments, encode, largest_written

__all__ = ["Assignment", "DeviceUpdate", "TierWork"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a round's devices of one tier get from the server."""

    tier: str
    download: bytes
    training: TrainRule
    upload: UploadRule
    weighing: WeightRule


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUpdate:
    """What comes back of one device; `mask` counts the values that were sent by their role."""

    tier: str
    payload: bytes
    mask: Mapping[Role, int]
    examples: int
    loss_mean: float
    weight: int
    # The device asks for the task's next tier.
    steps_down: bool = False


class TierWork:
    """An assignment as its devices read it, once for all of them."""

    def __init__(self, config: TaskConfig, assignment: Assignment) -> None:
        limits = DecodeLimits.of_download(config.layout.dim)
        parts = partial(decode_segments, assignment.download, limits)
        self._config: Final = config
        self._encoding: Final = Encoding.choose(
            encoding.to_proto() for encoding in config.encodings.updates
        )
        self._assignment: Final = assignment
        self._start: Final = config.base.start_from(config.layout, parts())
        self._trainable: Final = trainable_mask(
            config.layout, assignment.training, (indices for indices, _ in parts())
        )

    def do(self, trainer: Trainer, seed: int) -> DeviceUpdate:
        """Raises TrainingFailed."""
        layout = self._config.layout
        rules = self._assignment
        plan = replace(_training_plan(self._config), rank_penalty=rules.training.rank_penalty)
        result = trainer.train(self._start, plan, seed, _ignore_step, self._trainable)
        trained = self._start + result.update
        sent = self._select(result.update)
        return DeviceUpdate(
            tier=rules.tier,
            payload=encode(sent, self._encoding),
            mask=mask_composition(layout, sent.indices),
            examples=result.examples,
            loss_mean=result.loss_mean,
            weight=weigh(
                rules.weighing,
                layout,
                trained,
                examples=result.examples,
                max_weight=self._config.limits.max_weight,
            ),
            steps_down=steps_down(rules.training, layout, self._start, trained),
        )

    def _select(self, update: NDArray[np.float32]) -> SparseVector:
        """Raises TrainingFailed, as the SDK does, for an update that the service would refuse."""
        try:
            sent = apply_upload_rule(self._config.layout, update, self._assignment.upload)
            # As it is on the wire, where rounding may take a value past the limit.
            largest = largest_written(sent, self._encoding)
        except Refusal as refusal:
            raise TrainingFailed(refusal.message) from refusal
        if largest > self._config.limits.max_abs_value:
            raise TrainingFailed(f"the largest change is {largest:g}; training diverges")
        return sent


def _training_plan(config: TaskConfig) -> TrainingPlan:
    training = config.training
    return TrainingPlan(**{name: getattr(training, name) for name in type(training).__slots__})


def _ignore_step(step: int, total: int) -> None:
    pass
