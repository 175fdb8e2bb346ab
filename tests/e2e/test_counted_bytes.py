"""Two sources of truth agree on payload bytes, and the socket carries little more.

What a service charges, what a device believes to have sent, and what went over the wire are counted
in three places that know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from aggregator_service.store import schema
from aggregator_service.store.open import open_blobs, open_store
from tests.support.counted_bytes import SCENES, Counted, count_bytes
from tests.support.live import live_service


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Counted]:
    folder = tmp_path_factory.mktemp("counted")
    url = f"sqlite:///{folder}/flasc.db"
    schema.upgrade(url)
    store = open_store(url)
    with live_service(store, open_blobs(str(folder / "blobs"))) as live:
        found = count_bytes(live, folder)
    store.close()
    return found


def test_both_ends_count_the_same_bytes_of_every_device(counted: Sequence[Counted]) -> None:
    assert [one.name for one in counted] == list(SCENES)
    for one in counted:
        assert one.own == one.ledger, one


def test_the_socket_carries_all_of_it_and_little_more(counted: Sequence[Counted]) -> None:
    for one in counted:
        assert one.socket.sent >= one.own.sent, one
        assert one.socket.received >= one.own.received, one
        assert one.excess_bytes <= 0.02 * one.payload_bytes + 1024 * one.calls, one


def test_refused_and_repeated_uploads_were_among_them(counted: Sequence[Counted]) -> None:
    """A comparison of honest first attempts alone would prove little."""
    sent = {one.name: one.own.sent for one in counted}

    assert sent["unary, refused"] > 10_000
    assert sent["unary, repeated"] > 1.9 * sent["unary"]
    assert sent["streamed"] > 2 << 20
    assert sent["streamed, refused and repeated"] > 2.9 * sent["streamed"]
    assert sent["training failed"] == 0
