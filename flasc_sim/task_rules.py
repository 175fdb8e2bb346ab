"""What a simulation asks of a task beside the task's own rules."""

from __future__ import annotations

from typing import Final

from aggregator_service.domain.tasks import TaskConfig
from flasc_core.layout import AdapterLayout, Role, TensorSpec

__all__ = ["check_simulable", "stand_in_layout"]

# Values of a stand-in's every factor: so many that no share is too small here alone.
_SIZE: Final = 2**29


def check_simulable(config: TaskConfig, clients: int | None) -> None:
    """Raise ValueError for a task whose rounds are not those of a simulation.

    `clients` is how many there are at most, None where only the data can tell.
    """
    if config.ending.target_accuracy is not None:
        raise ValueError("a simulation runs all of its rounds: leave out ending.target_accuracy")
    if clients is not None and config.policy.goal > clients:
        raise ValueError(f"policy.goal is {config.policy.goal}, and there are {clients} clients")
    _check_privacy(config, clients)


def stand_in_layout(rank: int) -> AdapterLayout:
    """Return an adapter of this rank that settings can be tried on before there is a model."""
    width = max(1, _SIZE // rank)
    return AdapterLayout(
        tensors=(
            TensorSpec(name="lora_A", shape=(rank, width), role=Role.LORA_A),
            TensorSpec(name="lora_B", shape=(width, rank), role=Role.LORA_B),
            TensorSpec(name="head", shape=(_SIZE,), role=Role.HEAD),
        )
    )


def _check_privacy(config: TaskConfig, clients: int | None) -> None:
    """Raises ValueError for privacy that simulated cohorts do not keep."""
    privacy, goal, rounds = config.privacy, config.policy.goal, config.ending.rounds
    if privacy is None:
        return
    if clients is not None and (privacy.population or 0) > clients:
        raise ValueError(f"privacy.population must be at most the {clients} clients")
    cap = privacy.max_participations
    if clients is not None and cap is not None:
        _check_cap(cap, goal, rounds, clients)
    if privacy.affordable_rounds(goal, rounds) < rounds:
        raise ValueError(
            f"{rounds} rounds cost an epsilon of {privacy.epsilon_after(rounds, goal):.3g}, more "
            f"than privacy.epsilon, {privacy.epsilon:g}"
        )


def _check_cap(cap: int, goal: int, rounds: int, clients: int) -> None:
    """Raises ValueError where rounds might use up so many clients that the last has too few."""
    # Whoever was drawn: those that have no part left took it in rounds before the last.
    used_up = (rounds - 1) * goal // cap if cap < rounds else 0
    if clients < goal + used_up:
        raise ValueError(
            f"{rounds} rounds of {goal} clients, of which none takes part more than {cap} times, "
            f"need {goal + used_up} clients, and there are {clients}; raise "
            "privacy.max_participations, or lower policy.goal or ending.rounds"
        )
