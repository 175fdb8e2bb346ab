"""When a call is repeated, and how long the waits are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk._errors import ConnectionFailed, ServiceError
from client_sdk._retry import Retrier, RetryPolicy

POLICY = RetryPolicy(
    max_attempts=5, first_delay_seconds=1.0, max_delay_seconds=4.0, total_seconds=100.0
)


class Bench:
    """A retrier whose clock moves only by waits and by what a call is said to take."""

    def __init__(self, policy: RetryPolicy = POLICY, seed: int = 1) -> None:
        self.slept: list[float] = []
        self.told: list[tuple[int, float]] = []
        self.attempts = 0
        self.work_seconds = 0.0
        self.worked = 0.0
        self.progress: Callable[[], int] = lambda: 0
        self._failures: list[ServiceError] = []
        self._retrier = Retrier(policy, clock=self._now, sleep=self.slept.append, rng=Random(seed))

    def _now(self) -> float:
        return sum(self.slept) + self.worked

    def run(self, failures: list[ServiceError]) -> str:
        self._failures = failures
        return self._retrier.run(
            self._call,
            lambda n, delay, _: self.told.append((n, delay)),
            progress=self.progress,
        )

    def _call(self) -> str:
        self.attempts += 1
        self.worked += self.work_seconds
        if self._failures:
            raise self._failures.pop(0)
        return "done"


def away(retry_after: float | None = None) -> ServiceError:
    asked = None if retry_after is None else timedelta(seconds=retry_after)
    return ConnectionFailed("away", retryable=True, retry_after=asked)


def test_a_call_that_succeeds_is_made_once() -> None:
    bench = Bench()
    assert bench.run([]) == "done"
    assert (bench.attempts, bench.slept) == (1, [])


@pytest.mark.parametrize(("failures", "passes"), [(4, True), (5, False)])
def test_the_last_allowed_attempt_may_succeed(failures: int, passes: bool) -> None:
    bench = Bench()
    if passes:
        assert bench.run([away()] * failures) == "done"
    else:
        with pytest.raises(ConnectionFailed):
            bench.run([away()] * failures)
    assert bench.attempts == 5


def test_what_is_not_retryable_is_raised_at_once() -> None:
    bench = Bench()
    with pytest.raises(ServiceError, match="no"):
        bench.run([ServiceError("no")])
    assert (bench.attempts, bench.slept) == (1, [])


@given(seed=st.integers(0, 2**32))
def test_waits_are_jittered_between_zero_and_a_doubling_bound(seed: int) -> None:
    bench = Bench(seed=seed)
    bench.run([away()] * 4)
    for waited, bound in zip(bench.slept, [1.0, 2.0, 4.0, 4.0], strict=True):
        assert 0.0 <= waited <= bound
    assert bench.told == list(enumerate(bench.slept, start=1))


@given(asked=st.floats(0, 90), seed=st.integers(0, 2**32))
def test_no_wait_is_shorter_than_the_service_asks(asked: float, seed: int) -> None:
    bench = Bench(seed=seed)
    bench.run([away(asked)])
    # A Duration holds microseconds here.
    assert asked - 1e-6 <= bench.slept[0] <= asked + 1.0 + 1e-6


@pytest.mark.parametrize(("asked", "attempts"), [(98.9, 2), (100.1, 1)])
def test_a_wait_beyond_the_total_time_is_not_begun(asked: float, attempts: int) -> None:
    bench = Bench()
    if attempts == 2:
        bench.run([away(asked)])
    else:
        with pytest.raises(ConnectionFailed):
            bench.run([away(asked)])
        assert bench.slept == []
    assert bench.attempts == attempts


def test_a_call_that_works_for_long_before_it_fails_is_still_repeated() -> None:
    bench = Bench()
    bench.work_seconds = 100.0
    assert bench.run([away()]) == "done"
    with pytest.raises(ConnectionFailed):
        bench.run([away(), away()])


def test_attempts_and_time_count_afresh_after_progress() -> None:
    bench = Bench()
    bench.work_seconds = 20.0
    bench.progress = lambda: bench.attempts // 4
    # Each fourth attempt leaves something; twenty would be too many, and last too long.
    assert bench.run([away()] * 20) == "done"
    # The first wait after it is as short as a first one.
    assert bench.told[3][0] == 1


def test_without_further_progress_attempts_end() -> None:
    bench = Bench()
    bench.progress = lambda: min(bench.attempts, 3)
    with pytest.raises(ConnectionFailed):
        bench.run([away()] * 20)
    assert bench.attempts == 3 + POLICY.max_attempts - 1


def test_two_devices_do_not_wait_alike() -> None:
    first, second = Bench(seed=1), Bench(seed=2)
    first.run([away()] * 4)
    second.run([away()] * 4)
    assert first.slept != second.slept
