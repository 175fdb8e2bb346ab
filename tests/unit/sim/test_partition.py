"""Rows divided among clients: by whom, how evenly, and never twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flasc_sim.partition import Dirichlet, DirichletByLabel, Owners, Partition, Rows, Uniform
from flasc_sim.workload import Workload
from tests.support.tiny_workload import a_workload

WORKLOAD = a_workload(600)
LABELS = np.arange(9_051, dtype=np.int64) % 20
NEWSGROUPS_LIKE = replace(WORKLOAD, labels=LABELS, owners=None)


def labels_of(workload: Workload, rows: Rows) -> int:
    assert workload.labels is not None
    return np.unique(workload.labels[rows]).size


@pytest.mark.parametrize(
    "partition",
    [
        Dirichlet(clients=20, concentration=0.1),
        DirichletByLabel(clients=20, concentration=0.1),
        Owners(),
        Owners(max_examples=50, pooled=0.5),
        Uniform(clients=20),
    ],
)
def test_no_row_has_two_clients_and_a_seed_decides(partition: Partition) -> None:
    clients = partition.divide(WORKLOAD, 1)
    rows = np.concatenate(clients)
    assert np.unique(rows).size == rows.size
    again = partition.divide(WORKLOAD, 1)
    assert all(np.array_equal(one, other) for one, other in zip(clients, again, strict=True))


def test_dirichlet_clients_are_of_about_one_size_with_few_labels() -> None:
    """The sizes that the authors' routine gives on a corpus of this shape: 21, 25 and 32 or so."""
    clients = Dirichlet(clients=350, concentration=0.1).divide(NEWSGROUPS_LIKE, 0)
    sizes = sorted(rows.size for rows in clients)
    assert len(clients) == 350
    assert sizes[0] >= 15
    assert sizes[175] in range(24, 28)
    assert sizes[-1] <= 45
    assert np.median([labels_of(NEWSGROUPS_LIKE, rows) for rows in clients]) <= 6


def test_a_label_goes_out_as_consecutive_slices_in_the_order_of_clients() -> None:
    clients = Dirichlet(clients=7, concentration=0.5).divide(NEWSGROUPS_LIKE, 2)
    of_label = [rows[LABELS[rows] == 3] for rows in clients]
    dealt = np.concatenate(of_label)
    assert np.array_equal(dealt, np.flatnonzero(LABELS == 3)[: dealt.size])


@given(st.integers(1, 40), st.floats(0.1, 10), st.integers(0, 5))
def test_rounding_leaves_at_most_half_a_row_per_client_and_label(
    clients: int, concentration: float, seed: int
) -> None:
    partition = Dirichlet(clients=clients, concentration=concentration)
    dealt = sum(rows.size for rows in partition.divide(WORKLOAD, seed))
    assert 600 - 3 * clients / 2 <= dealt <= 600


def test_labels_dealt_out_in_shares_leave_nothing_and_clients_differ_in_size() -> None:
    clients = DirichletByLabel(clients=20, concentration=0.1).divide(WORKLOAD, 0)
    sizes = [rows.size for rows in clients]
    assert sum(sizes) == 600
    assert max(sizes) > 4 * np.median(sizes)


def test_owners_are_clients_if_they_have_enough_and_keep_no_more_than_they_may() -> None:
    owners = np.repeat([5, 9, 2], [3, 8, 1]).astype(np.int64)
    workload = replace(WORKLOAD, owners=owners)
    sizes = {tuple(owners[rows].tolist()) for rows in Owners(min_examples=3).divide(workload, 0)}
    assert sizes == {(5,) * 3, (9,) * 8}
    limited = Owners(min_examples=3, max_examples=4).divide(workload, 0)
    assert sorted(rows.size for rows in limited) == [3, 4]


def test_pooling_all_rows_makes_owners_alike_and_keeps_their_sizes() -> None:
    assert WORKLOAD.owners is not None
    apart, mixed = (Owners(pooled=share).divide(WORKLOAD, 0) for share in (0.0, 1.0))
    assert [rows.size for rows in mixed] == [rows.size for rows in apart]
    assert all(len(Counter(WORKLOAD.owners[rows].tolist())) == 6 for rows in mixed)
    half = Owners(pooled=0.5).divide(WORKLOAD, 0)
    for client, rows in enumerate(half):
        assert np.count_nonzero(WORKLOAD.owners[rows] == client) >= 50


@pytest.mark.parametrize("partition", [Dirichlet(clients=3, concentration=1), Owners()])
def test_rows_without_labels_or_owners_can_not_be_divided_by_them(partition: Partition) -> None:
    with pytest.raises(ValueError, match="choose another partition"):
        partition.divide(replace(WORKLOAD, labels=None, owners=None), 0)


def test_a_partition_without_clients_is_refused() -> None:
    with pytest.raises(ValueError, match="no client"):
        Owners(min_examples=10_000).divide(WORKLOAD, 0)
