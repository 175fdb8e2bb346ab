"""Two sources of truth agree on payload bytes, and the socket carries little more.

What a service charges, what a device believes to have sent, and what went over the wire are counted
in three places that know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest

from aggregator_service.app.task_spec import MAX_UNARY_PAYLOAD_BYTES
from aggregator_service.domain.tasks import COMPACT
from aggregator_service.store import schema
from aggregator_service.store.open import open_blobs, open_store
from flasc_core.wire import Encoding
from tests.support.certificates import issue_certificates
from tests.support.counted_bytes import (
    CONNECTED,
    ROUNDS_FOR_A_HANDSHAKE,
    SCENES,
    STAYING,
    Counted,
    count_bytes,
)
from tests.support.live import live_service

ENCODINGS: Final[Mapping[str, Encoding]] = MappingProxyType(
    {"plain": Encoding.parse("plain"), "compact": COMPACT}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    devices: Sequence[Counted]
    secured: bool

    def named(self, name: str) -> Counted:
        return next(one for one in self.devices if one.name == name)


@pytest.fixture(scope="module", params=["plain", "compact", "compact, TLS"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("counted")
    url = f"sqlite:///{folder}/flasc.db"
    schema.upgrade(url)
    store = open_store(url)
    encoding, _, secured = request.param.partition(", ")
    settings, roots = secured_by(folder) if secured else ({}, None)
    with live_service(store, open_blobs(str(folder / "blobs")), **settings) as live:
        found = count_bytes(live, folder, ENCODINGS[encoding], roots)
    store.close()
    return Fleet(devices=found, secured=bool(secured))


def secured_by(folder: Path) -> tuple[dict[str, Any], bytes]:
    issued = issue_certificates(folder, "127.0.0.1")
    settings = {
        "insecure_dev": False,
        "tls_certificate": issued.certificate,
        "tls_key": issued.key,
    }
    return settings, issued.roots


def test_both_ends_count_the_same_bytes_of_every_device(fleet: Fleet) -> None:
    assert [one.name for one in fleet.devices] == list(SCENES)
    for one in fleet.devices:
        assert one.own == one.ledger, one


def test_the_socket_carries_all_of_it_and_little_more(fleet: Fleet) -> None:
    for one in fleet.devices:
        assert one.socket.sent >= one.own.sent, one
        assert one.socket.received >= one.own.received, one
    handshake = fleet.named(CONNECTED).excess_bytes if fleet.secured else 0
    for one in fleet.devices:
        assert not one.calls or one.share_apart_from(handshake) <= 1, one


def test_a_device_that_stays_connected_makes_up_for_the_handshake(fleet: Fleet) -> None:
    for rounds, name in STAYING.items():
        assert rounds < ROUNDS_FOR_A_HANDSHAKE or fleet.named(name).share_of_bound <= 1, name


def test_a_device_connects_once(fleet: Fleet) -> None:
    assert {one.connections for one in fleet.devices} == {1}


def test_a_connection_alone_carries_no_payload(fleet: Fleet) -> None:
    alone = fleet.named(CONNECTED)
    assert alone.calls == alone.payload_bytes == 0
    assert alone.excess_bytes > (2_000 if fleet.secured else 0)


def test_refused_and_repeated_uploads_were_among_them(fleet: Fleet) -> None:
    """A comparison of honest first attempts alone would prove little."""
    sent = {one.name: one.own.sent for one in fleet.devices}

    assert sent["unary, refused"] > 10_000
    assert sent["streamed, refused at its header"] == 0
    assert sent["unary, repeated"] > 1.9 * sent[STAYING[1]]
    assert sent["streamed"] > MAX_UNARY_PAYLOAD_BYTES
    assert sent["streamed, refused and repeated"] > 2.9 * sent["streamed"]
    assert sent["training failed"] == 0
