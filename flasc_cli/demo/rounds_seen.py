"""Which rounds of a task have ended since one last asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from flasc_cli.api import AdminApi, Record

__all__ = ["RoundsSeen", "number_of"]

_FINAL_STATES: Final = frozenset({"PUBLISHED", "EVALUATED", "ABORTED"})
_LOOK_SECONDS: Final = 0.5


class RoundsSeen:
    """Asks the admin API at most twice a second."""

    def __init__(self, client: AdminApi, task: str) -> None:
        self._client: Final = client
        self.task: Final = task
        self._last_ended = 0
        self._asked_at = 0.0

    def newly_ended(self) -> Iterator[Record]:
        now = time.monotonic()
        if now - self._asked_at < _LOOK_SECONDS:
            return
        self._asked_at = now
        rounds = self._client.get(f"/v1/tasks/{self.task}/rounds", limit=5)["items"]
        for shown in sorted(rounds, key=number_of):
            if shown["number"] > self._last_ended and shown["state"] in _FINAL_STATES:
                self._last_ended = shown["number"]
                yield shown


def number_of(shown: Record) -> int:
    number: int = shown["number"]
    return number
