"""How training rows are divided among clients; no row has two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flasc_core.json_value import JsonValue
from flasc_sim.fields import read_fields
from flasc_sim.workload import Workload

__all__ = [
    "Dirichlet",
    "DirichletByLabel",
    "Owners",
    "Partition",
    "Rows",
    "Uniform",
    "read_partition",
]

# The rows of one client, int64.
Rows: TypeAlias = NDArray[np.int64]


class Partition(Protocol):
    @property
    def clients(self) -> int | None:
        """How many clients there are at most; None where only the data can tell."""
        ...

    def divide(self, workload: Workload, seed: int) -> list[Rows]:
        """Return every client's rows; who would have none is no client. Raises ValueError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dirichlet:
    """Clients of about the same size, each with few labels, as the method's authors divide.

    Every client draws its mix of labels from Dir(concentration); the shares that clients ask of a
    label are scaled to what there is of it, rounded, and dealt out as consecutive rows. What is
    left of a label by rounding belongs to nobody.
    """

    clients: int
    concentration: float

    def __post_init__(self) -> None:
        _check_draw(self.clients, self.concentration)

    def divide(self, workload: Workload, seed: int) -> list[Rows]:
        by_label = _rows_by_label(workload)
        draw = np.random.default_rng([seed, 0])
        mixes = draw.dirichlet(np.full(len(by_label), self.concentration), size=self.clients)
        asked = mixes.sum(axis=0)
        owned: list[list[Rows]] = [[] for _ in range(self.clients)]
        for label, rows in enumerate(by_label):
            if asked[label] == 0:
                continue
            counts = np.rint(mixes[:, label] / asked[label] * rows.size).astype(np.int64)
            ends = np.cumsum(counts)
            for client, (start, end) in enumerate(zip(ends - counts, ends, strict=True)):
                owned[client].append(rows[start:end])
        return _clients(owned)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirichletByLabel:
    """Clients of very different sizes: each label's rows are dealt out in shares of Dir."""

    clients: int
    concentration: float

    def __post_init__(self) -> None:
        _check_draw(self.clients, self.concentration)

    def divide(self, workload: Workload, seed: int) -> list[Rows]:
        draw = np.random.default_rng([seed, 0])
        owned: list[list[Rows]] = [[] for _ in range(self.clients)]
        for rows in _rows_by_label(workload):
            shuffled = draw.permutation(rows)
            shares = draw.dirichlet(np.full(self.clients, self.concentration))
            ends = np.round(np.cumsum(shares) * rows.size).astype(np.int64)
            for client, part in enumerate(np.split(shuffled, ends[:-1])):
                owned[client].append(part)
        return _clients(owned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owners:
    """Natural clients: owners of at least `min_examples` rows.

    They keep a seeded draw of at most `max_examples`, 0 for all.
    A share of `pooled` of every client's rows goes into one pool and comes back from it at random:
    0 leaves clients as they are, 1 makes them alike.
    """

    min_examples: int = 1
    max_examples: int = 0
    pooled: float = 0.0

    def __post_init__(self) -> None:
        if self.min_examples < 1 or self.max_examples < 0 or not 0 <= self.pooled <= 1:
            raise ValueError(
                "partition: min_examples is at least 1, max_examples at least 0, pooled in [0, 1]"
            )

    @property
    def clients(self) -> None:
        return None

    def divide(self, workload: Workload, seed: int) -> list[Rows]:
        if workload.owners is None:
            raise ValueError(f"rows of {workload.name!r} have no owners; choose another partition")
        order = np.argsort(workload.owners, kind="stable")
        ends = np.flatnonzero(np.diff(workload.owners[order])) + 1
        owned = [rows for rows in np.split(order, ends) if rows.size >= self.min_examples]
        draw = np.random.default_rng([seed, 0])
        if self.max_examples:
            owned = [draw.permutation(rows)[: self.max_examples] for rows in owned]
        return _clients([[rows] for rows in _pooled(owned, self.pooled, draw)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Clients that are alike: shuffled rows in parts of the same size."""

    clients: int

    def __post_init__(self) -> None:
        _check_draw(self.clients, 1.0)

    def divide(self, workload: Workload, seed: int) -> list[Rows]:
        order = np.random.default_rng([seed, 0]).permutation(workload.size)
        return _clients([[rows] for rows in np.array_split(order, self.clients)])


_KINDS: Final[Mapping[str, type[Dirichlet | DirichletByLabel | Owners | Uniform]]] = (
    MappingProxyType(
        {
            "dirichlet": Dirichlet,
            "dirichlet-by-label": DirichletByLabel,
            "owners": Owners,
            "uniform": Uniform,
        }
    )
)


def read_partition(table: Mapping[str, JsonValue]) -> Partition:
    """Read a [partition] table, `name` and that kind's fields. Raises ValueError."""
    fields = dict(table)
    name = fields.pop("name", None)
    if name not in _KINDS:
        raise ValueError(f"partition.name is one of {', '.join(_KINDS)}, not {name!r}")
    return read_fields(_KINDS[str(name)], fields, "partition")


def _check_draw(clients: int, concentration: float) -> None:
    if clients < 1 or not 0 < concentration < np.inf:
        raise ValueError("partition: clients is at least 1, and concentration above 0")


def _rows_by_label(workload: Workload) -> list[Rows]:
    if workload.labels is None:
        raise ValueError(f"rows of {workload.name!r} have no labels; choose another partition")
    return [np.flatnonzero(workload.labels == label) for label in np.unique(workload.labels)]


def _pooled(owned: list[Rows], share: float, draw: np.random.Generator) -> list[Rows]:
    if not share or not owned:
        return owned
    mixed = [draw.permutation(rows) for rows in owned]
    given = [int(share * rows.size) for rows in mixed]
    pool = draw.permutation(
        np.concatenate([rows[:count] for rows, count in zip(mixed, given, strict=True)])
    )
    back = np.split(pool, np.cumsum(given)[:-1])
    return [
        np.concatenate([returned, rows[count:]])
        for rows, count, returned in zip(mixed, given, back, strict=True)
    ]


def _clients(owned: list[list[Rows]]) -> list[Rows]:
    found = [np.concatenate(parts) for parts in owned if parts]
    clients = [rows for rows in found if rows.size]
    if not clients:
        raise ValueError("the partition leaves no client with training rows")
    return clients
