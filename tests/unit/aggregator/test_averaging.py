"""Means of rounds: noise where updates could be, the goal below; neither without privacy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aggregator_service.domain.averaging import average, take_step
from aggregator_service.domain.tasks import Tier
from flasc_core.base import InitialBase
from flasc_core.fold import Accumulator
from flasc_core.layout import Role
from flasc_core.methods import FfaLora, Flasc, HeadOnly, Method, RoLora
from flasc_core.server_update import AdamW, ServerOptimizer, Sgd
from flasc_core.sparse import SparseVector
from tests.builders import a_config, a_layout, a_policy, a_privacy, digest, in_one_part

LAYOUT = a_layout()
SEED = digest("noise")
DENSE = Flasc(download_density=1.0, upload_density=1.0)


def two_updates() -> Accumulator:
    total = Accumulator.zeros(LAYOUT.dim)
    one = SparseVector(
        dim=LAYOUT.dim, indices=np.array([20]), values=np.array([0.5], dtype=np.float32)
    )
    for number in range(2):
        total.add_parts(in_one_part(one), 1, bytes([number]))
    return total


def noisy_roles(method: Method, *tiers: Tier, round_index: int = 0) -> set[Role]:
    config = a_config(method=method, tiers=tiers, privacy=a_privacy(), base=InitialBase(seed=1))
    values = average(config, Accumulator.zeros(LAYOUT.dim), round_index, SEED).values
    touched = set()
    for role in Role:
        part = values[LAYOUT.indices_of([role])]
        assert (part != 0).all() or (part == 0).all()
        if (part != 0).all():
            touched.add(role)
    return touched


def test_a_mean_without_privacy_is_over_the_weights_and_has_no_noise() -> None:
    mean = average(a_config(), two_updates(), 0, None)
    assert mean.divisor == 2
    assert np.flatnonzero(mean.values).tolist() == [20]
    assert mean.values[20] == 0.5


def test_a_private_mean_is_over_the_goal_with_noise_of_its_deviation() -> None:
    privacy = a_privacy(clip_norm=0.5, noise_multiplier=2.0)
    config = a_config(privacy=privacy, policy=a_policy(goal=10))
    plain = average(config, Accumulator.zeros(LAYOUT.dim), 0, SEED)
    mean = average(config, two_updates(), 0, SEED)
    assert mean.divisor == 10
    difference = mean.values - plain.values
    assert difference[20] == pytest.approx(0.1)
    assert np.abs(np.delete(difference, 20)).max() < 1e-12
    drawn = [average(config, two_updates(), 0, digest(str(n))).values for n in range(300)]
    assert np.std(np.array(drawn), axis=0).mean() == pytest.approx(0.1, rel=0.03)


def test_the_sums_themselves_are_left_as_they_are() -> None:
    total = two_updates()
    before = total.to_bytes()
    average(a_config(privacy=a_privacy()), total, 0, SEED)
    assert total.to_bytes() == before


@pytest.mark.parametrize(
    ("method", "round_index", "roles"),
    [
        (Flasc(download_density=0.5, upload_density=0.1), 0, set(Role)),
        (FfaLora(), 0, {Role.LORA_B, Role.HEAD}),
        (RoLora(), 0, {Role.LORA_B, Role.HEAD}),
        (RoLora(), 1, {Role.LORA_A, Role.HEAD}),
        (HeadOnly(), 0, {Role.HEAD}),
    ],
)
def test_noise_covers_every_role_that_the_round_takes_and_no_other(
    method: Method, round_index: int, roles: set[Role]
) -> None:
    assert noisy_roles(method, round_index=round_index) == roles


def test_noise_covers_what_any_tier_may_send() -> None:
    assert noisy_roles(HeadOnly(), Tier(name="large", method=FfaLora())) == {
        Role.LORA_B,
        Role.HEAD,
    }


def test_a_private_mean_without_a_seed_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="seed"):
        average(a_config(privacy=a_privacy()), two_updates(), 0, None)


@pytest.mark.parametrize(
    "optimizer", [AdamW(learning_rate=0.1, weight_decay=0.1), Sgd(learning_rate=0.1, momentum=0.9)]
)
def test_a_role_that_takes_turns_does_not_move_while_it_is_frozen(
    optimizer: ServerOptimizer,
) -> None:
    config = a_config(method=RoLora(), optimizer=optimizer)
    weights, state = np.ones(LAYOUT.dim, dtype=np.float32), optimizer.init(LAYOUT.dim)
    a, b = (LAYOUT.indices_of([role]) for role in (Role.LORA_A, Role.LORA_B))

    for round_index, (trained, frozen) in enumerate([(b, a), (a, b), (b, a)]):
        mean = np.zeros(LAYOUT.dim)
        mean[trained] = 0.5
        after, state_after = take_step(config, round_index, weights, mean, state)
        assert (after[frozen] == weights[frozen]).all()
        assert (after[trained] != weights[trained]).all()
        for name, slot in state_after.slots.items():
            assert (slot[frozen] == state.slots[name][frozen]).all()
        weights, state = after, state_after


@pytest.mark.parametrize("method", [RoLora(), FfaLora(), HeadOnly(), DENSE])
def test_steps_are_those_of_torch_with_the_frozen_parameters_left_out(method: Method) -> None:
    config = a_config(
        method=method,
        optimizer=AdamW(learning_rate=0.1, weight_decay=0.1),
        base=InitialBase(seed=1),
    )
    weights = np.ones(LAYOUT.dim, dtype=np.float32)
    state = config.optimizer.init(LAYOUT.dim)
    places = {role: LAYOUT.indices_of([role]) for role in Role}
    parameters = {role: torch.nn.Parameter(torch.ones(places[role].size)) for role in Role}
    reference = torch.optim.AdamW(parameters.values(), lr=0.1, weight_decay=0.1)
    draws = np.random.default_rng(3)

    for round_index in range(6):
        groups = method.plan(LAYOUT, round_index).upload.groups
        taken = {role for group in groups for role in group.roles}
        mean = np.zeros(LAYOUT.dim)
        for role, parameter in parameters.items():
            parameter.grad = None
            if role in taken:
                mean[places[role]] = draws.standard_normal(places[role].size)
                parameter.grad = torch.tensor(-mean[places[role]].astype(np.float32))
        weights, state = take_step(config, round_index, weights, mean, state)
        reference.step()
        for role, parameter in parameters.items():
            assert weights[places[role]] == pytest.approx(parameter.detach().numpy(), abs=1e-6)
    assert state.step == 6


def test_a_step_changes_nothing_in_place() -> None:
    config = a_config(method=HeadOnly(), optimizer=AdamW(learning_rate=0.1))
    weights, state = np.ones(LAYOUT.dim, dtype=np.float32), config.optimizer.init(LAYOUT.dim)
    take_step(config, 0, weights, np.full(LAYOUT.dim, 0.5), state)
    assert (weights == 1).all()
    assert not any(slot.any() for slot in state.slots.values())
