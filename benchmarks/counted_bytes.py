"""How much more than payloads the sockets of devices carry, and whether both ends count the same.

Devices take part through a forwarder that counts, in the scenes of tests/support/counted_bytes.py:
first contact, refused and repeated uploads, unary and streamed. Nothing here depends on speed.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from aggregator_service.store import schema
from aggregator_service.store.open import open_blobs, open_store
from benchmarks._report import Goal, write_report
from tests.support.counted_bytes import count_bytes
from tests.support.live import live_service


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder}/flasc.db"
        schema.upgrade(url)
        store = open_store(url)
        with live_service(store, open_blobs(str(folder / "blobs"))) as live:
            counted = count_bytes(live, folder)
        store.close()
    rows: list[dict[str, str | float]] = [
        {
            "device": one.name,
            "calls": one.calls,
            "payload_bytes_up": one.own.sent,
            "payload_bytes_down": one.own.received,
            "service_counts_up": one.ledger.sent,
            "service_counts_down": one.ledger.received,
            "socket_bytes_up": one.socket.sent,
            "socket_bytes_down": one.socket.received,
            "excess_bytes": one.excess_bytes,
            "excess_percent": 100 * one.excess_bytes / one.payload_bytes,
        }
        for one in counted
    ]
    difference = max(
        abs(one.own.sent - one.ledger.sent) + abs(one.own.received - one.ledger.received)
        for one in counted
    )
    goals = [
        Goal(name="bytes that device and service count apart", at_most=0, worst=difference),
        Goal(
            name="socket bytes beyond payloads, as a share of 2 % and 1 KiB per call",
            at_most=1.0,
            worst=max(one.share_of_bound for one in counted),
        ),
    ]
    write_report("counted_bytes", [], rows, goals)


if __name__ == "__main__":
    main()
