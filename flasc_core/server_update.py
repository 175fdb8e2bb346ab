"""Server optimizers: how the mean of the updates changes the weights.

Formulas are torch.optim's (SGD; Adam, Kingma and Ba 2015, algorithm 1; AdamW, Loshchilov and
Hutter 2019, algorithm 2), in float32 and in torch's order of operations, with the pseudo-gradient
-mean. Every operation is one that IEEE 754 rounds exactly, so that all machines get the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue, read_number, read_text, refuse_unknown_keys

__all__ = [
    "Adam",
    "AdamW",
    "OptimizerState",
    "ServerOptimizer",
    "Sgd",
    "optimizer_from_json",
]

_Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerState:
    """Steps taken, and one float32 vector of shape (dim,) per slot, which the kind decides."""

    step: int
    slots: Mapping[str, _Vector]


class ServerOptimizer(Protocol):
    """A pure step: neither weights nor state are changed in place."""

    def init(self, dim: int) -> OptimizerState: ...

    def apply(
        self, weights: _Vector, mean_update: NDArray[np.float64], state: OptimizerState
    ) -> tuple[_Vector, OptimizerState]:
        """Return the next weights and state. `mean_update` points downhill: weights + update."""
        ...

    def to_json(self) -> dict[str, JsonValue]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd:
    """torch.optim.SGD; at learning rate 1 without momentum this is federated averaging.

    Without momentum a coordinate whose mean is zero keeps every bit, the sign of zero included.
    """

    learning_rate: float = 1.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        _check_learning_rate(self.learning_rate)
        _check_share("momentum", self.momentum)

    def init(self, dim: int) -> OptimizerState:
        slots = {"momentum": np.zeros(dim, dtype=np.float32)} if self.momentum else {}
        return OptimizerState(step=0, slots=slots)

    def apply(
        self, weights: _Vector, mean_update: NDArray[np.float64], state: OptimizerState
    ) -> tuple[_Vector, OptimizerState]:
        direction = _gradient(weights, mean_update)
        slots: dict[str, _Vector] = {}
        if self.momentum:
            direction = state.slots["momentum"] * np.float32(self.momentum) + direction
            slots = {"momentum": direction}
        moved = weights - np.float32(self.learning_rate) * direction
        return moved, OptimizerState(step=state.step + 1, slots=slots)

    def to_json(self) -> dict[str, JsonValue]:
        return {"name": "sgd", "learning_rate": self.learning_rate, "momentum": self.momentum}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW:
    """torch.optim.AdamW: bias-corrected moments, weight decay apart from the gradient."""

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _check_learning_rate(self.learning_rate)
        _check_share("beta1", self.beta1)
        _check_share("beta2", self.beta2)
        if not 0 < self.epsilon < math.inf:
            raise Refusal(Reason.CONFIGURATION, "epsilon must be above 0", field="epsilon")
        if not 0 <= self.weight_decay < math.inf:
            raise Refusal(Reason.CONFIGURATION, "weight_decay must be at least 0")

    def init(self, dim: int) -> OptimizerState:
        slots = {name: np.zeros(dim, dtype=np.float32) for name in ("mean", "square")}
        return OptimizerState(step=0, slots=slots)

    def apply(
        self, weights: _Vector, mean_update: NDArray[np.float64], state: OptimizerState
    ) -> tuple[_Vector, OptimizerState]:
        decayed = weights * np.float32(1 - self.learning_rate * self.weight_decay)
        return _adam_step(
            decayed,
            _gradient(weights, mean_update),
            state,
            _AdamRates(
                learning_rate=self.learning_rate,
                beta1=self.beta1,
                beta2=self.beta2,
                epsilon=self.epsilon,
            ),
        )

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "name": "adamw",
            "learning_rate": self.learning_rate,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "epsilon": self.epsilon,
            "weight_decay": self.weight_decay,
        }


def Adam(  # noqa: N802 - it names a kind of optimizer, as torch does
    *, learning_rate: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
) -> AdamW:
    """Return torch.optim.Adam with its default of no weight decay, which is AdamW without it."""
    return AdamW(
        learning_rate=learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=0.0
    )


def optimizer_from_json(data: Mapping[str, JsonValue]) -> ServerOptimizer:
    """Read what `to_json` wrote; missing settings take their defaults. Refuses CONFIGURATION."""
    name = read_text(data, "name")
    reader = _READERS.get(name)
    if reader is None:
        raise Refusal(
            Reason.CONFIGURATION,
            f"server optimizer {name!r} is unknown; known are {', '.join(sorted(_READERS))}",
            field="name",
        )
    return reader(data)


def _read_sgd(data: Mapping[str, JsonValue]) -> Sgd:
    refuse_unknown_keys(data, ("name", "learning_rate", "momentum"))
    return Sgd(
        learning_rate=read_number(data, "learning_rate", 1.0),
        momentum=read_number(data, "momentum", 0.0),
    )


def _read_adamw(data: Mapping[str, JsonValue]) -> AdamW:
    refuse_unknown_keys(
        data, ("name", "learning_rate", "beta1", "beta2", "epsilon", "weight_decay")
    )
    return AdamW(
        learning_rate=read_number(data, "learning_rate"),
        beta1=read_number(data, "beta1", 0.9),
        beta2=read_number(data, "beta2", 0.999),
        epsilon=read_number(data, "epsilon", 1e-8),
        weight_decay=read_number(data, "weight_decay", 0.01),
    )


def _read_adam(data: Mapping[str, JsonValue]) -> AdamW:
    refuse_unknown_keys(data, ("name", "learning_rate", "beta1", "beta2", "epsilon"))
    return _read_adamw({**data, "weight_decay": 0.0})


_READERS: Final[Mapping[str, Callable[[Mapping[str, JsonValue]], ServerOptimizer]]] = (
    MappingProxyType({"adam": _read_adam, "adamw": _read_adamw, "sgd": _read_sgd})
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _AdamRates:
    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float


def _adam_step(
    weights: _Vector, gradient: _Vector, state: OptimizerState, rates: _AdamRates
) -> tuple[_Vector, OptimizerState]:
    step = state.step + 1
    mean, square = state.slots["mean"], state.slots["square"]
    mean = mean + np.float32(1 - rates.beta1) * (gradient - mean)
    square = square * np.float32(rates.beta2) + np.float32(1 - rates.beta2) * gradient * gradient
    correction = np.float32(math.sqrt(1 - rates.beta2**step))
    scale: _Vector = np.sqrt(square)
    scale /= correction
    scale += np.float32(rates.epsilon)
    step_size = np.float32(rates.learning_rate / (1 - rates.beta1**step))
    moved = weights - step_size * mean / scale
    return moved, OptimizerState(step=step, slots={"mean": mean, "square": square})


def _gradient(weights: _Vector, mean_update: NDArray[np.float64]) -> _Vector:
    if weights.dtype != np.float32 or weights.shape != mean_update.shape:
        raise ValueError(
            f"weights {weights.dtype}{weights.shape} do not fit a mean of {mean_update.shape}"
        )
    # Subtracting from zero, unlike negating, leaves no -0.0 that would flip the sign of a zero.
    return np.float32(0) - mean_update.astype(np.float32)


def _check_learning_rate(value: float) -> None:
    if not 0 < value < math.inf:
        raise Refusal(Reason.CONFIGURATION, "learning_rate must be above 0", field="learning_rate")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise Refusal(Reason.CONFIGURATION, f"{name} must be in [0, 1)", field=name)
