"""A task's rounds in one process, by the code that the service and its devices run.

master weights ─select, encode─▶ download ─decode─▶ start ─every device trains─▶ updates
      ▲                                                                             │
      └── server optimizer ◀── mean ◀── exact sums ◀── decode ◀── select, encode ◀──┘
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.domain.averaging import average, take_step
from aggregator_service.domain.downloads import (
    Masters,
    device_weights,
    encode_download,
    mean_update,
    select_download,
)
from aggregator_service.domain.tasks import TaskConfig
from client_sdk.trainer import Trainer
from flasc_core.fold import Accumulator
from flasc_core.layout import Role
from flasc_core.methods import mask_composition
from flasc_core.server_update import OptimizerState
from flasc_core.wire import DecodeLimits, decode_segments
from flasc_sim.device_work import Assignment, DeviceUpdate, TierWork

__all__ = ["Federation", "Participation", "RoundReport", "Standing", "TierReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """A device in one round: what trains for it, and the seed of its assignment."""

    trainer: Trainer
    seed: int
    # One of the task's tiers, "" for none.
    tier: str = ""


@dataclass(slots=True, kw_only=True)
class TierReport:
    """A round's devices of one tier together: payload bytes, and values sent by their role."""

    devices: int = 0
    payload_bytes_down: int = 0
    payload_bytes_up: int = 0
    examples: int = 0
    # Over examples.
    loss_sum: float = 0.0
    values_down: Counter[Role] = field(default_factory=Counter)
    values_up: Counter[Role] = field(default_factory=Counter)

    def count(self, assignment: Assignment, mask: Mapping[Role, int], update: DeviceUpdate) -> None:
        """Add a device's share; `mask` is what it downloaded."""
        self.devices += 1
        self.payload_bytes_down += len(assignment.download)
        self.payload_bytes_up += len(update.payload)
        self.examples += update.examples
        self.loss_sum += update.loss_mean * update.examples
        self.values_down.update(mask)
        self.values_up.update(update.mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReport:
    """By tier, in the order in which their first devices came."""

    tiers: Mapping[str, TierReport]

    @property
    def payload_bytes_down(self) -> int:
        return sum(tier.payload_bytes_down for tier in self.tiers.values())

    @property
    def payload_bytes_up(self) -> int:
        return sum(tier.payload_bytes_up for tier in self.tiers.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """An assignment of the next round, and how many values it sends by their role."""

    assignment: Assignment
    mask: Mapping[Role, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standing:
    """Where a federation stands between two rounds.

    `weights` are the masters, and `ranked` the versions that later rounds rank by, by their number.
    """

    weights: NDArray[np.float32]
    optimizer: OptimizerState
    round_index: int
    ranked: Mapping[int, NDArray[np.float32]]


class Federation:
    """Runs rounds one after another; updates weigh what their plan says.

    `weights` are the float32 masters, shape (dim,), and `round_index` the number of rounds done.
    """

    def __init__(self, config: TaskConfig, weights: NDArray[np.float32]) -> None:
        config.check()
        self.config: Final = config
        self.weights = weights
        self.round_index = 0
        self._optimizer = config.optimizer.init(config.layout.dim)
        # Versions that later rounds rank by, as soon as there are such rounds.
        self._ranked: dict[int, NDArray[np.float32]] = {}
        self._opened: dict[str, _Opened] = {}

    @classmethod
    def resume(cls, config: TaskConfig, standing: Standing) -> Federation:
        """Return a federation that goes on where the one with this standing is."""
        federation = cls(config, standing.weights)
        federation.round_index = standing.round_index
        federation._optimizer = standing.optimizer
        federation._ranked = dict(standing.ranked)
        return federation

    @property
    def standing(self) -> Standing:
        return Standing(
            weights=self.weights,
            optimizer=self._optimizer,
            round_index=self.round_index,
            ranked=dict(self._ranked),
        )

    def device_weights(self, tier: str = "") -> NDArray[np.float32]:
        """Return what a tier's devices start from and score in the next round, shape (dim,)."""
        return device_weights(self.config, self._masters(tier))

    def run_round(
        self, cohort: Iterable[Participation], noise_seed: bytes | None = None
    ) -> RoundReport:
        """As `close`, with the cohort's work; raises TrainingFailed too, with nothing changed."""
        return self.close(self._work(cohort), noise_seed)

    def open(self, tier: str) -> Assignment:
        """Return what the next round's devices of a tier get; repeating gives the same."""
        if tier not in self._opened:
            masters = self._masters(tier)
            selected = select_download(self.config, masters)
            assignment = Assignment(
                tier=tier,
                download=encode_download(self.config, selected),
                training=masters.plan.training,
                upload=masters.plan.upload,
                weighing=masters.plan.weighing,
            )
            self._opened[tier] = _Opened(
                assignment=assignment,
                mask=mask_composition(self.config.layout, selected.indices),
            )
        return self._opened[tier].assignment

    def close(
        self, updates: Iterable[DeviceUpdate], noise_seed: bytes | None = None
    ) -> RoundReport:
        """Fold updates of what `open` gave, and make the next adapter of their mean.

        The adapter does not depend on their order. A private task needs a `noise_seed` of 32 bytes,
        another in each round; who may take part how often is left to the caller. ValueError where
        there are no updates and the task is not private; whatever `updates` raises goes on, and
        nothing has changed then.
        """
        config = self.config
        total = Accumulator.zeros(config.layout.dim)
        tiers: dict[str, TierReport] = {}
        weights: Counter[str] = Counter()
        for number, update in enumerate(updates):
            self._add(total, update, number)
            weights[update.tier] += update.weight
            tiers.setdefault(update.tier, TierReport()).count(
                self._opened[update.tier].assignment, self._opened[update.tier].mask, update
            )
        # Also of tiers that nobody was of: a later round may rank by the version that ends here.
        for tier in config.tier_names:
            self._masters(tier)
        mean = average(config, total, self.round_index, noise_seed)
        moved = mean_update(config, mean.values, self._masters, weights)
        self.weights, self._optimizer = take_step(
            config, self.round_index, self.weights, moved, self._optimizer
        )
        self.round_index += 1
        self._opened = {}
        return RoundReport(tiers=tiers)

    def _work(self, cohort: Iterable[Participation]) -> Iterator[DeviceUpdate]:
        opened: dict[str, TierWork] = {}
        for device in cohort:
            tier = self.config.tier_of(device.tier)
            if tier not in opened:
                opened[tier] = TierWork(self.config, self.open(tier))
            yield opened[tier].do(device.trainer, device.seed)

    def _masters(self, tier: str) -> Masters:
        plan = self.config.plan(self.round_index, tier)
        if plan.ranked_by is None:
            ranked = None
        else:
            # The first round that asks for a version starts from it.
            ranked = self._ranked.setdefault(plan.ranked_by, self.weights)
        return Masters(weights=self.weights, plan=plan, ranked=ranked)

    def _add(self, total: Accumulator, update: DeviceUpdate, number: int) -> None:
        rule = self._opened[update.tier].assignment.upload
        limits = DecodeLimits(
            dim=self.config.layout.dim,
            max_nnz=rule.max_count,
            max_abs_value=self.config.limits.max_abs_value,
            encodings=frozenset(self.config.encodings.updates),
            was_read=True,
        )
        parts = partial(decode_segments, update.payload, limits)
        clip_norm = self.config.fold_clip_norm
        total.add_parts(parts, update.weight, number.to_bytes(16, "big"), clip_norm)
