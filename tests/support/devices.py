"""Several devices of a live service at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.support.device import encoded_vector
from tests.support.live import LiveService


def hand_in(
    live: LiveService, values: Sequence[Mapping[int, float]], weights: Sequence[int] = ()
) -> None:
    """Each of as many new devices hands in one update."""
    devices = [live.device() for _ in values]
    given = [device.assignment("a-task") for device in devices]
    for number, chosen in enumerate(values):
        weight = weights[number] if weights else 1
        payload = encoded_vector(24, dict(chosen))
        devices[number].submit(given[number], payload, weight=weight)
