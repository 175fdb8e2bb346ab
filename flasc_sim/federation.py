"""A task's rounds in one process, by the code that the service and its devices run.

master weights ─select, encode─▶ download ─decode─▶ start ─every device trains─▶ updates
      ▲                                                                             │
      └── server optimizer ◀── mean ◀── exact sums ◀── decode ◀── select, encode ◀──┘
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.domain.downloads import (
    Masters,
    device_weights,
    encode_download,
    select_download,
)
from aggregator_service.domain.tasks import TaskConfig
from client_sdk.trainer import Trainer, TrainingPlan
from flasc_core.fold import Accumulator
from flasc_core.methods import UploadRule, apply_upload_rule, trainable_mask
from flasc_core.wire import DecodeLimits, Encoding, decode, decode_segments, encode, profile_for

__all__ = ["Federation", "Participation", "RoundReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """A device in one round: what trains for it, and the seed of its assignment."""

    trainer: Trainer
    seed: int
    # One of the task's tiers, "" for none.
    tier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReport:
    """Payload bytes over all devices of the round, and their mean training loss by examples."""

    devices: int
    payload_bytes_down: int
    payload_bytes_up: int
    examples: int
    loss_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenTier:
    """What a round's devices of one tier get: where they start, and by which rules they work."""

    download_bytes: int
    start: NDArray[np.float32]
    trainable: NDArray[np.bool_] | None
    upload: UploadRule


class Federation:
    """Runs rounds one after another; updates weigh what the task lets their examples weigh.

    `weights` are the float32 masters, shape (dim,), and `round_index` the number of rounds done.
    """

    def __init__(self, config: TaskConfig, weights: NDArray[np.float32]) -> None:
        config.check()
        self.config: Final = config
        self.weights = weights
        self.round_index = 0
        self._state = config.optimizer.init(config.layout.dim)
        # Versions that later rounds rank by, as soon as there are such rounds.
        self._ranked: dict[int, NDArray[np.float32]] = {}

    def device_weights(self, tier: str = "") -> NDArray[np.float32]:
        """Return what a tier's devices start from and score in the next round, shape (dim,)."""
        return device_weights(self.config, self._masters(tier))

    def run_round(self, cohort: Iterable[Participation]) -> RoundReport:
        """Raises TrainingFailed, and ValueError for an empty cohort; nothing has changed then."""
        config = self.config
        open_tiers: dict[str, _OpenTier] = {}
        total = Accumulator.zeros(config.layout.dim)
        bytes_down, bytes_up, examples, loss_sum = 0, 0, 0, 0.0
        for number, device in enumerate(cohort):
            tier = config.tier_of(device.tier)
            if tier not in open_tiers:
                open_tiers[tier] = self._open(tier)
            opened = open_tiers[tier]
            result = device.trainer.train(
                opened.start, self._training_plan(), device.seed, _ignore_step, opened.trainable
            )
            payload = self._encode(result.update, opened.upload)
            self._add(total, payload, opened.upload, number, result.examples)
            bytes_down += opened.download_bytes
            bytes_up += len(payload)
            examples += result.examples
            loss_sum += result.loss_mean * result.examples
        self.weights, self._state = config.optimizer.apply(
            self.weights, total.mean(total.weight_sum), self._state
        )
        self.round_index += 1
        return RoundReport(
            devices=total.count,
            payload_bytes_down=bytes_down,
            payload_bytes_up=bytes_up,
            examples=examples,
            loss_mean=loss_sum / examples,
        )

    def _open(self, tier: str) -> _OpenTier:
        config, masters = self.config, self._masters(tier)
        download = encode_download(config, select_download(config, masters))
        decoded = decode(download, DecodeLimits.of_download(config.layout.dim))
        return _OpenTier(
            download_bytes=len(download),
            start=config.base.start_from(config.layout, decoded),
            trainable=trainable_mask(config.layout, masters.plan.training, decoded.indices),
            upload=masters.plan.upload,
        )

    def _masters(self, tier: str) -> Masters:
        plan = self.config.plan(self.round_index, tier)
        if plan.ranked_by is None:
            ranked = None
        else:
            # The first round that asks for a version starts from it.
            ranked = self._ranked.setdefault(plan.ranked_by, self.weights)
        return Masters(weights=self.weights, plan=plan, ranked=ranked)

    def _training_plan(self) -> TrainingPlan:
        training = self.config.training
        return TrainingPlan(**{name: getattr(training, name) for name in type(training).__slots__})

    def _encode(self, update: NDArray[np.float32], rule: UploadRule) -> bytes:
        accepted = self.config.encodings.updates
        encoding = accepted[0] if accepted else Encoding.parse("plain")
        return encode(apply_upload_rule(self.config.layout, update, rule), profile_for(encoding))

    def _add(
        self, total: Accumulator, payload: bytes, rule: UploadRule, number: int, examples: int
    ) -> None:
        # As the SDK declares it.
        weight = min(max(examples, 1), self.config.limits.max_weight)
        limits = DecodeLimits(
            dim=self.config.layout.dim,
            max_nnz=rule.max_count,
            max_abs_value=self.config.limits.max_abs_value,
            value_encodings=self.config.encodings.accepted_values,
        )
        parts = partial(decode_segments, payload, limits)
        total.add_parts(parts, weight, number.to_bytes(16, "big"))


def _ignore_step(step: int, total: int) -> None:
    pass
