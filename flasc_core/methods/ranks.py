"""What LoRA's factors amount to together: norms over the modules of a layout."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from flasc_core.layout import AdapterLayout, Role
from flasc_core.methods.plan import TrainRule, WeightKind, WeightRule

__all__ = ["lora_modules", "product_norm", "steps_down", "weigh"]

_Matrix = NDArray[np.float64]


def lora_modules(layout: AdapterLayout) -> Iterator[tuple[int, int]]:
    """Yield the tensor numbers of every module's A and B: PEFT names the two one after the other.

    ValueError for a layout in which they do not go together.
    """
    waiting: int | None = None
    for number, tensor in enumerate(layout.tensors):
        if tensor.role is Role.LORA_A and waiting is None:
            waiting = number
        elif tensor.role is Role.LORA_B and waiting is not None:
            if layout.tensors[waiting].shape[0] != tensor.shape[1]:
                raise ValueError(f"{tensor.name!r} has another rank than its A")
            yield waiting, number
            waiting = None
        elif tensor.role is not Role.HEAD:
            raise ValueError(f"{tensor.name!r} has no partner beside it")
    if waiting is not None:
        raise ValueError(f"{layout.tensors[waiting].name!r} has no B")


def product_norm(layout: AdapterLayout, weights: NDArray[np.float32]) -> float:
    """Return the Frobenius norm of B A over all modules, from the factors' Gram matrices."""
    squares = [float(np.sum((b.T @ b) * (a @ a.T))) for a, b in _factors(layout, weights)]
    return math.sqrt(max(math.fsum(squares), 0.0))


def steps_down(
    rule: TrainRule,
    layout: AdapterLayout,
    start: NDArray[np.float32],
    trained: NDArray[np.float32],
) -> bool:
    """Tell whether a device that trained from `start` can do without its penalised ranks.

    It can where the sum over modules of |B tail| x |A tail| has become smaller.
    """
    if rule.rank_penalty is None:
        return False
    first = rule.rank_penalty.from_rank
    return _tail_norm(layout, trained, first) < _tail_norm(layout, start, first)


def weigh(
    rule: WeightRule,
    layout: AdapterLayout,
    trained: NDArray[np.float32],
    *,
    examples: int,
    max_weight: int,
) -> int:
    """Return what an update weighs whose training ended at `trained`, shape (dim,)."""
    if rule.kind is WeightKind.PRODUCT_NORM:
        quantity = product_norm(layout, trained)
    else:
        quantity = float(examples)
    return min(max(round(quantity / rule.unit), 1), max_weight)


def _tail_norm(layout: AdapterLayout, weights: NDArray[np.float32], first: int) -> float:
    return math.fsum(
        float(np.linalg.norm(b[:, first:]) * np.linalg.norm(a[first:]))
        for a, b in _factors(layout, weights)
    )


def _factors(
    layout: AdapterLayout, weights: NDArray[np.float32]
) -> Iterator[tuple[_Matrix, _Matrix]]:
    tensors = [tensor.astype(np.float64) for tensor in layout.split(weights).values()]
    for a, b in lora_modules(layout):
        # Axes beyond a factor's own two, as convolutions have them, are of its inner side.
        rank = tensors[a].shape[0]
        yield tensors[a].reshape(rank, -1), np.moveaxis(tensors[b], 1, -1).reshape(-1, rank)
