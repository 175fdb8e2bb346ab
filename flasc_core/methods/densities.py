"""Shares of roles: what of a vector a method's densities keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout, Role
from flasc_core.methods.plan import HEAD, KeepLargest
from flasc_core.sparse import count_kept

__all__ = ["Share", "check_densities", "keep_shares", "shares_of"]

# Roles that are ranked together, and which part of them is kept.
Share: TypeAlias = tuple[frozenset[Role], float]


def shares_of(
    roles: frozenset[Role], density: float, head_density: float | None = None
) -> list[Share]:
    """Return `roles` as one share, or the head as another where it has a density of its own."""
    if head_density is None or Role.HEAD not in roles:
        return [(roles, density)]
    return [share for share in ((roles - HEAD, density), (HEAD, head_density)) if share[0]]


def keep_shares(layout: AdapterLayout, shares: Sequence[Share]) -> tuple[KeepLargest, ...]:
    """Return the groups of the shares that this layout has; none keeps less than one coordinate."""
    return tuple(
        KeepLargest(roles=roles, count=max(1, count_kept(layout.size_of(roles), density)))
        for roles, density in shares
        if layout.size_of(roles)
    )


def check_densities(layout: AdapterLayout, shares: Sequence[Share]) -> None:
    """Refuse (CONFIGURATION) a share that keeps nothing, and shares that all are of nothing."""
    sizes = [(layout.size_of(roles), density) for roles, density in shares]
    if not any(size for size, _ in sizes):
        raise Refusal(
            Reason.CONFIGURATION, "the method trains no tensor of this layout; choose another one"
        )
    for size, density in sizes:
        if size and count_kept(size, density) < 1:
            raise Refusal(
                Reason.CONFIGURATION,
                f"a density of {density} keeps none of {size} coordinates; raise it",
                density=density,
                size=size,
            )
