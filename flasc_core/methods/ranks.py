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

    It can where the sum over modules of |B tail| x |A tail| has become smaller (HetLoRA's rank
    self-pruning, arXiv 2401.06432). The paper compares norms alone, and so a product that is zero
    at the start never shrinks. That of the first round, where B alone is zero, has a gradient and
    grows: the device keeps its ranks. Where both factors are zero in every module, as zero padding
    leaves them once nobody of this rank was in a round, no training changes them and the loss does
    not depend on them, which is what self-pruning looks for: the device steps down.
    """
    if rule.rank_penalty is None:
        return False
    first = rule.rank_penalty.from_rank
    before, after = _tails(layout, start, first), _tails(layout, trained, first)
    if not any(a.any() or b.any() for a, b in after):
        return True
    return _sum_of_products(after) < _sum_of_products(before)


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


def _tails(
    layout: AdapterLayout, weights: NDArray[np.float32], first: int
) -> list[tuple[_Matrix, _Matrix]]:
    return [(a[first:], b[:, first:]) for a, b in _factors(layout, weights)]


def _sum_of_products(factors: list[tuple[_Matrix, _Matrix]]) -> float:
    return math.fsum(float(np.linalg.norm(b) * np.linalg.norm(a)) for a, b in factors)


def _factors(
    layout: AdapterLayout, weights: NDArray[np.float32]
) -> Iterator[tuple[_Matrix, _Matrix]]:
    tensors = [tensor.astype(np.float64) for tensor in layout.split(weights).values()]
    for a, b in lora_modules(layout):
        # Axes beyond a factor's own two, as convolutions have them, are of its inner side.
        rank = tensors[a].shape[0]
        yield tensors[a].reshape(rank, -1), np.moveaxis(tensors[b], 1, -1).reshape(-1, rank)
