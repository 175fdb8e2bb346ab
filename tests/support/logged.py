"""What the service logs, as values, while a test runs."""

from __future__ import annotations

import queue
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import structlog

from tests.support.patience import PATIENCE_SECONDS


@dataclass(frozen=True, slots=True)
class Logged:
    _entries: queue.SimpleQueue[dict[str, Any]] = field(default_factory=queue.SimpleQueue)

    def take(self, event: str) -> dict[str, Any]:
        """The next entry of this event; waits for it, passes over others."""
        while True:
            entry = self._entries.get(timeout=PATIENCE_SECONDS)
            if entry["event"] == event:
                return entry

    def rest(self) -> list[dict[str, Any]]:
        """All that has been logged and not been taken."""
        entries = []
        while not self._entries.empty():
            entries.append(self._entries.get())
        return entries

    def __call__(self, _: object, level: str, entry: MutableMapping[str, Any]) -> NoReturn:
        self._entries.put({**entry, "level": level})
        raise structlog.DropEvent


@contextmanager
def logged() -> Iterator[Logged]:
    """In place of printing; loggers that are bound already are caught too."""
    sink = Logged()
    processors = structlog.get_config()["processors"]
    before = list(processors)
    processors[:] = [sink]
    try:
        yield sink
    finally:
        processors[:] = before
