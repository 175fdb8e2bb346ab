"""Trying again: exponential, with full jitter, bounded, and only where repeating is safe."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from client_sdk._errors import ServiceError

__all__ = ["CALL_RETRIES", "SESSION_RETRIES", "Retrier", "RetryPolicy"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The n-th wait is uniform in [0, min(first * 2**(n-1), max)] seconds.

    A wait that the service asks for comes on top. No wait starts that would end beyond
    `total_seconds` after the first failure.
    """

    max_attempts: int
    first_delay_seconds: float
    max_delay_seconds: float
    total_seconds: float


# One call over a link that comes and goes.
CALL_RETRIES: Final = RetryPolicy(
    max_attempts=6, first_delay_seconds=0.5, max_delay_seconds=20.0, total_seconds=120.0
)
# A whole check-in cycle while the service is away, or the device is in a tunnel.
SESSION_RETRIES: Final = RetryPolicy(
    max_attempts=60, first_delay_seconds=5.0, max_delay_seconds=600.0, total_seconds=6 * 3600.0
)


class Retrier:
    """Runs calls under one policy. `on_retry` hears of attempt, delay and cause before a wait."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        rng: random.Random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._rng = rng

    def run(
        self,
        call: Callable[[], _T],
        on_retry: Callable[[int, float, ServiceError], None],
        *,
        progress: Callable[[], int] = lambda: 0,
    ) -> _T:
        """Return what `call` returns; the last ServiceError escapes when the bounds are reached.

        Attempts and time count afresh after a failure by which `progress` has grown.
        """
        failed_at: float | None = None
        attempt = 1
        reached = progress()
        while True:
            try:
                return call()
            except ServiceError as error:
                if progress() > reached:
                    failed_at, attempt, reached = None, 1, progress()
                now = self._clock()
                failed_at = now if failed_at is None else failed_at
                if not error.retryable or attempt >= self._policy.max_attempts:
                    raise
                delay = self._delay(attempt, error)
                if now - failed_at + delay > self._policy.total_seconds:
                    raise
                on_retry(attempt, delay, error)
            self._sleep(delay)
            attempt += 1

    def _delay(self, attempt: int, error: ServiceError) -> float:
        asked = error.retry_after.total_seconds() if error.retry_after else 0.0
        longest = self._policy.first_delay_seconds * 2.0 ** (attempt - 1)
        backoff = self._rng.uniform(0.0, min(longest, self._policy.max_delay_seconds))
        return max(asked, 0.0) + backoff
