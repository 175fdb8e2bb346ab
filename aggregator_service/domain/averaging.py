"""What a round's exact sums become: a mean, and the step of the server's optimizer by it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.domain.tasks import TaskConfig
from flasc_core.fold import Accumulator
from flasc_core.layout import Role
from flasc_core.noise import draw_noise
from flasc_core.server_update import OptimizerState

__all__ = ["Mean", "average", "count_taken", "take_step"]

_ALL_ROLES: Final = frozenset(Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """float64 of shape (dim,), and the number that sums were divided by."""

    values: NDArray[np.float64]
    divisor: int


def average(
    config: TaskConfig, total: Accumulator, round_index: int, noise_seed: bytes | None
) -> Mean:
    """Return the mean of the updates in `total`, weighted as they are there.

    In a private task noise is added to the sums and the goal divides them, whoever came: how many
    did is not to be told by what is published. A pure function of its arguments; a private task
    needs a seed of 32 bytes, of which each must be used for one round alone.
    """
    privacy = config.privacy
    if privacy is None:
        return Mean(values=total.mean(total.weight_sum), divisor=total.weight_sum)
    if noise_seed is None:
        raise AssertionError("a private task's round has its seed before it is averaged")
    layout = config.layout
    noise = draw_noise(noise_seed, layout.dim, privacy.deviation)
    # On all that an update could hold, sent by anybody or not. Roles that the round does not take
    # are refused from everybody: their sums are 0 and tell nothing.
    noise[_not_taken(config, round_index)] = 0
    goal = config.policy.goal
    return Mean(values=replace(total, sums=total.sums + noise).mean(goal), divisor=goal)


def take_step(
    config: TaskConfig,
    round_index: int,
    weights: NDArray[np.float32],
    mean_update: NDArray[np.float64],
    state: OptimizerState,
) -> tuple[NDArray[np.float32], OptimizerState]:
    """Return the next weights, shape (dim,), and the optimizer's state after them.

    Roles that no plan of the round takes keep their weights and moments: momentum would carry them
    on, and weight decay shrink them, in rounds in which they are said to be frozen. Nor are such
    rounds steps of theirs, by which Adam corrects its moments.
    """
    by_missed_rounds = _by_missed_rounds(config, round_index)
    if config.layout.size_of(by_missed_rounds.get(0, ())) == config.layout.dim:
        return config.optimizer.apply(weights, mean_update, state)
    moved = weights.copy()
    slots = {name: slot.copy() for name, slot in state.slots.items()}
    for missed, roles in by_missed_rounds.items():
        at = config.layout.indices_of(roles)
        own = OptimizerState(
            step=state.step - missed, slots={name: slot[at] for name, slot in slots.items()}
        )
        moved[at], after = config.optimizer.apply(weights[at], mean_update[at], own)
        for name, slot in after.slots.items():
            slots[name][at] = slot
    return moved, OptimizerState(step=state.step + 1, slots=slots)


def _by_missed_rounds(config: TaskConfig, round_index: int) -> Mapping[int, set[Role]]:
    """Return the roles that this round takes, by how many rounds before it did not take them."""
    *before, now = (_taken(config, index) for index in range(round_index + 1))
    grouped: defaultdict[int, set[Role]] = defaultdict(set)
    for role in now:
        grouped[sum(role not in taken for taken in before)].add(role)
    return grouped


def count_taken(config: TaskConfig, round_index: int) -> int:
    """Return how many values an update of this round could hold, and noise is put on."""
    return config.layout.dim - _not_taken(config, round_index).size


def _not_taken(config: TaskConfig, round_index: int) -> NDArray[np.int64]:
    """Return the coordinates of the roles that no tier's plan lets come up in this round."""
    return config.layout.indices_of(_ALL_ROLES - _taken(config, round_index))


def _taken(config: TaskConfig, round_index: int) -> set[Role]:
    uploads = [config.plan(round_index, tier).upload for tier in config.tier_names]
    return {role for upload in uploads for group in upload.groups for role in group.roles}
