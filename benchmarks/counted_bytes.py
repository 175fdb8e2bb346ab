"""How much more than payloads the sockets of devices carry, and whether both ends count the same.

Devices take part through a forwarder that counts, in the scenes of tests/support/counted_bytes.py:
first contact, several rounds over one connection, refused and repeated uploads, unary and streamed;
with plain and compact values, the latter under TLS too. Nothing here depends on speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from aggregator_service.domain.tasks import COMPACT
from aggregator_service.store import schema
from aggregator_service.store.open import open_blobs, open_store
from benchmarks._report import Goal, write_report
from benchmarks._shares import draw_shares
from flasc_core.wire import Encoding
from tests.support.certificates import issue_certificates
from tests.support.counted_bytes import (
    CONNECTED,
    ROUNDS_FOR_A_HANDSHAKE,
    STAYING,
    Counted,
    count_bytes,
)
from tests.support.live import live_service

BEYOND: Final = "socket bytes beyond payloads, as a share of 2 % and 1 KiB per call"


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        issued = issue_certificates(folder, "127.0.0.1")
        secured = {
            "insecure_dev": False,
            "tls_certificate": issued.certificate,
            "tls_key": issued.key,
        }
        counted = {
            "plain": _count(folder / "plain", Encoding.parse("plain")),
            "compact": _count(folder / "compact", COMPACT),
            "compact, TLS": _count(folder / "tls", COMPACT, issued.roots, secured),
        }
    devices = [one for found in counted.values() for one in found]
    difference = max(
        abs(one.own.sent - one.ledger.sent) + abs(one.own.received - one.ledger.received)
        for one in devices
    )
    in_clear = [one for way in ("plain", "compact") for one in counted[way]]
    under_tls = {one.name: one for one in counted["compact, TLS"]}
    connecting = under_tls.pop(CONNECTED).excess_bytes
    goals = [
        Goal(name="bytes that device and service count apart", at_most=0, worst=difference),
        Goal(
            name=BEYOND,
            at_most=1.0,
            worst=max(one.share_of_bound for one in in_clear if one.calls),
        ),
        Goal(
            name="the same under TLS, connecting apart",
            at_most=1.0,
            worst=max(one.share_apart_from(connecting) for one in under_tls.values()),
        ),
        # Does not hold: docs/decisions/0016 says why, and what holds instead.
        Goal(
            name="the same under TLS, connecting counted, every device",
            at_most=1.0,
            worst=max(one.share_of_bound for one in under_tls.values()),
        ),
        Goal(
            name=f"the same under TLS, connecting counted, from round {ROUNDS_FOR_A_HANDSHAKE} on",
            at_most=1.0,
            worst=max(
                under_tls[name].share_of_bound
                for rounds, name in STAYING.items()
                if rounds >= ROUNDS_FOR_A_HANDSHAKE
            ),
        ),
        Goal(
            name="bytes that connecting under TLS takes, certificate and session tickets included",
            at_most=4.25 * 1024,
            worst=connecting,
        ),
    ]
    rows = [_row(way, one) for way, found in counted.items() for one in found]
    file = write_report("counted_bytes", [], rows, goals)
    drawn = [
        Goal(name=f"{way}: {one.name}", at_most=1.0, worst=one.share_of_bound)
        for way, found in counted.items()
        for one in found
        if one.calls
    ]
    draw_shares(drawn, file.with_suffix(".svg"), axis=BEYOND)


def _count(
    folder: Path,
    encoding: Encoding,
    roots: bytes | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Sequence[Counted]:
    folder.mkdir()
    url = f"sqlite:///{folder}/flasc.db"
    schema.upgrade(url)
    store = open_store(url)
    with live_service(store, open_blobs(str(folder / "blobs")), **settings or {}) as live:
        counted = count_bytes(live, folder, encoding, roots)
    store.close()
    return counted


def _row(way: str, one: Counted) -> dict[str, str | float]:
    return {
        "values": way,
        "device": one.name,
        "calls": one.calls,
        "connections": one.connections,
        "payload_bytes_up": one.own.sent,
        "payload_bytes_down": one.own.received,
        "service_counts_up": one.ledger.sent,
        "service_counts_down": one.ledger.received,
        "socket_bytes_up": one.socket.sent,
        "socket_bytes_down": one.socket.received,
        "excess_bytes": one.excess_bytes,
        "excess_percent": 100 * one.excess_bytes / one.payload_bytes if one.payload_bytes else 0,
        "share_of_bound": one.share_of_bound if one.calls else 0,
    }


if __name__ == "__main__":
    main()
