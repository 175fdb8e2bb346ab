"""One run: a task's rounds with a workload's clients, by the production core, codec and trainer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from aggregator_service.domain.privacy import PrivacyMode
from aggregator_service.domain.tasks import TaskConfig
from client_sdk.peft_trainer import (
    adapter_layout,
    adapter_weights,
    base_model_sha256,
    peft_config_json,
)
from flasc_core.base import InitialBase
from flasc_sim.checkpoint import Checkpoint
from flasc_sim.device_work import DeviceUpdate
from flasc_sim.engine import EngineParts, MakeEngine, Seat, SerialEngine, Trainers
from flasc_sim.federation import Federation
from flasc_sim.numerics import Numerics
from flasc_sim.records import EvaluationRecord, RoundRecord
from flasc_sim.settings import RunSettings
from flasc_sim.task_rules import check_simulable
from flasc_sim.workload import Workload

__all__ = ["Simulation"]


class Simulation:
    """A run that stands between two rounds; equal settings, workloads and numerics give equal bits.

    All clients share one model, and a client is no more than the rows that it owns, so there may
    be many. Where the task has tiers, clients have them in turn. Goes on from a `checkpoint` of
    the same settings as if it had never stopped.
    """

    def __init__(
        self,
        settings: RunSettings,
        workload: Workload,
        checkpoint: Checkpoint | None = None,
        *,
        engine: MakeEngine = SerialEngine,
    ) -> None:
        """Raises ValueError for settings that make no task of this workload."""
        self.settings: Final = settings
        self._workload: Final = workload
        self._clients: Final = settings.partition.divide(workload, settings.seed)
        self._model: Final = workload.build(settings.adapter, settings.seed)
        base_sha256 = base_model_sha256(self._model)
        # Of what a run was begun with; another one must not go on from it.
        self.identity: Final = f"{workload.identity()} {base_sha256.hex()}"
        if checkpoint is not None and checkpoint.workload != self.identity:
            raise ValueError(
                "the run was begun with other data or another model; give it those, or begin a new "
                "one in another folder"
            )
        self.config: Final = self._configure(base_sha256)
        # Which the clients have in turn.
        self.tiers: Final = self.config.tier_names[1:] or ("",)
        trainers = Trainers(workload, self._clients, self._model, base_sha256)
        self._scorer: Final = trainers.scoring(self._scored())
        self._draws: Final = np.random.default_rng([settings.seed, 1])
        self._started: Final = time.process_time() - (checkpoint.cpu_seconds if checkpoint else 0)
        self.rounds: Final = list(checkpoint.rounds if checkpoint else ())
        self.evaluations: Final = list(checkpoint.evaluations if checkpoint else ())
        # How many tiers down clients have asked to be.
        self._steps: Final = Counter(checkpoint.steps if checkpoint else ())
        # How many rounds clients were in.
        self._participations: Final = Counter(checkpoint.participations if checkpoint else ())
        if checkpoint is None:
            self.federation = Federation(self.config, self._initial_weights())
        else:
            self._draws.bit_generator.state = checkpoint.draws
            self.federation = Federation.resume(self.config, checkpoint.standing)
        # From 1; what failed did so in this one, be it at the evaluation after it.
        self.round_under_way = self.rounds_done
        self._engine: Final = engine(
            EngineParts(
                config=self.config,
                workload=workload,
                clients=self._clients,
                adapter=settings.adapter,
                model_seed=settings.seed,
                trainers=trainers,
            )
        )
        self.numerics: Final = Numerics.of(self._engine.device)
        if checkpoint is not None:
            checkpoint.numerics.check_same(self.numerics)

    @property
    def client_count(self) -> int:
        return len(self._clients)

    @property
    def rounds_done(self) -> int:
        return self.federation.round_index

    @property
    def is_done(self) -> bool:
        return self.rounds_done >= self.config.ending.rounds

    @property
    def cpu_seconds(self) -> float:
        """Of this process since it took the run up, of its engine's, and of those before it."""
        return time.process_time() - self._started + self._engine.cpu_seconds

    def advance(self) -> None:
        """Run a round, and score the adapter where that is due. Raises TrainingFailed."""
        self.round_under_way = self.rounds_done + 1
        cohort = self._draw_cohort()
        assignments = {seat.tier: self.federation.open(seat.tier) for seat in cohort}
        updates = self._engine.train(assignments, cohort)
        counted = self._count(cohort, updates)
        report = self.federation.close(counted, self._noise_seed())
        done = self.rounds_done
        self.rounds.extend(
            RoundRecord.of(done, tier, report.tiers[tier]) for tier in sorted(report.tiers)
        )
        if self.settings.evaluation.due(done, self.config.ending.rounds):
            self.evaluations.extend(self._evaluate(done, tier) for tier in self.tiers)

    def _count(
        self, cohort: Iterable[Seat], updates: Iterable[DeviceUpdate]
    ) -> Iterator[DeviceUpdate]:
        for seat, update in zip(cohort, updates, strict=True):
            self._steps[seat.client] += update.steps_down
            self._participations[seat.client] += 1
            yield update

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            workload=self.identity,
            numerics=self.numerics,
            standing=self.federation.standing,
            draws=self._draws.bit_generator.state,
            steps=dict(+self._steps),
            participations=dict(self._participations),
            rounds=tuple(self.rounds),
            evaluations=tuple(self.evaluations),
            cpu_seconds=self.cpu_seconds,
        )

    def _configure(self, base_sha256: bytes) -> TaskConfig:
        config = self.settings.task_config(
            adapter_layout(self._model),
            base_model_name=self._workload.base_model_name,
            base_model_sha256=base_sha256,
            peft_config_json=peft_config_json(self._model),
        )
        check_simulable(config, len(self._clients))
        return config

    def _noise_seed(self) -> bytes:
        # No secret, so that a run can be repeated: what a simulation publishes protects nobody.
        return sha256(f"noise {self.settings.seed} {self.rounds_done}".encode()).digest()

    def _initial_weights(self) -> NDArray[np.float32]:
        # The same start whatever the task's base, so that bases differ in nothing else.
        drawn = InitialBase(seed=self.settings.seed).initialise(
            self.config.layout, adapter_weights(self._model)
        )
        return self.config.base.initialise(self.config.layout, drawn)

    def _draw_cohort(self) -> list[Seat]:
        goal, clients = self.config.policy.goal, len(self._clients)
        privacy = self.config.privacy
        if privacy is not None and privacy.mode is PrivacyMode.POISSON:
            chosen = np.flatnonzero(self._draws.random(clients) < goal / clients).tolist()
        else:
            chosen = self._draws.choice(self._eligible(), goal, replace=False).tolist()
        seeds = self._draws.integers(2**63, size=len(chosen)).tolist()
        return [
            Seat(client=client, tier=self._tier_of(client), seed=seed)
            for client, seed in zip(chosen, seeds, strict=True)
        ]

    def _eligible(self) -> Sequence[int]:
        """Clients that may be in the next round: all but those that a cap on rounds keeps out."""
        everybody = range(len(self._clients))
        privacy = self.config.privacy
        if privacy is None or privacy.max_participations is None:
            return everybody
        cap = privacy.max_participations
        return [client for client in everybody if self._participations[client] < cap]

    def _tier_of(self, client: int) -> str:
        own = self.tiers[client % len(self.tiers)]
        return self.config.tier_below(own, self._steps[client])

    def _scored(self) -> Dataset[Any]:
        if self.settings.evaluation.on == "held_out":
            return self._workload.held_out
        if self._workload.validation is None:
            raise ValueError(f"workload {self._workload.name!r} has no validation rows")
        return self._workload.validation

    def _evaluate(self, number: int, tier: str) -> EvaluationRecord:
        score = self._scorer.evaluate(self.federation.device_weights(tier))
        if score is None:
            raise AssertionError("the scorer has held-out rows")
        return EvaluationRecord(
            round=number,
            tier=tier,
            correct=score.correct,
            total=score.total,
            loss=score.loss_sum / score.total,
        )
