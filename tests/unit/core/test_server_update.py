"""Server optimizers, against torch's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue
from flasc_core.server_update import Adam, AdamW, ServerOptimizer, Sgd, optimizer_from_json
from tests.unit.core.builders import finite_floats

PAIRS: dict[str, tuple[ServerOptimizer, Callable[[Any], torch.optim.Optimizer]]] = {
    "adamw": (
        AdamW(learning_rate=1e-3),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    ),
    "adamw, much decay": (
        AdamW(learning_rate=5e-3, weight_decay=0.5),
        lambda parameters: torch.optim.AdamW(parameters, lr=5e-3, weight_decay=0.5),
    ),
    "adamw, other moments": (
        AdamW(learning_rate=2e-3, beta1=0.8, beta2=0.95, epsilon=1e-6),
        lambda parameters: torch.optim.AdamW(parameters, lr=2e-3, betas=(0.8, 0.95), eps=1e-6),
    ),
    "adam": (Adam(learning_rate=5e-3), lambda parameters: torch.optim.Adam(parameters, lr=5e-3)),
    "sgd": (Sgd(), lambda parameters: torch.optim.SGD(parameters, lr=1.0)),
    "sgd, momentum": (
        Sgd(learning_rate=0.1, momentum=0.9),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_sixty_steps_match_torch(name: str) -> None:
    optimizer, make_torch = PAIRS[name]
    rng = np.random.default_rng(11)
    weights = (rng.standard_normal(500) * 0.05).astype(np.float32)
    parameter = torch.nn.Parameter(torch.tensor(weights))
    reference = make_torch([parameter])
    state = optimizer.init(weights.size)
    for step in range(60):
        # Most coordinates are untouched in most rounds.
        mean = rng.standard_normal(500) * 0.01 * (rng.random(500) < 0.25)
        weights, state = optimizer.apply(weights, mean, state)
        parameter.grad = torch.tensor(-mean.astype(np.float32))
        reference.step()
        assert state.step == step + 1
        assert np.abs(weights - parameter.detach().numpy()).max() <= 1e-7
    assert np.abs(weights).max() > 0.05


@given(
    hnp.arrays(np.float32, 8, elements=finite_floats()),
    hnp.arrays(np.bool_, 8),
    hnp.arrays(np.float32, 8, elements=finite_floats()),
)
def test_plain_sgd_keeps_every_bit_of_an_untouched_coordinate(
    weights: np.ndarray, touched: np.ndarray, mean: np.ndarray
) -> None:
    mean = np.where(touched, mean, 0).astype(np.float64)
    moved, _ = Sgd().apply(weights, mean, Sgd().init(8))
    assert moved[mean == 0].tobytes() == weights[mean == 0].tobytes()
    assert np.array_equal(moved, weights + mean.astype(np.float32))


def test_plain_sgd_keeps_the_sign_of_a_zero() -> None:
    weights = np.array([-0.0, 0.0, -0.0, 0.0], dtype=np.float32)
    mean = np.array([0.0, 0.0, -0.0, -0.0])
    moved, _ = Sgd().apply(weights, mean, Sgd().init(4))
    assert moved.tobytes() == weights.tobytes()


def test_adamw_decays_coordinates_that_nobody_touched() -> None:
    weights = np.array([1.0, -2.0], dtype=np.float32)
    optimizer = AdamW(learning_rate=0.1, weight_decay=0.5)
    moved, _ = optimizer.apply(weights, np.zeros(2), optimizer.init(2))
    assert moved == pytest.approx([0.95, -1.9])


@pytest.mark.parametrize("name", PAIRS)
def test_a_step_changes_neither_its_weights_nor_its_state(name: str) -> None:
    optimizer, _ = PAIRS[name]
    weights, mean = np.ones(3, dtype=np.float32), np.ones(3)
    _, state = optimizer.apply(weights, mean, optimizer.init(3))
    before = {slot: vector.copy() for slot, vector in state.slots.items()}
    first = optimizer.apply(weights, mean, state)
    second = optimizer.apply(weights, mean, state)
    assert weights.tolist() == [1, 1, 1]
    assert state.step == 1
    for slot, vector in before.items():
        assert np.array_equal(state.slots[slot], vector)
    assert first[0].tobytes() == second[0].tobytes()


@pytest.mark.parametrize("name", PAIRS)
def test_weights_and_state_stay_float32(name: str) -> None:
    optimizer, _ = PAIRS[name]
    weights, state = optimizer.apply(np.ones(3, dtype=np.float32), np.ones(3), optimizer.init(3))
    assert weights.dtype == np.float32
    assert all(vector.dtype == np.float32 for vector in state.slots.values())


def test_weights_that_do_not_fit_the_mean_are_an_error() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Sgd().apply(np.ones(3, dtype=np.float32), np.ones(4), Sgd().init(3))
    with pytest.raises(ValueError, match="do not fit"):
        Sgd().apply(np.ones(3), np.ones(3), Sgd().init(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PAIRS)
def test_an_optimizer_travels_as_json(name: str) -> None:
    optimizer, _ = PAIRS[name]
    assert optimizer_from_json(optimizer.to_json()) == optimizer


def test_missing_settings_take_their_defaults() -> None:
    assert optimizer_from_json({"name": "sgd"}) == Sgd(learning_rate=1.0, momentum=0.0)
    assert optimizer_from_json({"name": "adamw", "learning_rate": 0.5}) == AdamW(learning_rate=0.5)
    assert optimizer_from_json({"name": "adam", "learning_rate": 0.5}) == Adam(learning_rate=0.5)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "lion", "learning_rate": 1},
        {"name": "adamw"},
        {"name": "adamw", "learning_rate": 0},
        {"name": "adamw", "learning_rate": -1},
        {"name": "adamw", "learning_rate": math.inf},
        {"name": "adamw", "learning_rate": 1, "beta1": 1},
        {"name": "adamw", "learning_rate": 1, "beta2": -0.1},
        {"name": "adamw", "learning_rate": 1, "epsilon": 0},
        {"name": "adamw", "learning_rate": 1, "weight_decay": -1},
        {"name": "adamw", "learning_rate": 1, "momentum": 0},
        {"name": "adam", "learning_rate": 1, "weight_decay": 0.1},
        {"name": "sgd", "learning_rate": 0},
        {"name": "sgd", "momentum": 1},
        {"name": "sgd", "nesterov": True},
    ],
)
def test_bad_settings_are_refused(data: dict[str, JsonValue]) -> None:
    with pytest.raises(Refusal) as refusal:
        optimizer_from_json(data)
    assert refusal.value.reason is Reason.CONFIGURATION
