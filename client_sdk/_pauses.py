"""How long a device stays away: as the service asks, and longer the more often it came too late."""

from __future__ import annotations

import random
from typing import Final

from flasc_core.pb.v1 import device_service_pb2 as pb

__all__ = ["Pauses"]

# Where the service names no window; long enough that devices which fail together spread out.
_DEFAULT_WINDOW_SECONDS: Final = (1.0, 10.0)
# Each refusal in a row doubles the pause, up to some 20 minutes.
_MAX_DOUBLINGS: Final = 7


class Pauses:
    """Seconds until the next check-in, drawn evenly from a window."""

    def __init__(self, rng: random.Random) -> None:
        self._rng: Final = rng
        self._refusals = 0

    def within(self, window: pb.RetryWindow) -> float:
        earliest = max(window.delay_min.ToTimedelta().total_seconds(), 0.0)
        latest = max(window.delay_max.ToTimedelta().total_seconds(), earliest)
        if not latest:
            # No window is named, or one that would have this device ask without end.
            earliest, latest = _DEFAULT_WINDOW_SECONDS
        return self._rng.uniform(earliest, latest)

    def after_refusal(self) -> float:
        """A device that is always too late takes places in rounds and burns its battery for it."""
        factor = 2 ** min(self._refusals, _MAX_DOUBLINGS)
        self._refusals += 1
        earliest, latest = _DEFAULT_WINDOW_SECONDS
        return self._rng.uniform(factor * earliest, factor * latest)

    def after_success(self) -> None:
        """Refusals count afresh."""
        self._refusals = 0
