"""Measurements of configurations from a table in place of runs."""

from __future__ import annotations

from collections.abc import Callable

from flasc_sim.search.goals import Outcome, Outcomes
from flasc_sim.search.space import Candidate

__all__ = ["Table", "a_candidate"]

ROUNDS = 9


def a_candidate(rank: int = 4, density: float = 1 / 16, **changes: object) -> Candidate:
    values: dict[str, object] = {"head_density": 1.0, "encoding": "int6", "base": "initial"}
    return Candidate(rank=rank, density=density, **(values | changes))  # type: ignore[arg-type]


class Table:
    """Nine rounds of a run per candidate, evaluated after rounds 1, 3, 6 and 9.

    Accuracy rises evenly to `accuracy(candidate)`, bytes to `payload_bytes(candidate)`. What was
    asked for is kept: `asked` in order, `rounds` the last round of each that was looked at.
    """

    def __init__(
        self,
        accuracy: Callable[[Candidate], float],
        payload_bytes: Callable[[Candidate], int] = lambda one: round(one.rank * one.density * 900),
    ) -> None:
        self._accuracy = accuracy
        self._payload_bytes = payload_bytes
        self.asked: list[Candidate] = []
        self.rounds: dict[Candidate, int] = {}

    def __call__(self, candidate: Candidate) -> Outcomes:
        self.asked.append(candidate)
        for done in (1, 3, 6, ROUNDS):
            self.rounds[candidate] = done
            yield self.outcome(candidate, done)

    def outcome(self, candidate: Candidate, done: int = ROUNDS) -> Outcome:
        return Outcome(
            candidate=candidate,
            round=done,
            rounds=ROUNDS,
            accuracy=self._accuracy(candidate) * done / ROUNDS,
            payload_bytes=self._payload_bytes(candidate) * done // ROUNDS,
        )
