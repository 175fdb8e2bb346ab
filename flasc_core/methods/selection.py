"""Which coordinates a plan's rules pick from real vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from flasc_core.methods.plan import (
    LORA,
    Group,
    KeepLargest,
    KeepRanks,
    RankOrder,
    TrainRule,
    UploadRule,
    rank_axis,
)
from flasc_core.sparse import SparseVector, top_k

__all__ = ["apply_upload_rule", "check_upload", "mask_composition", "select", "trainable_mask"]


def select(
    layout: AdapterLayout, ranked: NDArray[np.float32], groups: Sequence[Group]
) -> NDArray[np.int64]:
    """Return the coordinates that `groups` keep of a vector of shape (dim,), ascending.

    Refuses K_BUDGET for a group that keeps more than there is.
    """
    if ranked.shape != (layout.dim,):
        raise ValueError(f"the vector has shape {ranked.shape}, not ({layout.dim},)")
    chosen = [
        _largest(layout, ranked, group)
        if isinstance(group, KeepLargest)
        else _ranks(layout, ranked, group)
        for group in groups
    ]
    return chosen[0] if len(chosen) == 1 else np.sort(np.concatenate(chosen))


def apply_upload_rule(
    layout: AdapterLayout, update: NDArray[np.float32], rule: UploadRule
) -> SparseVector:
    """Return what of `update` is sent: the largest coordinates of every group, then clipped.

    Zeros are left out where they are a fifth of that or more: a coordinate that nobody sends moves
    as little as one that is sent as zero. An update of nothing else is one zero, so that it still
    counts. Refuses NON_FINITE for any coordinate of the update, sent or not, and K_BUDGET for a
    group that keeps more than it has.
    """
    if not np.isfinite(update).all():
        raise Refusal(Reason.NON_FINITE, "the update holds a value that is not a finite number")
    indices = select(layout, update, rule.groups)
    # Where all is kept the update itself will do.
    kept = update if indices.size == update.size else update[indices]
    values = _clip(kept, rule.clip_norm)
    # A position takes at most a byte where a value takes four, and next to none in an unbroken row.
    if np.count_nonzero(values) <= 0.8 * values.size:
        moved = np.flatnonzero(values)
        moved = moved if moved.size else np.zeros(1, dtype=np.int64)
        indices, values = indices[moved], values[moved]
    return SparseVector(dim=layout.dim, indices=indices, values=values)


def check_upload(composition: Mapping[Role, int], rule: UploadRule) -> None:
    """Refuse (K_BUDGET) an update that holds more of a group, or other roles, than it may."""
    allowed = dict.fromkeys(Role, 0)
    for group in rule.groups:
        held = sum(composition[role] for role in group.roles)
        if held > group.count:
            names = ", ".join(sorted(group.roles))
            raise Refusal(
                Reason.K_BUDGET,
                f"the update has {held} values of {names}; this round takes {group.count}",
                count=held,
                allowed=group.count,
            )
        allowed |= dict.fromkeys(group.roles, group.count)
    for role, count in composition.items():
        if count and not allowed[role]:
            raise Refusal(
                Reason.K_BUDGET,
                f"the update has {count} values of {role}; this round takes none",
                count=count,
                allowed=0,
            )


def trainable_mask(
    layout: AdapterLayout, rule: TrainRule, downloaded: Iterable[NDArray[np.int64]]
) -> NDArray[np.bool_] | None:
    """Return which coordinates may train, bool of shape (dim,), or None where all may.

    `downloaded` are the coordinates that the download holds, a part at a time; they are taken only
    where the rule needs them.
    """
    if rule == TrainRule():
        return None
    mask = np.zeros(layout.dim, dtype=np.bool_)
    if rule.downloaded_only:
        for indices in downloaded:
            mask[indices] = True
    else:
        mask[:] = True
    for start, tensor in zip(layout.offsets, layout.tensors, strict=False):
        if tensor.role in rule.frozen_roles:
            mask[start : start + tensor.size] = False
    return mask


def mask_composition(layout: AdapterLayout, indices: NDArray[np.int64]) -> dict[Role, int]:
    """Count ascending coordinates by role; every role is named."""
    ends = np.searchsorted(indices, layout.offsets)
    counts = dict.fromkeys(Role, 0)
    for tensor, count in zip(layout.tensors, np.diff(ends).tolist(), strict=True):
        counts[tensor.role] += count
    return counts


def _largest(
    layout: AdapterLayout, vector: NDArray[np.float32], group: KeepLargest
) -> NDArray[np.int64]:
    count = group.count_in(layout)
    if layout.size_of(group.roles) == layout.dim:
        return top_k(vector, count)
    candidates = layout.indices_of(group.roles)
    return candidates[top_k(vector[candidates], count)]


def _ranks(
    layout: AdapterLayout, vector: NDArray[np.float32], group: KeepRanks
) -> NDArray[np.int64]:
    group.count_in(layout)
    kept = [
        start + _ranks_of(tensor, vector[start : start + tensor.size], group)
        for start, tensor in zip(layout.offsets, layout.tensors, strict=False)
        if tensor.role in LORA
    ]
    return np.concatenate(kept) if kept else np.empty(0, dtype=np.int64)


def _ranks_of(
    tensor: TensorSpec, values: NDArray[np.float32], group: KeepRanks
) -> NDArray[np.int64]:
    axis = rank_axis(tensor.role)
    by_rank = np.moveaxis(np.arange(tensor.size).reshape(tensor.shape), axis, 0)
    by_rank = by_rank.reshape(tensor.shape[axis], -1)
    if group.order is RankOrder.INDEX:
        first = np.arange(group.rank)
    else:
        norms = np.linalg.norm(values.astype(np.float64)[by_rank], axis=1)
        # A stable sort: of equal norms the lower rank is kept.
        first = np.argsort(-norms, kind="stable")[: group.rank]
    return np.sort(by_rank[first], axis=None)


def _clip(values: NDArray[np.float32], clip_norm: float) -> NDArray[np.float32]:
    if clip_norm == 0:
        return values
    exact = values.astype(np.float64)
    excess = math.sqrt(float(np.square(exact).sum())) / clip_norm
    return values if excess <= 1 else (exact / excess).astype(np.float32)
